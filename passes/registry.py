"""The table of passes by name; a pass's module is imported only when the pass is asked for."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from samonnx.errors import SamonnxError
from samonnx.passes.entry_points import ForeignPass, clashes, foreign_passes
from samonnx.passes.interface import Exactness, GraphPass

__all__ = [
    "PASSES",
    "PASS_MODULES",
    "PassSummary",
    "UnknownPassError",
    "pass_by_name",
    "pass_problems",
    "pass_summaries",
]


class UnknownPassError(SamonnxError):
    """A name that leads to no pass: not in the registry, no sound entry point, no `package.module:ClassName` of one."""


@dataclass(frozen=True)
class PassSummary:
    """One line of `--list-passes`; `origin` is "samonnx" or a distribution, "acme 1.0"."""

    name: str
    exactness: Exactness
    tolerance: float
    summary: str
    origin: str = "samonnx"


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


_TARGETS = {
    "fold_constants": "samonnx.passes.fold_constants:FoldConstants",
    "eliminate_dead": "samonnx.passes.eliminate_dead:EliminateDead",
    "merge_duplicates": "samonnx.passes.merge_duplicates:MergeDuplicates",
    "pin_inputs": "samonnx.passes.pin_inputs:PinInputs",
    "merge_moves": "samonnx.passes.merge_moves:MergeMoves",
    "pad_before_broadcast": "samonnx.passes.pad_before_broadcast:PadBeforeBroadcast",
    "fold_affine": "samonnx.passes.fold_affine:FoldAffine",
    "merge_parallel_convolutions": "samonnx.passes.merge_parallel_convolutions:MergeParallelConvolutions",
    "fuse_linear_chain": "samonnx.passes.fuse_linear_chain:FuseLinearChain",
    "commute_resize": "samonnx.passes.commute_resize:CommuteResize",
    "reassociate_products": "samonnx.passes.reassociate_products:ReassociateProducts",
    "fuse_nearest_resize": "samonnx.passes.fuse_nearest_resize:FuseNearestResize",
    "transposed_conv_to_matmul": "samonnx.passes.transposed_conv_to_matmul:TransposedConvToMatmul",
    "einsum_to_matmul": "samonnx.passes.einsum_to_matmul:EinsumToMatmul",
    "fuse_attention": "samonnx.passes.fuse_attention:FuseAttention",
    "fuse_rotary": "samonnx.passes.fuse_rotary:FuseRotary",
    "unroll_memory": "samonnx.passes.unroll_memory:UnrollMemory",
    "sink_value_projection": "samonnx.passes.sink_value_projection:SinkValueProjection",
    "absorb_key_projections": "samonnx.passes.absorb_key_projections:AbsorbKeyProjections",
    "absorb_query_projections": "samonnx.passes.absorb_query_projections:AbsorbQueryProjections",
    "upscale_by_phase": "samonnx.passes.upscale_by_phase:UpscaleByPhase",
    "mask_as_channel": "samonnx.passes.mask_as_channel:MaskAsChannel",
    "join_keys": "samonnx.passes.join_keys:JoinKeys",
    "lower_onnx": "samonnx.passes.lower.onnx:LowerOnnx",
    "lower_ort_cpu": "samonnx.passes.lower.ort_cpu:LowerOrtCpu",
    "lower_openvino": "samonnx.passes.lower.openvino:LowerOpenvino",
    "lower_rotary": "samonnx.passes.lower.rotary:LowerRotary",
    "lower_rotary_ort_cpu": "samonnx.passes.lower.rotary_ort_cpu:LowerRotaryOrtCpu",
    "lower_opset": "samonnx.passes.lower.opset:LowerOpset",
}

PASSES: Mapping[str, Callable[[], type[GraphPass]]] = MappingProxyType(
    {name: _lazy(target) for name, target in _TARGETS.items()}
)
"""Name → function that imports and returns the pass class. Order is that of `--list-passes`."""

PASS_MODULES: Mapping[str, str] = MappingProxyType(
    {class_name: module for module, _, class_name in (target.partition(":") for target in _TARGETS.values())}
)
"""Name of a pass class → the module that has it."""


def pass_by_name(name: str) -> type[GraphPass]:
    """The class of a pass: one of ours, one of another distribution's entry points (group `samonnx.passes`), or any
    given as `package.module:ClassName`. Names of ours win.

    Raises:
        UnknownPassError: for a name that leads to no pass; names the close matches or the known passes. For an entry
            point that cannot be loaded, or that two distributions give, it names the distribution.
    """
    if ":" in name:
        return _load(name)
    if name in PASSES:
        return PASSES[name]()
    foreign = foreign_passes()
    found = [one for one in foreign if one.name == name]
    if len(found) == 1:
        return _load_foreign(found[0])
    if found:
        raise UnknownPassError("; ".join(clashes(found, ())))
    known = dict.fromkeys((*PASSES, *(one.name for one in foreign)))
    close = difflib.get_close_matches(name, known)
    hint = f"did you mean {', '.join(close)}?" if close else f"known passes: {', '.join(known)}"
    raise UnknownPassError(f"unknown pass {name!r}; {hint} (or give package.module:ClassName)")


def _load_foreign(one: ForeignPass) -> type[GraphPass]:
    """Raises `UnknownPassError` that names the distribution, whatever its module raises."""
    broken = f"the entry point {one.name!r} of {one.distribution} is broken"
    try:
        found = _load(one.target)
    except UnknownPassError as error:
        raise UnknownPassError(f"{broken}: {error}") from error
    except Exception as error:
        raise UnknownPassError(f"{broken}: importing {one.target!r} raised {type(error).__name__}: {error}") from error
    missing = [field for field in ("name", "exactness", "tolerance") if not hasattr(found, field)]
    if missing:
        raise UnknownPassError(f"{broken}: {one.target} does not set {', '.join(missing)}")
    if found.name != one.name:
        raise UnknownPassError(f"{broken}: {one.target} calls itself {found.name!r}; both names must be the same")
    return found


def pass_summaries() -> tuple[PassSummary, ...]:
    """One summary a pass, ours first, then those of entry points; imports them all. Left out are the entry points
    that `pass_problems` speaks of."""
    rows = [_summary(load(), "samonnx") for load in PASSES.values()]
    for one in foreign_passes():
        if not clashes((one,), PASSES):
            try:
                rows.append(_summary(pass_by_name(one.name), one.distribution))
            except UnknownPassError:
                continue
    return tuple(rows)


def _summary(cls: type[GraphPass], origin: str) -> PassSummary:
    return PassSummary(cls.name, cls.exactness, cls.tolerance, (inspect.getdoc(cls) or "").partition("\n")[0], origin)


def pass_problems() -> tuple[str, ...]:
    """A sentence for each entry point that cannot be used by its name: broken, hidden by a pass of ours, or given by
    two distributions."""
    foreign = foreign_passes()
    sentences = list(clashes(foreign, PASSES))
    for one in foreign:
        try:
            _load_foreign(one)
        except UnknownPassError as error:
            sentences.append(str(error))
    return tuple(sentences)
