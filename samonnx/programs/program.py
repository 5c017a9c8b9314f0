"""What a program is made of: ports, components to trace, wires between them, and the inputs that specialise it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

__all__ = ["BankTensor", "Component", "Port", "Program", "Specialisation", "TypedPort", "Wire", "example_tensors"]

_DTYPES = {"float32": torch.float32, "int32": torch.int32, "int64": torch.int64, "bool": torch.bool}


@dataclass(frozen=True)
class TypedPort:
    """An input or output of a graph to be linked. `dtype` is NumPy's name ("float32", "int32", "int64", "bool"); a name
    in `shape` is a symbolic dimension, the same size wherever it stands in the ports of one graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def sides(self, sizes: Mapping[str, int] = MappingProxyType({})) -> tuple[int, ...]:
        """`shape` with the symbolic dimensions as in `sizes`."""
        return tuple(side if isinstance(side, int) else sizes[side] for side in self.shape)


@dataclass(frozen=True)
class Port(TypedPort):
    """An input or output of a program; `range` says which values make sense."""

    meaning: str
    range: str = ""


def example_tensors(ports: Iterable[Port], sizes: Mapping[str, int] = MappingProxyType({})) -> dict[str, Tensor]:
    """Zeros of each port's dtype and shape, by name; `sizes` of the symbolic dimensions, by their names."""
    return {port.name: torch.zeros(port.sides(sizes), dtype=_DTYPES[port.dtype]) for port in ports}


@dataclass(frozen=True)
class BankTensor:
    """One tensor of the bank: it enters as `bank.<name>` and leaves as `next_bank.<name>`; `empty` fills it in an
    empty bank."""

    name: str
    empty: float | int | bool

    @property
    def input(self) -> str:
        return f"bank.{self.name}"

    @property
    def output(self) -> str:
        return f"next_bank.{self.name}"


@dataclass(frozen=True)
class Component:
    """A module to trace. `inputs` are named example tensors in the order of its forward arguments; `outputs` name
    what it returns.

    `symbolic` names the dimensions that stay symbolic in the trace: input name → {axis: symbol}. `bindings` and
    `validity` say how `unroll_memory` binds them afterwards: symbol → size, symbol → name of the bool input [O, size]
    that says what is filled. `integers` bounds integer inputs for comparisons: input name → (lowest, highest + 1).

    `seen_in` is for large components: programs whose verification sees every value of this one at the recipe's
    tolerance. Where one of them is compiled, the component is compared on its own only to explain a failure.

    `original` is what the graph is compared with where that is not `module` itself but what `module` was made from.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    symbolic: Mapping[str, Mapping[int, str]] = field(default_factory=lambda: MappingProxyType({}))
    bindings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    validity: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    integers: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    seen_in: frozenset[str] = frozenset()
    original: nn.Module | None = None

    @property
    def eager(self) -> nn.Module:
        """The module that numbers are compared with."""
        return self.module if self.original is None else self.original


@dataclass(frozen=True)
class Wire:
    """`source` ("component.output" or a program input) feeds `target` ("component.input" or a program output)."""

    source: str
    target: str


@dataclass(frozen=True)
class Specialisation:
    """`name` is the program for callers whose inputs keep a promise, made cheaper by it.

    `pinned` inputs are constants (a fill value each), and inputs that nothing reads then are dropped. `filled` promises
    that only the first so many slots of the bank hold a memory; `components` (by the name of the component whose place
    they take) compute with these alone, and inputs and outputs stay the program's. `unchanged` promises that these
    outputs (`next_bank.X`) would equal their inputs (`bank.X`): the graph does not give them.
    """

    name: str
    meaning: str
    pinned: Mapping[str, float | int | bool] = field(default_factory=lambda: MappingProxyType({}))
    filled: int | None = None
    components: Mapping[str, Component] = field(default_factory=lambda: MappingProxyType({}))
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A graph to be linked. `bank` is empty for a program that remembers nothing; `pinned` inputs are removed by
    partial evaluation; `specialisations` are further graphs of it."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    components: tuple[Component, ...]
    wires: tuple[Wire, ...]
    bank: tuple[BankTensor, ...] = ()
    pinned: Mapping[str, float | int | bool] = field(default_factory=lambda: MappingProxyType({}))
    specialisations: tuple[Specialisation, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name, then its specialisations'."""
        return (self.name, *(special.name for special in self.specialisations))

    def components_of(self, names: Collection[str]) -> tuple[Component, ...]:
        """The components to trace for the graphs called `names`: its own, then those of the specialisations."""
        special = [part for one in self.specialisations if one.name in names for part in one.components.values()]
        return (*self.components, *special)
