"""The pass `unroll_memory`: a symbolic number of memory slots becomes a fixed number of places, some of them empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import MASKED_LOGIT, is_attention
from samonnx.passes.graph_values import static_shape
from samonnx.passes.interface import Array, Exactness, GraphPass, PassDeclinedError, PassResult
from samonnx.passes.memory_layout import Segment
from samonnx.passes.memory_proof import Keys, MemoryProof, prove
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes
from samonnx.passes.symbol_binding import bind_symbols, input_symbols

__all__ = ["UnrollMemory"]


@dataclass(frozen=True, eq=False)
class UnrollMemory(GraphPass):
    """Bind symbolic numbers of memory slots to padded sizes, and mask what is empty.

        memory[O, n, …] ── … ── K, V ─┐            memory[O, N, …] ── Where(memory_valid, ·, 0) ── … ── K, V ─┐
        x ── … ── Q ───────── Attention ── y   →   x ── … ── Q ─────────────────────── Attention ── y
                                                   memory_valid[O, N] ── repeat, 0 or −1e30 ── [O, 1, 1, keys] ─┘

    Every symbol of `validity` brings one bool input [O, size], appended to the graph's inputs; the mask is built once
    for all attention nodes with the same keys. An object whose places are all empty gets a finite value of no meaning.

    Exact:    in real arithmetic, for objects with at least one filled place. That places do not mix is proved node by
              node (`memory_layout`) with two sets of stand-in sizes: each attention over slots gets its mask, and
              nothing else looks along their axis. Whatever lies in an empty place (NaN, infinities) is cut at the door.
    Declines: with an error that names the node: sums, softmax or sorting along the slots outside attention, slices
              through slots, sizes that enter arithmetic ("divide by the number of slots"), causal attention and
              attention with a cache; names and sizes that do not fit the graph.
    Cost:     a few nodes on small tensors, one copy of the memory.

    Attributes:
        bindings: symbol → number of places.
        validity: symbol → name of its new bool input; a symbol that is left out has no empty places.
    """

    name: ClassVar[str] = "unroll_memory"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    bindings: Mapping[str, int] = field(default_factory=dict)
    validity: Mapping[str, str] = field(default_factory=dict)

    def call(self, model: ir.Model) -> PassResult:
        """Raises `PassDeclinedError`, before anything is changed, for what it cannot prove."""
        if not self.bindings:
            return PassResult(model, False)
        self._check_options(model.graph)
        proof = prove(model, self.bindings)
        ports = input_symbols(model.graph)
        bind_symbols(model, self.bindings)
        surgeon = _Surgeon(model.graph, self.bindings, proof.objects, {})
        for symbol, name in self.validity.items():
            surgeon.add_validity(symbol, name)
        for symbol in self.validity:
            for port, axis in ports[symbol]:
                surgeon.guard(port, axis, symbol)
        surgeon.mask_attentions(proof)
        infer_shapes(model, forget=True)
        return PassResult(model, True)

    def feeds_before(self, feeds_after: Mapping[str, Array], before: ir.Model) -> dict[str, Array]:
        """The filled places only, moved together; every object must have the same number of them."""
        feeds = {name: array for name, array in feeds_after.items() if name not in set(self.validity.values())}
        for symbol, ports in input_symbols(before.graph).items():
            if symbol not in self.validity:
                continue
            valid = feeds_after[self.validity[symbol]]
            counts = sorted(set(valid.sum(axis=1).tolist()))
            if len(counts) > 1 or counts == [0]:
                raise PassDeclinedError(
                    f"unroll_memory: no feeds of the graph before mean the same: {self.validity[symbol]!r} fills "
                    f"{counts} places an object; "
                    "give VerifyEach feeds with the same number, at least 1, for every object"
                )
            for port, axis in ports:
                array = np.asarray(feeds_after[str(port.name)])
                rows = [
                    np.compress(valid[index], row, axis=max(axis - 1, 0))
                    for index, row in enumerate(array if axis else [array])
                ]
                feeds[str(port.name)] = np.stack(rows) if axis else rows[0]
        return feeds

    def _check_options(self, graph: ir.Graph) -> None:
        known = input_symbols(graph)
        listed = ", ".join(known) or "none"
        for symbol, size in self.bindings.items():
            if symbol not in known:
                raise PassDeclinedError(
                    f"unroll_memory: no input has the symbolic dimension {symbol!r}; known: {listed}"
                )
            if size < 1:
                raise PassDeclinedError(f"unroll_memory: {symbol!r} is bound to {size}; expected 1 or more places")
        taken = {value.name for value in (*graph.inputs, *graph.outputs)} | set(graph.initializers)
        for symbol, name in self.validity.items():
            if symbol not in self.bindings:
                raise PassDeclinedError(
                    f"unroll_memory: validity of {symbol!r}, which is not bound: {list(self.bindings)}"
                )
            if name in taken:
                raise PassDeclinedError(f"unroll_memory: the new input {name!r} of {symbol!r} exists already")
            taken.add(name)


@dataclass(frozen=True)
class _Surgeon:
    """Adds nodes to `graph`; `valid` holds the new input of each symbol, bool [objects, size]."""

    graph: ir.Graph
    sizes: Mapping[str, int]
    objects: int
    valid: dict[str, ir.Value]

    def _at_the_door(self, name: str) -> NodeBuilder:
        return NodeBuilder(self.graph, name, self.graph[0])

    def add_validity(self, symbol: str, name: str) -> None:
        shape = ir.Shape([self.objects, self.sizes[symbol]])
        self.valid[symbol] = ir.Value(name=name, type=ir.TensorType(ir.DataType.BOOL), shape=shape)
        self.graph.inputs.append(self.valid[symbol])

    def guard(self, port: ir.Value, axis: int, symbol: str) -> None:
        """port → Where(valid, port, 0), for all readers of `port`."""
        shape = static_shape(port)
        if shape is None or port.dtype is None:
            raise AssertionError("the proof needed both")
        users = list(port.uses())
        build = self._at_the_door(f"{port.name}/filled")
        aligned = [size if index in (0, axis) else 1 for index, size in enumerate(shape)]
        valid = build.node("Reshape", self.valid[symbol], build.integers("aligned", *aligned))
        clean = build.node("Where", valid, port, build.constant("zero", np.zeros((), port.dtype.numpy())))
        clean.type, clean.shape = port.type, port.shape
        for user, index in users:
            user.replace_input_with(index, clean)

    def mask_attentions(self, proof: MemoryProof) -> None:
        masks: dict[tuple[ir.DataType, Keys], ir.Value] = {}
        for node in list(self.graph):
            keys = proof.attentions.get(str(node.outputs[0].name)) if is_attention(node) else None
            if keys is None or not any(segment.symbol in self.valid for segment in keys.segments):
                continue
            dtype = (node.inputs[0].dtype if node.inputs[0] is not None else None) or ir.DataType.FLOAT
            if (dtype, keys) not in masks:
                name = f"memory_mask_{len(masks)}" if masks else "memory_mask"
                masks[dtype, keys] = self._mask(self._at_the_door(name), keys, dtype)
            mask = masks[dtype, keys]
            own = node.inputs[3] if len(node.inputs) > 3 else None
            if own is not None:
                mask = NodeBuilder(self.graph, f"{node.name}/masks", node).node("Add", own, mask)
            node.resize_inputs(max(len(node.inputs), 4))
            node.replace_input_with(3, mask)

    def _mask(self, build: NodeBuilder, keys: Keys, dtype: ir.DataType) -> ir.Value:
        """[O · rows, 1, 1, keys]: 0 for a filled place, MASKED_LOGIT for an empty one."""
        pieces = [self._piece(build, segment, dtype) for segment in keys.segments]
        flat = build.node("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
        if keys.rows > 1:
            column = build.node("Unsqueeze", flat, build.integers("rows of an object", 1))
            rows = build.node("Expand", column, build.integers("rows", 1, keys.rows, 1))
            length = sum(segment.length(self.sizes) for segment in keys.segments)
            flat = build.node("Reshape", rows, build.integers("all rows", self.objects * keys.rows, length))
        return build.node("Unsqueeze", flat, build.integers("heads and queries", 1, 2))

    def _piece(self, build: NodeBuilder, segment: Segment, dtype: ir.DataType) -> ir.Value:
        """[O, places of the segment]."""
        length = segment.length(self.sizes)
        valid = self.valid.get(segment.symbol or "")
        if valid is None:
            return build.constant("always filled", np.zeros((self.objects, length), dtype.numpy()))
        zero = build.constant("zero", np.zeros((), dtype.numpy()))
        logit = build.node("Where", valid, zero, build.constant("masked", np.array(MASKED_LOGIT, dtype.numpy())))
        if segment.repeat > 1:
            column = build.node("Unsqueeze", logit, build.integers("places of a slot", 2))
            repeats = build.integers("repeats", 1, 1, segment.repeat)
            logit = build.node(
                "Reshape", build.node("Expand", column, repeats), build.integers("flat", self.objects, length)
            )
        return logit
