"""A random graph under construction: what is drawn, the values so far, and weights that several nodes may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

__all__ = ["Construction", "Port"]

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Port:
    """A float value and its shape; a dynamic batch counts as `Construction.batch`."""

    value: ir.Value
    shape: tuple[int, ...]


class Construction:
    """Values are O(1): weights are normal over the root of what they sum up, so that 1e-5 is far above rounding."""

    def __init__(self, draw: Any, opset: int, dtype: ir.DataType, dynamic: bool) -> None:
        self._draw = draw
        self.opset, self.dtype, self.dynamic = opset, dtype, dynamic
        self.numpy = dtype.numpy()
        self._random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.inputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.functions: list[ir.Function] = []
        self.ports: list[Port] = []
        self._weights: dict[tuple[int, ...], list[ir.Value]] = {}
        self._count = 0
        self.batch = 2
        self.mask = self.input("mask", [1], ir.DataType.BOOL)
        self.condition = self.input("condition", [], ir.DataType.BOOL)

    # What is drawn

    def integer(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def flag(self) -> bool:
        return bool(self._draw(st.booleans()))

    def choice(self, of: Sequence[T]) -> T:
        found: T = self._draw(st.sampled_from(of))
        return found

    def permutation(self, rank: int, fixed: int) -> list[int]:
        return [*range(fixed), *self._draw(st.permutations(range(fixed, rank)))]

    def random(self, *shape: int) -> Array:
        return np.asarray(self._random.standard_normal(shape)).astype(self.numpy)

    # Values

    def input(self, name: str, shape: Sequence[int | str], dtype: ir.DataType) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def data(self, *shape: int) -> None:
        """A float input."""
        declared: tuple[int | str, ...] = ("batch", *shape[1:]) if self.dynamic else shape
        self.ports.append(Port(self.input(f"x{len(self.inputs)}", declared, self.dtype), shape))

    def constant(self, array: Array) -> ir.Value:
        name = self._name("c")
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
        self.initializers.append(value)
        return value

    def weight(self, *shape: int) -> ir.Value:
        """Perhaps one that another node reads too."""
        known = self._weights.setdefault(shape, [])
        if known and self.integer(0, 3) == 0:
            return self.choice(known)
        fan = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 1
        value = self.constant((self.random(*shape) / np.sqrt(fan)).astype(self.numpy))
        known.append(value)
        return value

    def positive(self, *shape: int) -> ir.Value:
        """0.5 … 2."""
        return self.constant(np.asarray(self._random.uniform(0.5, 2, shape)).astype(self.numpy))

    def special(self, *shape: int) -> ir.Value:
        """Constants that rules look for."""
        return self.constant(np.full(shape, self.choice([0.0, -0.0, 1.0, -1.0])).astype(self.numpy))

    def port(self, *, rank: int | None = None, shape: tuple[int, ...] | None = None) -> Port | None:
        """One of the values so far, of this rank or shape; recent ones more often, so that chains get long."""
        fitting = [
            port
            for port in self.ports
            if (rank is None or len(port.shape) == rank) and (shape is None or port.shape == shape)
        ]
        if not fitting:
            return None
        return fitting[-1] if self.integer(0, 2) else self.choice(fitting)

    # Nodes

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """A node whose output only its maker knows."""
        return self.nodes_outputs(operator, inputs, attributes or {}, 1, domain)[0]

    def nodes_outputs(
        self, operator: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any], count: int,
        domain: str = "",
    ) -> Sequence[ir.Value]:  # fmt: skip
        """All outputs of a new node."""
        name = self._name(operator.lower())
        node = ir.node(operator, list(inputs), dict(attributes), domain=domain, num_outputs=count, name=f"{name}/node")
        for index, output in enumerate(node.outputs):
            output.name = f"{name}/{index}" if index else name
        self.nodes.append(node)
        return node.outputs

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        shape: tuple[int, ...],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> Port:
        """A node whose output others may read."""
        port = Port(self.node(operator, inputs, attributes, domain), shape)
        port.value.type, port.value.shape = self._type(), self._unknown(shape)
        self.ports.append(port)
        return port

    def reshaped(self, source: Port, shape: tuple[int, ...]) -> Port:
        wanted = (0, *shape[1:]) if self.dynamic else shape
        return self.add("Reshape", [source.value, self.constant(np.array(wanted, np.int64))], shape)

    def transposed(self, source: Port, perm: Sequence[int]) -> Port:
        return self.add("Transpose", [source.value], tuple(source.shape[axis] for axis in perm), {"perm": list(perm)})

    def unsqueezed(self, source: Port, axis: int) -> Port:
        shape = (*source.shape[:axis], 1, *source.shape[axis:])
        if self.opset < 13:
            return self.add("Unsqueeze", [source.value], shape, {"axes": [axis]})
        return self.add("Unsqueeze", [source.value, self.constant(np.array([axis], np.int64))], shape)

    # Bodies of control flow

    def body(self, operator: str, captured: Sequence[ir.Value], shape: tuple[int, ...]) -> ir.Graph:
        """A branch: `captured` combined, scaled by a weight of its own."""
        name = self._name("branch")
        weight = ir.Value(name=f"{name}/w", const_value=ir.tensor(self.random(1), name=f"{name}/w"))
        weight.type, weight.shape = ir.TensorType(self.dtype), ir.Shape([1])
        first = ir.node(operator, list(captured))
        second = ir.node("Mul", [first.outputs[0], weight])
        for index, node in enumerate((first, second)):
            node.outputs[0].name = node.name = f"{name}/{index}"
        output = second.outputs[0]
        output.type, output.shape = self._type(), self._unknown(shape)
        return ir.Graph([], [output], nodes=[first, second], initializers=[weight], name=name)

    def loop_body(self, shape: tuple[int, ...], captured: ir.Value) -> ir.Graph:
        """carried → 0.5 · carried + captured."""
        name = self._name("loop")
        trip = ir.Value(name=f"{name}/i", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
        going = ir.Value(name=f"{name}/go", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
        carried = ir.Value(name=f"{name}/carried", type=self._type(), shape=self._unknown(shape))
        half = ir.node("Constant", [], {"value": ir.tensor(np.array(0.5, self.numpy))})
        scaled = ir.node("Mul", [carried, half.outputs[0]])
        total = ir.node("Add", [scaled.outputs[0], captured])
        still = ir.node("Identity", [going])
        nodes = [half, scaled, total, still]
        for index, node in enumerate(nodes):
            node.outputs[0].name = node.name = f"{name}/{index}"
        still.outputs[0].type, still.outputs[0].shape = going.type, going.shape
        total.outputs[0].type, total.outputs[0].shape = carried.type, self._unknown(shape)
        return ir.Graph([trip, going, carried], [still.outputs[0], total.outputs[0]], nodes=nodes, name=name)

    def _type(self) -> ir.TensorType:
        return ir.TensorType(self.dtype)

    def _unknown(self, shape: tuple[int, ...]) -> ir.Shape:
        """Of the same rank; the inference finds the sizes."""
        return ir.Shape([None] * len(shape))

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what}_{self._count}"
