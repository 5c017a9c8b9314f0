"""The compiler's road from traced components to a program's graph, with any one pass left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from samonnx.link import link
from samonnx.pass_pipelines import component_passes, general_passes, lowering_passes
from samonnx.passes.interface import GraphPass
from samonnx.passes.pin_inputs import PinInputs
from samonnx.passes.pipeline import run_passes
from samonnx.passes.unroll_memory import UnrollMemory
from samonnx.programs.program import Component, Program
from samonnx.trace import TracedComponent

__all__ = ["graph_without", "optional_passes"]


def optional_passes(target: str) -> tuple[str, ...]:
    """Names of the passes that only make a graph better, in the order of their first run. Those that bring a graph
    into the target's dialect (`lower_…`) and the memory to its size must run."""
    names = dict.fromkeys(pass_.name for pass_ in (*component_passes(), *general_passes(), *lowering_passes(target)))
    return tuple(name for name in names if not name.startswith("lower_"))


def graph_without(program: Program, traced: Mapping[str, TracedComponent], target: str, left_out: str = "") -> ir.Model:
    """The program's graph for `target`; the pass of the name `left_out` does not run anywhere. `traced`, by component,
    is not changed. Raises what passes and linking raise."""

    def kept(passes: Iterable[GraphPass]) -> tuple[GraphPass, ...]:
        return tuple(pass_ for pass_ in passes if pass_.name != left_out)

    parts = {
        part.name: TracedComponent(part.name, _bound(part, traced[part.name].model, kept(component_passes())))
        for part in program.components
    }
    pins = (PinInputs(values=dict(program.pinned)),) if program.pinned else ()
    linked = link(program, parts)
    return run_passes(linked, (*pins, *kept(general_passes()), *kept(lowering_passes(target)))).model


def _bound(component: Component, traced: ir.Model, passes: tuple[GraphPass, ...]) -> ir.Model:
    binding: tuple[GraphPass, ...] = ()
    if component.bindings:
        binding = (UnrollMemory(bindings=dict(component.bindings), validity=dict(component.validity)),)
    return run_passes(traced.clone(), (*binding, *passes)).model
