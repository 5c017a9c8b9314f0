"""Pass pipelines: the passes that a linked program goes through, in order, on one screen.

components ─ component passes ─ link
linked ─ general passes ─┬─ lower_<target> ──────────────► track
                         └─ pin_inputs, general passes ─ lower_<target> ─► track@first
components, memory bound to k slots ─ component passes ─ link ─ general passes ─ lower_<target> ─► track@k
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import onnx_ir as ir

from samonnx.passes.absorb_key_projections import AbsorbKeyProjections
from samonnx.passes.absorb_query_projections import AbsorbQueryProjections
from samonnx.passes.commute_resize import CommuteResize
from samonnx.passes.eliminate_dead import EliminateDead
from samonnx.passes.fold_affine import FoldAffine
from samonnx.passes.fold_constants import FoldConstants
from samonnx.passes.fuse_attention import FuseAttention
from samonnx.passes.fuse_linear_chain import FuseLinearChain
from samonnx.passes.fuse_nearest_resize import FuseNearestResize
from samonnx.passes.fuse_rotary import FuseRotary
from samonnx.passes.interface import GraphPass
from samonnx.passes.lower import ONNX_PASSES, OPENVINO_PASSES, ORT_CPU_PASSES
from samonnx.passes.merge_duplicates import MergeDuplicates
from samonnx.passes.merge_moves import MergeMoves
from samonnx.passes.merge_parallel_convolutions import MergeParallelConvolutions
from samonnx.passes.pad_before_broadcast import PadBeforeBroadcast
from samonnx.passes.pin_inputs import PinInputs
from samonnx.passes.pipeline import PassObserver, PipelineResult, run_passes
from samonnx.passes.reassociate_products import ReassociateProducts
from samonnx.passes.sink_value_projection import SinkValueProjection
from samonnx.passes.upscale_by_phase import UpscaleByPhase

__all__ = [
    "LOWERINGS",
    "apply_general_passes",
    "component_passes",
    "general_passes",
    "lower",
    "lowering_passes",
    "specialise",
    "tidy_passes",
]

TABLE_LIMIT = 8 << 20
"""Position tables of full-size models are a few MiB each; computing them again in every frame costs more than reading
them."""


LOWERINGS: Mapping[str, tuple[GraphPass, ...]] = MappingProxyType(
    {"onnx": ONNX_PASSES, "ort-cpu": ORT_CPU_PASSES, "openvino": OPENVINO_PASSES}
)
"""Target → the passes that bring a graph into its dialect."""


def component_passes() -> tuple[GraphPass, ...]:
    """For every component before it is linked: what is constant inside it is folded once, for all programs."""
    return (
        FoldConstants(size_limit=TABLE_LIMIT),
        FoldAffine(),
        MergeParallelConvolutions(),
        FoldAffine(),  # the norm behind the branches that have become one
    )


def general_passes() -> tuple[GraphPass, ...]:
    """For every program and target: fold, recognise, save work by algebra, merge what is computed twice, drop what
    nothing reads."""
    return (
        FoldConstants(size_limit=TABLE_LIMIT),
        FuseRotary(),
        FuseAttention(),
        SinkValueProjection(),  # sees V as it was traced; the chain then takes the projection along
        AbsorbKeyProjections(),
        AbsorbQueryProjections(),
        FuseNearestResize(),
        UpscaleByPhase(),
        FuseLinearChain(overlapping=False),
        CommuteResize(),  # as long as transposed convolutions tile, they fit on the small side
        ReassociateProducts(),
        FuseLinearChain(),
        PadBeforeBroadcast(),
        MergeDuplicates(),
        EliminateDead(),
    )


def lowering_passes(target: str) -> tuple[GraphPass, ...]:
    """Into the dialect of `target`, and what is then left over is tidied."""
    return (*LOWERINGS[target], *tidy_passes())


def tidy_passes() -> tuple[GraphPass, ...]:
    """What a lowering leaves over: moves to merge, constants to fold, nodes that nothing reads."""
    return (MergeMoves(), FoldConstants(size_limit=TABLE_LIMIT), FoldAffine(), MergeDuplicates(), EliminateDead())


def apply_general_passes(
    model: ir.Model, observers: Sequence[PassObserver] = (), further: Sequence[GraphPass] = ()
) -> PipelineResult:
    """Run the general passes in place, then `further` ones."""
    return run_passes(model, (*general_passes(), *further), observers=observers)


def specialise(
    model: ir.Model,
    pinned: Mapping[str, float | int | bool],
    observers: Sequence[PassObserver] = (),
    further: Sequence[GraphPass] = (),
    unchanged: Collection[str] = (),
) -> PipelineResult:
    """A copy of `model` with inputs pinned to fill values and folded, after the general passes and `further` ones, and
    without the outputs `unchanged`; inputs that nothing reads any more are dropped."""
    passes = (PinInputs(values=dict(pinned)), *general_passes(), *further)
    copy = model.clone()
    for value in [value for value in copy.graph.outputs if value.name in unchanged]:
        copy.graph.outputs.remove(value)
    result = run_passes(copy, passes, observers=observers)
    inputs = result.model.graph.inputs
    for value in [value for value in inputs if not value.uses() and not value.is_graph_output()]:
        inputs.remove(value)
    return result


def lower(model: ir.Model, target: str, observers: Sequence[PassObserver] = ()) -> PipelineResult:
    """A copy of `model` in the dialect of `target`."""
    return run_passes(model.clone(), lowering_passes(target), observers=observers)
