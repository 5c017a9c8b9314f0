"""Converters between `onnx_ir` and onnx-graphsurgeon, and the splicing of several graphs into one.

onnx-graphsurgeon copies every tensor that it carries and drops metadata. Here initialisers stay behind: in the
surgeon's graph each is a variable without a producer, and it gets its tensor back by name on the way home.
This is the only file that knows onnx-graphsurgeon, which is untyped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.interface import GraphPass
from samonnx.passes.shape_inference import infer_shapes

# Two parts may carry parameters of one name until they are spliced; the surgeon warns of it.
gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.ERROR

__all__ = ["Kept", "Part", "Splice", "SurgeryError", "applied", "from_gs", "splice", "to_gs"]

_EMPTY: Mapping[str, str] = MappingProxyType({})


class SurgeryError(SamonnxError):
    """Graphs that cannot be converted or spliced; names the graph and the node, tensor or wire."""


@dataclass(frozen=True)
class Kept:
    """What does not travel through onnx-graphsurgeon, by name.

    Attributes:
        tensors: initialiser → its tensor (held, not copied).
        defaults: those of `tensors` that are the default values of graph inputs.
        opsets: domain → version.
        node_metadata: first named output of a node → the node's metadata.
        value_metadata: value → its metadata.
        model: metadata of the model, `graph`: of the graph.
    """

    tensors: Mapping[str, ir.TensorProtocol] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    opsets: Mapping[str, int] = field(default_factory=dict)
    node_metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    value_metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    graph: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One graph to be spliced; `name` prefixes its nodes and tensors ("decoder" → "decoder/MatMul_3")."""

    name: str
    model: ir.Model


@dataclass(frozen=True)
class Splice:
    """A graph made of parts.

    Attributes:
        name: name of the new graph.
        parts: the graphs.
        inputs, outputs: ports of the new graph: (name, NumPy dtype name, shape; a name is a symbolic dimension).
        wires: (source, target); a source is an input port or "part.output", a target an output port or "part.input".
            Each target has exactly one source; a source may feed several targets.
    """

    name: str
    parts: tuple[Part, ...]
    inputs: tuple[tuple[str, str, tuple[int | str, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[int | str, ...]], ...]
    wires: tuple[tuple[str, str], ...]


def to_gs(model: ir.Model) -> tuple[gs.Graph, Kept]:
    """The main graph of `model` for onnx-graphsurgeon, and what `from_gs` needs besides. `model` is not changed.

    Names, order, dtypes, shapes (symbolic names included) and opset imports survive the round trip.

    Raises:
        SurgeryError: control flow or model-local functions (the graphs of this project have neither).
    """
    graph = model.graph
    for node in graph:
        if any(attr.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attr in node.attributes.values()):
            raise SurgeryError(
                f"graph {graph.name!r}: node {node.name!r} ({node.op_type}) holds a subgraph; expected none"
            )
    if model.functions:
        raise SurgeryError(f"graph {graph.name!r} comes with model-local functions; inline them first")
    kept = Kept(
        tensors={name: _tensor(graph, value) for name, value in graph.initializers.items()},
        defaults=frozenset(name for name, value in graph.initializers.items() if value.is_graph_input()),
        opsets=dict(graph.opset_imports),
        node_metadata={_key(node): dict(node.metadata_props) for node in graph if node.metadata_props and _key(node)},
        value_metadata={str(v.name): dict(v.metadata_props) for v in _values(graph) if v.metadata_props},
        model=dict(model.metadata_props),
        graph=dict(graph.metadata_props),
    )
    bare = model.clone()
    for name in list(bare.graph.initializers):
        value = bare.graph.initializers.pop(name)
        value.const_value = None
        if not value.is_graph_input():
            value.type, value.shape = ir.TensorType(kept.tensors[name].dtype), _shape(kept.tensors[name])
            bare.graph.inputs.append(value)
    surgeon = gs.import_onnx(ir.serde.serialize_model(bare))
    surgeon.inputs = surgeon.inputs[: len(graph.inputs)]
    return surgeon, kept


def from_gs(graph: gs.Graph, kept: Kept) -> ir.Model:
    """Back to `onnx_ir`; the graph is sorted, and initialisers that no node reads any more are left out.

    Raises:
        SurgeryError: a tensor that has neither a producer nor a kept tensor; a cycle.
    """
    ports = {tensor.name for tensor in graph.inputs}
    read = dict.fromkeys(t.name for node in graph.nodes for t in node.inputs if _is_free(t) and t.name not in ports)
    read |= dict.fromkeys(t.name for t in graph.outputs if _is_free(t) and t.name not in ports)
    unknown = [name for name in read if name not in kept.tensors]
    if unknown:
        raise SurgeryError(f"graph {graph.name!r}: nothing produces {', '.join(map(repr, unknown))}")
    proto = gs.export_onnx(graph, opset_imports=[onnx.helper.make_opsetid(*item) for item in kept.opsets.items()])
    weights = [name for name in kept.tensors if name in read]  # in their old order
    infos = {info.name: info for info in proto.graph.value_info}
    proto.graph.input.extend(infos[name] if name in infos else onnx.ValueInfoProto(name=name) for name in weights)
    model = ir.serde.deserialize_model(proto)
    _attach(model, weights, kept)
    try:
        # Not gs.Graph.toposort: it goes breadth first, which keeps many tensors alive. This sort is stable.
        model.graph.sort()
    except ValueError as error:
        raise SurgeryError(f"graph {graph.name!r} cannot be sorted: {error}") from error
    return model


def applied(pass_: GraphPass, graph: gs.Graph) -> gs.Graph:
    """A new graph: `graph` after `pass_`, with all shapes that can be inferred; `graph` stays as it is.

    Constants of the surgeon travel along, and so do subgraphs: this is a round trip through ONNX.

    Raises:
        SamonnxError: raised by the pass.
        SurgeryError: the graph is no valid ONNX: a cycle, a tensor that nothing produces.
    """
    model = ir.serde.deserialize_model(gs.export_onnx(graph, do_type_check=False))
    try:
        model.graph.sort()
    except ValueError as error:
        raise SurgeryError(f"graph {graph.name!r} cannot be sorted: {error}") from error
    infer_shapes(model)
    pass_(model)
    return gs.import_onnx(ir.serde.serialize_model(model))


def _attach(model: ir.Model, weights: Iterable[str], kept: Kept) -> None:
    graph = model.graph
    inputs = {str(value.name): value for value in graph.inputs}
    for name in weights:
        graph.inputs.remove(inputs[name])
    for name in (*weights, *(name for name in inputs if name in kept.defaults)):
        value, tensor = inputs[name], kept.tensors[name]
        value.const_value = tensor
        value.type, value.shape = ir.TensorType(tensor.dtype), _shape(tensor)
        graph.register_initializer(value)
    for node in graph:
        node.metadata_props.update(kept.node_metadata.get(_key(node), _EMPTY))
    for value in _values(graph):
        value.metadata_props.update(kept.value_metadata.get(str(value.name), _EMPTY))
    graph.metadata_props.update(kept.graph)
    model.metadata_props.update(kept.model)


def _shape(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape(tensor.shape.numpy())


def _tensor(graph: ir.Graph, value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:
        raise SurgeryError(f"graph {graph.name!r}: initialiser {value.name!r} has no tensor")
    return value.const_value


def _key(node: ir.Node) -> str:
    return next((str(output.name) for output in node.outputs if output.name), "")


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    yield from (output for node in graph for output in node.outputs)


def _is_free(tensor: gs.Tensor) -> bool:
    """Whether nothing in the graph produces `tensor` (an unnamed one is an optional operand that is not given)."""
    return bool(tensor.name) and isinstance(tensor, gs.Variable) and not tensor.inputs


def splice(plan: Splice) -> ir.Model:
    """One graph from `plan.parts`, connected by `plan.wires`; the parts' models are not changed.

    Tensors and nodes of a part get its name as a prefix. An initialiser with a dot in its name is a parameter of the
    checkpoint: it keeps its name, and parts that bring an equal one share it. A tensor that leaves through an output
    port takes the port's name.

    Raises:
        SurgeryError: a wire whose end does not exist, a target with no source or two, parts of different opsets, a
            cycle between parts.
    """
    sources = {name: gs.Variable(name, np.dtype(dtype), shape) for name, dtype, shape in plan.inputs}
    ports = list(sources.values())
    weight_names = _weight_names(plan)
    merged = Kept(opsets=_common_opsets(plan))
    targets: dict[str, gs.Tensor] = {}
    nodes: list[gs.Node] = []
    for part in plan.parts:
        graph, kept = to_gs(part.model)
        sources |= {f"{part.name}.{tensor.name}": tensor for tensor in graph.outputs}
        targets |= {f"{part.name}.{tensor.name}": tensor for tensor in graph.inputs}
        renamed = _prefix(graph, part.name, weight_names[part.name])
        merged = _merge(merged, kept, renamed)
        nodes += graph.nodes
    feeding = _checked_wires(plan, sources, targets)
    wired = {id(tensor): sources[feeding[target]] for target, tensor in targets.items()}
    for node in nodes:
        for index, tensor in enumerate(node.inputs):
            node.inputs[index] = _behind(tensor, wired)
    program = gs.Graph(nodes=nodes, inputs=ports, name=plan.name)
    leaving: dict[str, str] = {}
    for name, dtype, shape in plan.outputs:
        tensor = _behind(sources[feeding[name]], wired)
        if not tensor.inputs or tensor.name in leaving.values():  # an input, a weight, or named by another port already
            bearer = gs.Variable(name)
            program.nodes.append(gs.Node("Identity", f"{name}/Identity", inputs=[tensor], outputs=[bearer]))
            tensor = bearer
        leaving[tensor.name] = name
        tensor.name, tensor.dtype, tensor.shape = name, np.dtype(dtype), shape
        program.outputs.append(tensor)
    program.ir_version = max((part.model.ir_version for part in plan.parts), default=None)
    return from_gs(program, _merge(Kept(opsets=merged.opsets), merged, leaving))


def _behind(tensor: gs.Tensor, wired: Mapping[int, gs.Tensor]) -> gs.Tensor:
    """What `tensor` is once inputs of parts have given way to their sources."""
    seen: set[int] = set()
    while id(tensor) in wired:
        if id(tensor) in seen:
            raise SurgeryError(f"{tensor.name!r} is wired to itself, through parts that only pass it on")
        seen.add(id(tensor))
        tensor = wired[id(tensor)]
    return tensor


def _prefix(graph: gs.Graph, prefix: str, weight_names: Mapping[str, str]) -> dict[str, str]:
    """Renames nodes and tensors; returns old → new."""
    renamed: dict[str, str] = {}
    for tensor in {id(t): t for t in (*graph.inputs, *graph.tensors().values(), *graph.outputs)}.values():
        if tensor.name:
            new = weight_names.get(tensor.name, f"{prefix}/{tensor.name}")
            renamed[tensor.name], tensor.name = new, new
    for node in graph.nodes:
        node.name = (
            f"{prefix}/{node.name}" if node.name else next(tensor.name for tensor in node.outputs if tensor.name)
        )
    return renamed


def _merge(first: Kept, second: Kept, renamed: Mapping[str, str]) -> Kept:
    """Both, with the names of `second` changed."""

    def new(name: str) -> str:
        return renamed.get(name, name)

    return Kept(
        tensors={**first.tensors, **{new(name): _named(new(name), tensor) for name, tensor in second.tensors.items()}},
        opsets=first.opsets,
        node_metadata={**first.node_metadata, **{new(name): data for name, data in second.node_metadata.items()}},
        value_metadata={**first.value_metadata, **{new(name): data for name, data in second.value_metadata.items()}},
        model={**first.model, **second.model},
        graph={**first.graph, **second.graph},
    )


def _named(name: str, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.name == name:
        return tensor
    renamed = copy.copy(tensor)  # shares the data; the part's own model keeps its name
    renamed.name = name
    return renamed


def _common_opsets(plan: Splice) -> dict[str, int]:
    opsets: dict[str, tuple[int, str]] = {}
    for part in plan.parts:
        for domain, version in part.model.graph.opset_imports.items():
            other, owner = opsets.setdefault(domain, (version, part.name))
            if other != version:
                raise SurgeryError(
                    f"splice {plan.name!r}: part {part.name!r} uses opset {version} of domain {domain or 'ai.onnx'!r}, "
                    f"part {owner!r} uses {other}; trace both at the same opset"
                )
    return {domain: version for domain, (version, _) in opsets.items()}


def _weight_names(plan: Splice) -> dict[str, dict[str, str]]:
    """part → initialiser → its name in the spliced graph; dotted names stay where every bringer brings the same."""
    first: dict[str, ir.TensorProtocol] = {}
    taken = {name for name, _, _ in (*plan.inputs, *plan.outputs)}
    names: dict[str, dict[str, str]] = {}
    for part in plan.parts:
        names[part.name] = {}
        for name, value in part.model.graph.initializers.items():
            tensor = _tensor(part.model.graph, value)
            shared = "." in name and name not in taken and _same(first.setdefault(name, tensor), tensor)
            names[part.name][name] = name if shared else f"{part.name}/{name}"
    return names


def _same(left: ir.TensorProtocol, right: ir.TensorProtocol) -> bool:
    if left is right:
        return True
    alike = left.dtype == right.dtype and tuple(left.shape) == tuple(right.shape)
    return alike and left.tobytes() == right.tobytes()


def _checked_wires(plan: Splice, sources: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """target → source, each target once; all misfits in one error."""
    known_sources, known_targets = set(sources), {*targets, *(name for name, _, _ in plan.outputs)}
    feeding: dict[str, str] = {}
    problems = []
    for source, target in plan.wires:
        if source not in known_sources:
            problems.append(f"wire {source!r} to {target!r}: no input port or part output is called {source!r}")
        if target not in known_targets:
            problems.append(f"wire {source!r} to {target!r}: no output port or part input is called {target!r}")
        if target in feeding:
            problems.append(f"{target!r} has two sources: {feeding[target]!r} and {source!r}")
        feeding[target] = source
    problems += [f"{target!r} has no source" for target in sorted(known_targets - set(feeding))]
    if problems:
        raise SurgeryError(f"splice {plan.name!r}:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return feeding
