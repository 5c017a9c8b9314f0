"""Value reads: the calls of PyTorch's functions whose result a trace cannot follow, because it depends on values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["BY_ARGUMENT", "MAKERS", "UNSEEN", "deciding", "is_mask", "read_by", "tensors_in"]

READS = frozenset(
    {
        "__bool__",
        "__contains__",
        "__complex__",
        "__float__",
        "__format__",
        "__index__",
        "__int__",
        "__array__",
        "allclose",
        "equal",
        "is_nonzero",
        "item",
        "numpy",
        "tolist",
    }
)
"""Functions and methods of tensors that give a Python value."""

MAKERS = frozenset({"as_tensor", "asarray", "new_tensor", "tensor"})
"""Those that make a tensor of numbers; numbers that are tensors are read."""

UNSEEN = frozenset({"__array__", "numpy", "tolist"}) | MAKERS
"""Those that read memory without an operator."""

SIZES = frozenset(
    {"argwhere", "bincount", "masked_select", "nonzero", "unique", "unique_consecutive", "_unique2", "where"}
)
"""Those that give a tensor whose shape depends on values (`where` if it is given a condition alone)."""

BY_ARGUMENT = frozenset({"__getitem__", "__setitem__", "repeat_interleave"})
"""Those of which one argument decides (a mask, numbers of repeats), while others may come from anywhere."""


def read_by(func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> str | None:
    """The name of the function if this call of it depends on values so; None otherwise."""
    name = getattr(func, "__name__", "")
    if name in READS:
        return str(name)
    if name in MAKERS and _of_tensors(name, args, kwargs):
        return str(name)
    if name in SIZES and (name != "where" or len(args) + len(kwargs) == 1):
        return str(name)
    if name == "repeat_interleave" and any(_counts(value) for value in (*args[1:2], kwargs.get("repeats"))):
        return str(name)
    if name in ("__getitem__", "__setitem__") and any(map(is_mask, tree_leaves(args[1]))):
        return str(name)
    return None


def deciding(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """The arguments on whose values the call depends."""
    if name == "repeat_interleave":
        return args[1] if len(args) > 1 else kwargs["repeats"]
    if name in ("__getitem__", "__setitem__"):
        return [index for index in tree_leaves(args[1]) if is_mask(index)]
    return (args, kwargs)


def is_mask(index: object) -> bool:
    """Whether an index says which places to take, not their numbers."""
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def tensors_in(value: object) -> list[Tensor]:
    """All tensors in lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _of_tensors(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether a tensor is made of a list with tensors in it."""
    data = args[1:2] if name == "new_tensor" else args[:1]
    return any(not isinstance(one, Tensor) and bool(tensors_in(one)) for one in (*data, kwargs.get("data")))


def _counts(repeats: object) -> bool:
    """One number for each place; a single number is read as such."""
    return isinstance(repeats, Tensor) and repeats.numel() > 1
