"""Shapes of ports that wires join: symbolic dimensions are solved for, not compared by name.

Every part of a linked graph has symbols of its own: the `n` of one part is not the `n` of another. A symbol that stands
in an input of a part takes whatever size comes in; one that stands in its outputs only (the number of things found) is
what it is, and so is a symbol of the graph's own input ports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Dim", "PortType", "Symbol", "SymbolTable", "input_symbols_of", "port_type", "renamed_symbols"]


@dataclass(frozen=True)
class Symbol:
    """`owner` is the part that it belongs to, "" for the graph's own ports; `free`: takes any size, once."""

    owner: str
    name: str
    free: bool


Dim = int | Symbol


@dataclass(frozen=True)
class PortType:
    """dtype as ONNX spells it in lower case ("float"), and dimensions; None where not even their number is known."""

    dtype: str
    dims: tuple[Dim, ...] | None

    def __str__(self) -> str:
        dims = ["?"] if self.dims is None else [str(d.name if isinstance(d, Symbol) else d) for d in self.dims]
        return f"{self.dtype} [{', '.join(dims)}]"


class SymbolTable:
    """What symbols have turned out to be."""

    def __init__(self) -> None:
        self._known: dict[Symbol, Dim] = {}

    def find(self, dim: Dim) -> Dim:
        """An int, or the symbol that stands for all that are equal to `dim`."""
        while isinstance(dim, Symbol) and dim in self._known:
            dim = self._known[dim]
        return dim

    def meet(self, left: PortType, right: PortType) -> bool:
        """Whether both can be one type; free symbols become what they must be for that."""
        if left.dtype != right.dtype or left.dims is None:
            return False
        if right.dims is None:
            return True
        same_rank = len(left.dims) == len(right.dims)
        return same_rank and all(self._equal(*pair) for pair in zip(left.dims, right.dims, strict=True))

    def _equal(self, left: Dim, right: Dim) -> bool:
        left, right = self.find(left), self.find(right)
        if left == right:
            return True
        for one, other in ((right, left), (left, right)):
            if isinstance(one, Symbol) and one.free:
                self._known[one] = other
                return True
        return False

    def solved(self, port: PortType) -> str:
        """ ", where n is 4" for the symbols of `port` that are known by now."""
        known = {
            dim.name: self.find(dim) for dim in port.dims or () if isinstance(dim, Symbol) and self.find(dim) != dim
        }
        words = [f"{name} is {dim if isinstance(dim, int) else _spelled(dim)}" for name, dim in known.items()]
        return f", where {' and '.join(words)}" if words else ""


def _spelled(symbol: Symbol) -> str:
    """Its name in the linked graph."""
    return f"{symbol.owner}/{symbol.name}" if symbol.owner else symbol.name


def input_symbols_of(values: Iterable[ir.Value]) -> frozenset[str]:
    """Names of the symbols in these values."""
    dims = (dim for value in values for dim in value.shape or ())
    return frozenset(dim.value for dim in dims if isinstance(dim, ir.SymbolicDim) and dim.value is not None)


def port_type(value: ir.Value, owner: str, free: Collection[str]) -> PortType:
    """Of an input or output of a part; symbols in `free` take any size. A dimension without a name gets one."""
    dims: list[Dim] = []
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, int):
            dims.append(dim)
        elif dim.value is None:
            dims.append(Symbol(owner, f"{value.name}.{axis}", value.is_graph_input()))
        else:
            dims.append(Symbol(owner, dim.value, dim.value in free))
    return PortType(value.dtype.name.lower() if value.dtype else "?", None if value.shape is None else tuple(dims))


def renamed_symbols(model: ir.Model, owner: str, free: Collection[str], table: SymbolTable) -> ir.Model:
    """A copy whose dimensions are named as in the linked graph; `model` itself where it has no symbols."""
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    if not any(isinstance(dim, ir.SymbolicDim) for value in values for dim in value.shape or ()):
        return model
    copy = model.clone()
    for value in (*copy.graph.inputs, *(output for node in copy.graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, owner, free, table) for dim in value.shape])
    return copy


def _renamed(dim: int | ir.SymbolicDim, owner: str, free: Collection[str], table: SymbolTable) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    found = table.find(Symbol(owner, dim.value, dim.value in free))
    if isinstance(found, int):
        return found
    # An expression ("n + 1") of symbols that have got other names would speak of the wrong ones.
    return _spelled(found) if found.name.isidentifier() else None
