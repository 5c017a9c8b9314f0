"""Graph passes: ONNX in, ONNX out, one pass a file. Imports neither torch nor `samonnx.models`.

    from samonnx.passes import FuseAttention, GraphPass, assert_exact, run_passes, unroll

The classes of the passes, `assert_exact` and `unroll` are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from samonnx.passes.interface import Exactness, GraphPass, PassDeclinedError, PassResult
from samonnx.passes.pipeline import PassFailedError, PassObserver, PassReport, PipelineResult, run_passes
from samonnx.passes.registry import (
    PASS_MODULES,
    PASSES,
    PassSummary,
    UnknownPassError,
    pass_by_name,
    pass_problems,
    pass_summaries,
)
from samonnx.passes.statistics import GraphStatistics, graph_statistics

if TYPE_CHECKING:
    from samonnx.passes.absorb_key_projections import AbsorbKeyProjections
    from samonnx.passes.absorb_query_projections import AbsorbQueryProjections
    from samonnx.passes.commute_resize import CommuteResize
    from samonnx.passes.einsum_to_matmul import EinsumToMatmul
    from samonnx.passes.eliminate_dead import EliminateDead
    from samonnx.passes.exactness import assert_exact
    from samonnx.passes.fold_affine import FoldAffine
    from samonnx.passes.fold_constants import FoldConstants
    from samonnx.passes.fuse_attention import FuseAttention
    from samonnx.passes.fuse_linear_chain import FuseLinearChain
    from samonnx.passes.fuse_nearest_resize import FuseNearestResize
    from samonnx.passes.fuse_rotary import FuseRotary
    from samonnx.passes.growing_cache import unroll
    from samonnx.passes.join_keys import JoinKeys
    from samonnx.passes.lower.onnx import LowerOnnx
    from samonnx.passes.lower.openvino import LowerOpenvino
    from samonnx.passes.lower.opset import LowerOpset
    from samonnx.passes.lower.ort_cpu import LowerOrtCpu
    from samonnx.passes.lower.rotary import LowerRotary
    from samonnx.passes.lower.rotary_ort_cpu import LowerRotaryOrtCpu
    from samonnx.passes.mask_as_channel import MaskAsChannel
    from samonnx.passes.merge_duplicates import MergeDuplicates
    from samonnx.passes.merge_moves import MergeMoves
    from samonnx.passes.merge_parallel_convolutions import MergeParallelConvolutions
    from samonnx.passes.observers import VerifyEach
    from samonnx.passes.pad_before_broadcast import PadBeforeBroadcast
    from samonnx.passes.pin_inputs import PinInputs
    from samonnx.passes.reassociate_products import ReassociateProducts
    from samonnx.passes.sink_value_projection import SinkValueProjection
    from samonnx.passes.transposed_conv_to_matmul import TransposedConvToMatmul
    from samonnx.passes.unroll_memory import UnrollMemory
    from samonnx.passes.upscale_by_phase import UpscaleByPhase

__all__ = [
    "AbsorbKeyProjections",
    "AbsorbQueryProjections",
    "CommuteResize",
    "EinsumToMatmul",
    "EliminateDead",
    "Exactness",
    "FoldAffine",
    "FoldConstants",
    "FuseAttention",
    "FuseLinearChain",
    "FuseNearestResize",
    "FuseRotary",
    "GraphPass",
    "GraphStatistics",
    "JoinKeys",
    "LowerOnnx",
    "LowerOpenvino",
    "LowerOpset",
    "LowerOrtCpu",
    "LowerRotary",
    "LowerRotaryOrtCpu",
    "MaskAsChannel",
    "MergeDuplicates",
    "MergeMoves",
    "MergeParallelConvolutions",
    "PASSES",
    "PadBeforeBroadcast",
    "PassDeclinedError",
    "PassFailedError",
    "PassObserver",
    "PassReport",
    "PassResult",
    "PassSummary",
    "PinInputs",
    "PipelineResult",
    "ReassociateProducts",
    "SinkValueProjection",
    "TransposedConvToMatmul",
    "UnknownPassError",
    "UnrollMemory",
    "UpscaleByPhase",
    "VerifyEach",
    "assert_exact",
    "graph_statistics",
    "pass_by_name",
    "pass_problems",
    "pass_summaries",
    "run_passes",
    "unroll",
]

_HOME = {
    **PASS_MODULES,
    "VerifyEach": "samonnx.passes.observers",
    "assert_exact": "samonnx.passes.exactness",
    "unroll": "samonnx.passes.growing_cache",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        value: object = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'samonnx.passes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
