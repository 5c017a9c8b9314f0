"""Python values that a forward pass reads from tensors: recorded in an eager run, given back while it is traced.

Code such as `int(sizes[0])`, `if torch.equal(a, b)` or `x[mask]` needs numbers that a trace does not have. Where the
tensors are computed from constants, these numbers are the same in every run; so they are recorded in one and replayed
in the trace. Which tensors come from inputs is known to `samonnx.foreign.taint`; their values are never recorded.

Values are kept by the place in the source that reads them, in the order of their reading there: code that a trace skips
(`if not torch.compiler.is_compiling()`) does not shift the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from samonnx.errors import SamonnxError
from samonnx.foreign.source_place import calling_frame
from samonnx.foreign.taint import Taint, number_key
from samonnx.foreign.value_reads import BY_ARGUMENT, MAKERS, UNSEEN, deciding, is_mask, read_by, tensors_in

__all__ = ["PythonValues", "ReplayError", "as_exporting"]

Place = tuple[str, int, int, str]
"""File, line, column, function."""


class ReplayError(SamonnxError):
    """While it is traced, the module reads values that it did not read in the run before."""


@dataclass
class PythonValues:
    """What was read at each place."""

    recorded: dict[Place, list[object]] = field(default_factory=dict)

    @contextlib.contextmanager
    def recording(self, taint: Taint, stopped: Callable[[frozenset[str], str], None]) -> Iterator[None]:
        """Within the block, what is read is recorded, unless `taint` knows of inputs that it comes from.
        Reading that no operator shows (`tolist`, `numpy`) is then told to `stopped`, with the function's name."""
        with as_exporting(), _Recorder(self.recorded, taint, stopped):
            yield

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """Within the block, reading gives what was recorded. Raises ReplayError."""
        with as_exporting(), _Replayer(self.recorded):
            yield


@contextlib.contextmanager
def as_exporting() -> Iterator[None]:
    """Code that asks whether it is being exported is told so, in the run that records and in every run of the trace: it
    then takes the same way in both, and caches nothing."""
    compiler = torch.compiler
    before = compiler._is_compiling_flag, compiler._is_exporting_flag
    compiler._is_compiling_flag = compiler._is_exporting_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag, compiler._is_exporting_flag = before


def _kept(value: object) -> object:
    """A copy of a result, so that writing into it later changes nothing here."""
    import numpy as np

    copied = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), value)
    return tree_map_only(np.ndarray, lambda array: array.copy(), copied)


class _Recorder(TorchFunctionMode):
    def __init__(
        self,
        recorded: dict[Place, list[object]],
        taint: Taint,
        stopped: Callable[[frozenset[str], str], None],
    ) -> None:
        super().__init__()
        self._recorded, self._taint, self._stopped = recorded, taint, stopped

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        name = read_by(func, args, kwargs)
        if name is None and getattr(func, "__name__", "") in MAKERS and tensors_in(args):
            made = func(*args, **kwargs)  # a copy, made without an operator
            self._taint.mark(made, self._taint.ports(args))
            return made
        if name is None:
            return self._with_numbers(func, args, kwargs)
        decisive = deciding(name, args, kwargs)
        if ports := self._taint.ports(decisive):
            if name in UNSEEN:
                self._stopped(ports, name)
            return func(*args, **kwargs)
        recorded = self._recorded.setdefault(_place(name), [])
        if name in BY_ARGUMENT:
            recorded.append(_places(name, decisive))
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        recorded.append(_kept(result))
        if name in ("tolist", "__bool__"):  # the tensors of a trace have their own, which ask for the items
            self._recorded.setdefault(_place("item"), []).extend(args[0].flatten().tolist())
        return result

    def _with_numbers(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        """`torch.arange(size)`, `x.view(height, width)` with sizes that are tensors: the function reads them itself."""
        leaves = tree_leaves(_opened((args, dict(kwargs))))
        if not _has_number(leaves):
            return func(*args, **kwargs)
        before = len(self._taint.read)
        values = {
            number_key(leaf): (place, leaf.item())
            for place, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf.numel() == 1 and not self._taint.ports(leaf)
        }
        del self._taint.read[before:]
        result = func(*args, **kwargs)
        read = [values[key] for key in self._taint.read[before:] if key in values]
        self._recorded.setdefault(_place(getattr(func, "__name__", "")), []).append(dict(read))
        return result


class _Replayer(TorchFunctionMode):
    def __init__(self, recorded: Mapping[Place, list[object]]) -> None:
        super().__init__()
        self._left = {place: iter(values) for place, values in recorded.items()}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        name = read_by(func, args, kwargs)
        if name is None and not _has_number(tree_leaves(_opened((args, dict(kwargs))))):
            return func(*args, **kwargs)
        place = _place(str(name or getattr(func, "__name__", "")))
        if place not in self._left:
            return func(*args, **kwargs)
        try:
            value: Any = next(self._left[place])
        except StopIteration:
            file, line, _, function = place
            raise ReplayError(
                f"{file}:{line}: `{function}` is read more often while tracing than in the eager run before; what the "
                "module does must not depend on how often it was called, or on whether it is traced"
            ) from None
        if name is None:
            leaves, form = tree_flatten(_opened((args, dict(kwargs))))
            numbers = [value.get(number, leaf) for number, leaf in enumerate(leaves)]
            args, kwargs = _closed(tree_unflatten(numbers, form))
            return func(*args, **kwargs)
        if name in ("__getitem__", "__setitem__"):
            return func(args[0], _by_places(args[1], iter(value)), *args[2:])
        if name == "repeat_interleave":
            dim = args[2] if len(args) > 2 else kwargs.get("dim")
            return args[0].flatten()[value.clone()] if dim is None else args[0].index_select(dim, value.clone())
        return tree_map_only(Tensor, torch.clone, value)


class _Slice(NamedTuple):
    """A slice whose parts can be looked into."""

    start: Any
    stop: Any
    step: Any


def _opened(value: Any) -> Any:
    """`value` with its slices opened."""
    if isinstance(value, slice):
        return _Slice(value.start, value.stop, value.step)
    if type(value) in (tuple, list):
        return type(value)(map(_opened, value))
    return {key: _opened(item) for key, item in value.items()} if type(value) is dict else value


def _closed(value: Any) -> Any:
    """`value` with its slices as they were."""
    if isinstance(value, _Slice):
        return slice(*value)
    if type(value) in (tuple, list):
        return type(value)(map(_closed, value))
    return {key: _closed(item) for key, item in value.items()} if type(value) is dict else value


def _has_number(leaves: Sequence[object]) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.numel() == 1 for leaf in leaves)


def _place(function: str) -> Place:
    frame = calling_frame()
    if frame is None:
        return "", 0, 0, function
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return frame.f_code.co_filename, positions[0] or frame.f_lineno, positions[2] or 0, function


def _places(name: str, decisive: Any) -> object:
    """What takes the place of a mask (the places where it is true, for each of its axes), or of numbers of repeats (the
    place that each result comes from)."""
    if name == "repeat_interleave":
        return torch.repeat_interleave(decisive)
    return [mask.nonzero(as_tuple=True) for mask in decisive]


def _by_places(index: Any, places: Iterator[Any]) -> Any:
    """`index` with every mask written as the places where it is true."""
    parts: list[Any] = []
    for part in index if isinstance(index, tuple) else (index,):
        parts += [one.clone() for one in next(places)] if is_mask(part) else [part]
    return tuple(parts)
