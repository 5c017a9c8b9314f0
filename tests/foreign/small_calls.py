"""Small foreign modules as calls: from a module and its ports to a verified graph, without files."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from samonnx.component_tracer import trace_components
from samonnx.errors import SamonnxError
from samonnx.foreign.replace import traced_copy
from samonnx.foreign.verify_call import CallVerifier
from samonnx.link import link
from samonnx.passes.lower import runnable
from samonnx.programs.call import call_programs
from samonnx.recipe_calls import BankSpec, CallSpec, InputSpec
from samonnx.verify import Comparison, require

__all__ = ["call_of", "stopped", "verified"]

X = InputSpec(shape=(2, 3))


def call_of(
    inputs: Mapping[str, InputSpec] | None = None,
    outputs: Mapping[str, str] | None = None,
    bank: Mapping[str, BankSpec] | None = None,
    **others: object,
) -> CallSpec:
    """A call with one input `x` f32 [2, 3] and one output `y`, unless something else is said."""
    content: dict[str, object] = {
        "inputs": {"x": X} if inputs is None else inputs,
        "outputs": outputs or {"y": "."},
        "bank": bank or {},
        **others,
    }
    return CallSpec.model_validate(content)


def verified(
    model: nn.Module, call: CallSpec, replace: Mapping[str, str] | None = None, frames: int = 3
) -> tuple[Comparison, ...]:
    """The comparisons of the call's graph with the module, all of them within 1e-5."""
    model.eval().requires_grad_(False)
    traced, _ = traced_copy(model, replace or {})
    (program,) = call_programs(model, traced, {"f": call})
    parts = trace_components(program.components, model, tolerance=None)
    comparisons = CallVerifier({"f": call}, 1e-5, frames).verify(runnable(link(program, parts)), program)
    require(comparisons)
    return comparisons


def stopped(model: nn.Module, call: CallSpec) -> str:
    """What is said of a call that cannot be made; paths without folders."""
    model.eval()
    try:
        call_programs(model, model, {"f": call})
    except SamonnxError as error:
        return str(error).replace(__file__.rpartition("/")[0] + "/", "")
    raise AssertionError("nothing was said")
