"""The table of passes by name; a pass's module is imported only when the pass is asked for."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from samonnx.errors import SamonnxError
from samonnx.passes.interface import Exactness, GraphPass

__all__ = ["PASSES", "PassSummary", "UnknownPassError", "pass_by_name", "pass_summaries"]


class UnknownPassError(SamonnxError):
    """A name that is neither in the registry nor a `package.module:ClassName` that leads to a pass."""


@dataclass(frozen=True)
class PassSummary:
    """One line of `--list-passes`."""

    name: str
    exactness: Exactness
    tolerance: float
    summary: str


def _load(target: str) -> type[GraphPass]:
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UnknownPassError(f"pass {target!r}: cannot import module {module_name!r}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, GraphPass)):
        here = [
            name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, GraphPass)
        ]
        known = ", ".join(sorted(name for name in here if name != "GraphPass")) or "none"
        what = "no such name" if found is None else f"found {found!r}, which is not a GraphPass"
        raise UnknownPassError(f"pass {target!r}: {what}; passes in {module_name!r}: {known}")
    return found


def _lazy(target: str) -> Callable[[], type[GraphPass]]:
    return lambda: _load(target)


PASSES: Mapping[str, Callable[[], type[GraphPass]]] = MappingProxyType(
    {
        "fold_constants": _lazy("samonnx.passes.fold_constants:FoldConstants"),
        "eliminate_dead": _lazy("samonnx.passes.eliminate_dead:EliminateDead"),
        "merge_duplicates": _lazy("samonnx.passes.merge_duplicates:MergeDuplicates"),
        "pin_inputs": _lazy("samonnx.passes.pin_inputs:PinInputs"),
        "merge_moves": _lazy("samonnx.passes.merge_moves:MergeMoves"),
        "pad_before_broadcast": _lazy("samonnx.passes.pad_before_broadcast:PadBeforeBroadcast"),
        "fold_affine": _lazy("samonnx.passes.fold_affine:FoldAffine"),
        "merge_parallel_convolutions": _lazy("samonnx.passes.merge_parallel_convolutions:MergeParallelConvolutions"),
        "fuse_linear_chain": _lazy("samonnx.passes.fuse_linear_chain:FuseLinearChain"),
        "commute_resize": _lazy("samonnx.passes.commute_resize:CommuteResize"),
        "reassociate_products": _lazy("samonnx.passes.reassociate_products:ReassociateProducts"),
        "fuse_nearest_resize": _lazy("samonnx.passes.fuse_nearest_resize:FuseNearestResize"),
        "transposed_conv_to_matmul": _lazy("samonnx.passes.transposed_conv_to_matmul:TransposedConvToMatmul"),
        "fuse_attention": _lazy("samonnx.passes.fuse_attention:FuseAttention"),
        "fuse_rotary": _lazy("samonnx.passes.fuse_rotary:FuseRotary"),
        "unroll_memory": _lazy("samonnx.passes.unroll_memory:UnrollMemory"),
        "sink_value_projection": _lazy("samonnx.passes.sink_value_projection:SinkValueProjection"),
        "mask_as_channel": _lazy("samonnx.passes.mask_as_channel:MaskAsChannel"),
        "join_keys": _lazy("samonnx.passes.join_keys:JoinKeys"),
        "lower_onnx": _lazy("samonnx.passes.lower.onnx:LowerOnnx"),
        "lower_ort_cpu": _lazy("samonnx.passes.lower.ort_cpu:LowerOrtCpu"),
        "lower_openvino": _lazy("samonnx.passes.lower.openvino:LowerOpenvino"),
        "lower_rotary": _lazy("samonnx.passes.lower.rotary:LowerRotary"),
        "lower_rotary_ort_cpu": _lazy("samonnx.passes.lower.rotary_ort_cpu:LowerRotaryOrtCpu"),
        "lower_opset": _lazy("samonnx.passes.lower.opset:LowerOpset"),
    }
)
"""Name → function that imports and returns the pass class. Order is that of `--list-passes`."""


def pass_by_name(name: str) -> type[GraphPass]:
    """The class of a registered pass, or of any pass given as `package.module:ClassName`.

    Raises:
        UnknownPassError: for a name that leads to no pass; names the close matches or the known passes.
    """
    if ":" in name:
        return _load(name)
    if name not in PASSES:
        close = difflib.get_close_matches(name, PASSES)
        hint = f"did you mean {', '.join(close)}?" if close else f"known passes: {', '.join(PASSES)}"
        raise UnknownPassError(f"unknown pass {name!r}; {hint} (or give package.module:ClassName)")
    return PASSES[name]()


def pass_summaries() -> tuple[PassSummary, ...]:
    """One summary a registered pass; imports them all."""
    classes = [load() for load in PASSES.values()]
    return tuple(
        PassSummary(cls.name, cls.exactness, cls.tolerance, (inspect.getdoc(cls) or "").partition("\n")[0])
        for cls in classes
    )
