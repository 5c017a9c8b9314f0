"""Unused parameters: what the forward pass of a module never reads is set aside while the module is traced.

A component often holds a whole model to call three of its methods. torch.export lifts every parameter and buffer of the
module into the graph's signature, at a cost that grows with their number, and the exporter drops the unused ones again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["set_aside", "used_tensors"]


class _Readers(TorchFunctionMode):
    """Notes the tensors that any function, method or attribute of PyTorch is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Iterable[object] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        self.read.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))


def used_tensors(module: nn.Module, inputs: Sequence[Tensor]) -> frozenset[int] | None:
    """ids of the tensors that `module(*inputs)` reads, by a run on fake tensors: nothing is computed. None if the run
    fails, as it does where a value decides control flow."""
    readers = _Readers()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), mode, readers:
            module(*(mode.from_tensor(tensor) for tensor in inputs))
    except Exception:  # whatever it is, the trace meets it again and explains it
        return None
    return frozenset(readers.read)


@contextlib.contextmanager
def set_aside(module: nn.Module, inputs: Sequence[Tensor]) -> Iterator[None]:
    """Within the block, parameters and buffers of `module` that a call on `inputs` does not read are plain attributes:
    they can be read as before, but are no parameters. Not for use while another thread runs `module`."""
    used = used_tensors(module, inputs)
    moved: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]] = []
    try:
        for part in module.modules():
            for store in (part._parameters, part._buffers):
                if used is None:
                    continue
                unused = {name: one for name, one in store.items() if one is not None and id(one) not in used}
                if unused:
                    moved.append((part, store, dict(store)))
                    for name, tensor in unused.items():
                        del store[name]
                        part.__dict__[name] = tensor
        yield
    finally:
        for part, store, before in moved:
            for name in before.keys() - store.keys():
                del part.__dict__[name]
            store.clear()
            store.update(before)  # in their order
