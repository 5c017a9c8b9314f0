"""Link: traced components and the wires between them → one program graph.

The splicing is done with onnx-graphsurgeon: every component's tensors and nodes are prefixed with its name, each wire
makes the consumer read the producer's tensor, and the program's ports become the graph's inputs and outputs. Weights
do not travel through it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.callable_module import make_callable
from samonnx.errors import SamonnxError
from samonnx.passes.graphsurgeon import Part, Splice, splice
from samonnx.port_shapes import Dim, PortType, Symbol, SymbolTable, input_symbols_of, port_type, renamed_symbols
from samonnx.programs.program import Program, TypedPort, Wire
from samonnx.trace import TracedComponent

__all__ = ["LinkError", "Wiring", "link"]


class LinkError(SamonnxError):
    """Ports and wires do not fit together; the message lists every misfit."""


@dataclass(frozen=True)
class Wiring:
    """What `link` needs to know of a graph that is not a `Program`: its name, its ports, and which port feeds which.

    A port's dimension may be a name ("frames"); it then stands for one size in all ports of the graph.
    """

    name: str
    inputs: tuple[TypedPort, ...]
    outputs: tuple[TypedPort, ...]
    wires: tuple[Wire, ...]

    @classmethod
    def between(cls, name: str, wires: Mapping[str, str], parts: Mapping[str, TracedComponent | ir.Model]) -> Wiring:
        """From wires alone, target → source. An end that does not begin with a part's name and a dot is a port, in the
        order of the wires, with the type of the first part's end that it is wired to.

        Raises:
            LinkError: a part's end that does not exist, a port that is wired to no part.
        """
        graphs = {part: _model(traced).graph for part, traced in parts.items()}
        sources = {f"{part}.{value.name}": value for part, graph in graphs.items() for value in graph.outputs}
        targets = {f"{part}.{value.name}": value for part, graph in graphs.items() for value in graph.inputs}
        inputs: dict[str, TypedPort | None] = {}
        outputs: dict[str, TypedPort | None] = {}
        problems = []
        for target, source in wires.items():
            for end, known, other, others, ports in (
                (source, sources, target, targets, inputs),
                (target, targets, source, sources, outputs),
            ):
                if end.partition(".")[0] not in parts:
                    ports[end] = ports.get(end) or (_typed(end, others[other]) if other in others else None)
                elif end not in known:
                    problems.append(f"nothing is called {end!r}, which is wired to {other!r}{_near(end, known)}")
        for end in [end for ports in (inputs, outputs) for end, port in ports.items() if port is None]:
            problems.append(f"port {end!r} is wired to no part, so nothing says its type")
        if problems:
            raise LinkError(_listed(name, problems))
        return cls(
            name,
            tuple(port for port in inputs.values() if port is not None),
            tuple(port for port in outputs.values() if port is not None),
            tuple(Wire(source, target) for target, source in wires.items()),
        )


def _model(part: TracedComponent | ir.Model) -> ir.Model:
    return part.model if isinstance(part, TracedComponent) else part


def _typed(name: str, value: ir.Value) -> TypedPort:
    dims = port_type(value, "", ()).dims or ()
    dtype = "?" if value.dtype is None else value.dtype.numpy().name
    return TypedPort(name, dtype, tuple(dim.name if isinstance(dim, Symbol) else dim for dim in dims))


def _listed(name: str, problems: Iterable[str]) -> str:
    return f"program {name!r} cannot be linked:\n" + "\n".join(f"  - {problem}" for problem in problems)


def link(program: Program | Wiring, traced: Mapping[str, TracedComponent | ir.Model]) -> ir.Model:
    """One graph named after the program, with exactly its input and output ports, in their order.

    Args:
        program: a wire goes from an input port or "part.output" to an output port or "part.input"; each target has one
            source, a source may feed several targets.
        traced: part → its graph, of one opset and without subgraphs; left as it is. Tensors and nodes of a part get
            its name as a prefix; an initialiser with a dot in its name is a parameter, shared by the parts that bring
            an equal one. Symbolic dimensions of a part take the sizes of what feeds it.

    Raises:
        LinkError: a wire whose source or target does not exist, an input that nothing feeds, two wires into one input,
            a name that two ports share, and a dtype or shape that does not meet its partner's; all of them at once.
        SurgeryError: parts of different opsets, with subgraphs, or in a circle.
    """
    models = {name: _model(part) for name, part in traced.items()}
    free = {name: input_symbols_of(model.graph.inputs) for name, model in models.items()}
    given = {dim for port in program.inputs for dim in port.shape}
    problems: list[str] = []
    sources = {port.name: _declared(port, given, problems) for port in program.inputs}
    targets = {port.name: _declared(port, given, problems) for port in program.outputs}
    for name, model in models.items():
        sources |= {f"{name}.{value.name}": port_type(value, name, free[name]) for value in model.graph.outputs}
        targets |= {f"{name}.{value.name}": port_type(value, name, free[name]) for value in model.graph.inputs}
    ports = Counter(port.name for port in (*program.inputs, *program.outputs))
    problems += [f"{count} ports are called {name!r}" for name, count in ports.items() if count > 1]
    table = SymbolTable()
    problems += _misfits(program.wires, sources, targets, table)
    if problems:
        raise LinkError(_listed(program.name, problems))
    return splice(
        Splice(
            name=program.name,
            parts=tuple(Part(name, renamed_symbols(model, name, free[name], table)) for name, model in models.items()),
            inputs=tuple((port.name, port.dtype, port.shape) for port in program.inputs),
            outputs=tuple((port.name, port.dtype, port.shape) for port in program.outputs),
            wires=tuple((wire.source, wire.target) for wire in program.wires),
        )
    )


def _declared(port: TypedPort, given: set[int | str], problems: list[str]) -> PortType:
    """Of a port of the program; a symbol that no input port has takes any size."""
    try:
        dtype = ir.DataType.from_numpy(np.dtype(port.dtype)).name.lower()
    except TypeError:
        problems.append(f"port {port.name!r} has the dtype {port.dtype!r}; expected a name of NumPy's, as 'float32'")
        dtype = port.dtype
    dims: list[Dim] = [dim if isinstance(dim, int) else Symbol("", dim, dim not in given) for dim in port.shape]
    return PortType(dtype, tuple(dims))


def _misfits(
    wires: tuple[Wire, ...], sources: Mapping[str, PortType], targets: Mapping[str, PortType], table: SymbolTable
) -> list[str]:
    problems = []
    fed: dict[str, str] = {}
    for wire in wires:
        if wire.source not in sources:
            problems.append(
                f"nothing is called {wire.source!r}, which should feed {wire.target!r}{_near(wire.source, sources)}"
            )
        if wire.target not in targets:
            problems.append(
                f"nothing is called {wire.target!r}, which {wire.source!r} should feed{_near(wire.target, targets)}"
            )
        if wire.target in fed:
            problems.append(f"{wire.target!r} is fed twice: by {fed[wire.target]!r} and by {wire.source!r}")
        fed[wire.target] = wire.source
        if wire.source in sources and wire.target in targets:
            source, target = sources[wire.source], targets[wire.target]
            known = table.solved(source), table.solved(target)  # before this wire has its say
            if not table.meet(source, target):
                problems.append(f"{wire.source} is {source}{known[0]}, but {wire.target} expects {target}{known[1]}")
    return problems + [f"nothing feeds {target!r}" for target in targets if target not in fed]


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


make_callable(__name__, "link")
