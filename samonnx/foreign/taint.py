"""Taint: which tensors of an eager run come from which inputs, and where a Python value is made of one that does.

Taint is kept by storage, so that views and writes in place count: a write makes the whole storage come from what was
written. What depends on the shape of a tensor alone (`zeros_like`) does not come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Taint", "number_key"]

Ports = frozenset[str]
NO_PORTS: Ports = frozenset()

_aten = torch.ops.aten

READS = frozenset({_aten._local_scalar_dense, _aten.allclose, _aten.equal, _aten.is_nonzero})
"""Operators that give a Python value."""

SIZES = frozenset(
    {
        _aten.nonzero,
        _aten.masked_select,
        _aten._unique,
        _aten._unique2,
        _aten.unique_dim,
        _aten.unique_consecutive,
        _aten.unique_dim_consecutive,
        _aten.bincount,
    }
)
"""Operators whose result has a shape that depends on values."""

BY_SHAPE = frozenset(
    {
        _aten.empty_like,
        _aten.full_like,
        _aten.new_empty,
        _aten.new_empty_strided,
        _aten.new_full,
        _aten.new_ones,
        _aten.new_zeros,
        _aten.ones_like,
        _aten.rand_like,
        _aten.randn_like,
        _aten.zeros_like,
    }
)
"""Operators that look at the shape of their first tensor alone."""


class Taint(TorchDispatchMode):
    """Follows tensors from `inputs` (by port); `stopped` is called with the ports and the operator's name wherever a
    Python value, or a shape, is made of one."""

    def __init__(self, inputs: Mapping[str, Tensor], stopped: Callable[[Ports, str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read: list[tuple[int, int]] = []
        """Address and offset of every number that was read from a tensor, whatever it comes from."""
        self._from: dict[StorageWeakRef, Ports] = {}
        self._stopped = stopped
        for port, tensor in inputs.items():
            self.mark(tensor, frozenset({port}))

    def ports(self, values: object) -> Ports:
        """The inputs from which the tensors in `values` come."""
        found = NO_PORTS
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                found |= self._from.get(_storage(leaf), NO_PORTS)
        return found

    def mark(self, tensor: Tensor, ports: Ports) -> None:
        """From now on `tensor`, with all that shares its memory, comes from `ports`."""
        key = _storage(tensor)
        self._from[key] = self._from.get(key, NO_PORTS) | ports

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet is _aten._local_scalar_dense:
            self.read.append(number_key(args[0]))
        ports = self.ports((args, kwargs))
        if ports:
            self._watch(func, args, ports)
        result = func(*args, **kwargs)
        if packet in BY_SHAPE:
            # `full_like(x, value)`: the value is a number, and a tensor that gave one was seen when it was read
            ports = self.ports((args[1:], kwargs))
        if ports:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                self._written(argument, value, ports)
            for argument in func._schema.arguments:
                if argument.name in kwargs:
                    self._written(argument, kwargs[argument.name], ports)
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.mark(leaf, ports)
        return result

    def _written(self, argument: Any, value: object, ports: Ports) -> None:
        if argument.alias_info is not None and argument.alias_info.is_write:
            for leaf in tree_leaves(value):
                if isinstance(leaf, Tensor):
                    self.mark(leaf, ports)

    def _watch(self, func: Any, args: Sequence[Any], ports: Ports) -> None:
        packet = func.overloadpacket
        if packet in READS or packet in SIZES or func is _aten.repeat_interleave.Tensor:
            self._stopped(ports, packet.__name__)
        elif packet is _aten.index:
            masks = [one for one in args[1] if isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8)]
            if deciding := self.ports(masks):
                self._stopped(deciding, "index")


def number_key(tensor: Tensor) -> tuple[int, int]:
    """What tells a number in memory from others."""
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset())


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
