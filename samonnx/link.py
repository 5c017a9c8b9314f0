"""Link: traced components and the wires between them → one program graph.

The splicing is done with onnx-graphsurgeon: every component's tensors and nodes are prefixed with its name, each wire
makes the consumer read the producer's tensor, and the program's ports become the graph's inputs and outputs. Weights
do not travel through it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.graphsurgeon import Part, Splice, splice
from samonnx.programs.program import Port, Program
from samonnx.trace import TracedComponent

__all__ = ["LinkError", "link"]


class LinkError(SamonnxError):
    """Ports and wires do not fit together; the message lists every misfit."""


def _signature(value: ir.Value) -> str:
    dims = [str(dim) for dim in value.shape] if value.shape is not None else ["?"]
    return f"{value.dtype.name.lower() if value.dtype else '?'} [{', '.join(dims)}]"


def _port_signature(port: Port) -> str:
    dtype = ir.DataType.from_numpy(np.dtype(port.dtype))
    return f"{dtype.name.lower()} [{', '.join(str(dim) for dim in port.shape)}]"


def link(program: Program, traced: Mapping[str, TracedComponent]) -> ir.Model:
    """One graph named after the program, with exactly its input and output ports, in their order.

    Raises LinkError for a wire whose source or target does not exist, an input that nothing feeds, two wires into one
    input, and a dtype or shape that does not meet its partner's; all of them at once.
    """
    sources = {port.name: _port_signature(port) for port in program.inputs}
    targets = {port.name: _port_signature(port) for port in program.outputs}
    for name, component in traced.items():
        sources |= {f"{name}.{value.name}": _signature(value) for value in component.model.graph.outputs}
        targets |= {f"{name}.{value.name}": _signature(value) for value in component.model.graph.inputs}
    problems = []
    fed: dict[str, str] = {}
    for wire in program.wires:
        if wire.source not in sources:
            near = difflib.get_close_matches(wire.source, sources, n=1)
            problems.append(
                f"nothing is called {wire.source!r}, which should feed {wire.target!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        if wire.target not in targets:
            near = difflib.get_close_matches(wire.target, targets, n=1)
            problems.append(
                f"nothing is called {wire.target!r}, which {wire.source!r} should feed"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        if wire.target in fed:
            problems.append(f"{wire.target!r} is fed twice: by {fed[wire.target]!r} and by {wire.source!r}")
        fed[wire.target] = wire.source
        if wire.source in sources and wire.target in targets and sources[wire.source] != targets[wire.target]:
            problems.append(
                f"{wire.source} is {sources[wire.source]}, but {wire.target} expects {targets[wire.target]}"
            )
    problems += [f"nothing feeds {target!r}" for target in targets if target not in fed]
    if problems:
        raise LinkError(
            f"program {program.name!r} cannot be linked:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )
    return splice(
        Splice(
            name=program.name,
            parts=tuple(Part(name, component.model) for name, component in traced.items()),
            inputs=tuple((port.name, port.dtype, port.shape) for port in program.inputs),
            outputs=tuple((port.name, port.dtype, port.shape) for port in program.outputs),
            wires=tuple((wire.source, wire.target) for wire in program.wires),
        )
    )
