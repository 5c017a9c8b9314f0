"""Call module: a foreign model's method as a module that takes the program's ports in order and returns a tuple.

ports ─► lists, mappings, fixed arguments ─► model.method(…) ─► places in what it returns ─► tuple of tensors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.recipe_calls import CallSpec, path_steps

__all__ = ["CallError", "CallModule"]

Around = Callable[[], AbstractContextManager[None]]

DTYPES = (torch.float32, torch.int32, torch.int64, torch.bool)


class CallError(SamonnxError):
    """A call of the recipe does not fit the model."""


class CallModule(nn.Module):
    """`forward` takes the call's inputs, then its bank, each in the recipe's order, and returns its outputs, then the
    next bank. `values` are replayed while the module is traced (see `PythonValues`)."""

    def __init__(self, name: str, model: nn.Module, call: CallSpec, around: Around = nullcontext) -> None:
        super().__init__()
        self.name, self.call, self.around = name, call, around
        self.model = model
        taken = [(key, spec.argument or key) for key, spec in (*call.inputs.items(), *call.bank.items())]
        self.arguments = tuple(path_steps(path) for _, path in taken)
        self.fixed = tuple((path_steps(path), value) for path, value in call.fixed.items())
        self.results = (*call.outputs.items(), *((f"bank.{key}", spec.output) for key, spec in call.bank.items()))
        self.method()  # says at once what is missing

    def method(self) -> Callable[..., object]:
        """What is called. Raises CallError."""
        found: object = self.model
        done: list[str] = []
        for step in self.call.method.split("."):
            if step == "forward" and isinstance(found, nn.Module):
                return cast(Callable[..., object], found)  # with its hooks, as Python code calls it
            below = getattr(found, step, None)
            if below is None:
                where = ".".join(done) or type(self.model).__name__
                names = sorted(n for n in dir(type(found)) if callable(getattr(type(found), n, None)) and n[0] != "_")
                parts = [n for n, _ in found.named_children()] if isinstance(found, nn.Module) else []
                raise CallError(
                    f"calls.{self.name}.method: {where} has no {step!r}; submodules: {', '.join(parts) or 'none'}"
                    + _hint(step, [*names, *parts])
                )
            found = below
            done.append(step)
        if not callable(found):
            raise CallError(f"calls.{self.name}.method: {self.call.method} is {type(found).__name__}, not a method")
        return cast(Callable[..., object], found)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The call. Raises CallError for results that are no tensors."""
        arguments: dict[str, Any] = {}
        for steps, value in (*self.fixed, *zip(self.arguments, tensors, strict=True)):
            _put(arguments, steps, value)
        with self.around():
            returned = self.method()(**{name: _listed(value) for name, value in arguments.items()})
        found = [self._taken(returned, name, path) for name, path in self.results]
        # A tensor that goes through, or out twice, would be one value with two names in the graph.
        known = {id(tensor) for tensor in tensors}
        for place, one in enumerate(found):
            found[place] = one.clone() if id(one) in known else one
            known.add(id(one))
        return tuple(found)

    def _taken(self, returned: object, name: str, path: str) -> Tensor:
        found: object = returned
        for step in path_steps(path):
            below = _below(found, step)
            if below is _NOTHING:
                raise CallError(
                    f"calls.{self.name}.outputs.{name}: what {self.call.method} returns has nothing at {path!r}: "
                    f"{_contents(found)}"
                )
            found = below
        if not isinstance(found, Tensor):
            raise CallError(
                f"calls.{self.name}.outputs.{name}: at {path!r}, {self.call.method} returns {_contents(found)}; "
                "expected the place of a tensor"
            )
        if found.dtype not in DTYPES:
            raise CallError(
                f"calls.{self.name}.outputs.{name}: {path!r} is {found.dtype}, expected float32, int32, int64 or bool; "
                "replace the submodule that makes it"
            )
        return found


_NOTHING = object()


def _put(arguments: dict[str, Any], steps: tuple[str | int, ...], value: object) -> None:
    """`value` at its place; mappings and lists on the way are made as dicts, the places of lists as keys."""
    inner: Any = arguments
    for step in steps[:-1]:
        inner = inner.setdefault(step, {})
    inner[steps[-1]] = value


def _listed(value: object) -> object:
    """Dicts whose keys are places become lists, frozen values plain ones."""
    if isinstance(value, Mapping):
        if value and all(isinstance(key, int) for key in value):
            return [_listed(value[key]) for key in sorted(value)]
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _below(found: object, step: str | int) -> object:
    if isinstance(step, int):
        return found[step] if isinstance(found, list | tuple) and step < len(found) else _NOTHING
    if isinstance(found, Mapping):
        return found.get(step, _NOTHING)
    return getattr(found, step, _NOTHING)


def _contents(found: object) -> str:
    """What there is in a returned value, in words."""
    if isinstance(found, Tensor):
        return f"a tensor {str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    if isinstance(found, Mapping):
        return f"{type(found).__name__} with {', '.join(str(key) for key, value in found.items() if value is not None)}"
    if isinstance(found, list | tuple):
        return f"{type(found).__name__} of {len(found)}"
    return "None" if found is None else type(found).__name__


def _hint(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    return f"; close: {', '.join(close)}" if close else ""
