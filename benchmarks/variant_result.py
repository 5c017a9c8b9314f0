"""What was found about one variant of a piece of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.engines import Engine
from benchmarks.graph_facts import GraphFacts
from benchmarks.measure import Timing
from benchmarks.operator_profile import OperatorTime

__all__ = ["MASKS_EQUAL", "Absent", "Measured", "VariantResult"]

MASKS_EQUAL = 0.99
"""Share of mask pixels that must fall on the same side of the threshold as eager's in bfloat16, whose rounding is too
coarse to hold logits to a tolerance."""


@dataclass(frozen=True)
class VariantResult:
    """One way to do the work.

    Attributes:
        name: "eager" and its kin, "straightforward" and its kin, a target, or "<graph>, <engine>".
        median, least: seconds.
        times_eager: median of eager with the one neck that is read, over this median: 2.0 is twice as fast.
        times_original: likewise of eager as the original runs it, both necks; None: not measured.
        times_straightforward: likewise of the straightforward export in the same engine; None: there is none.
        flops: of one run; the eager one's are those of the straightforward export.
        flops_share: `flops` over the straightforward export's.
        gemm_peak: FLOP/s that the engine reaches in matrix products in this run (see `benchmarks.gemm_peak`).
        roofline_share: flops / median / gemm_peak.
        graph: figures of the file; None for eager.
        peak_bytes: resident memory of a process that runs this alone; None: not measured.
        errors: output → largest difference from eager's, over the largest magnitude of eager's; of flags and integers
            the number that differ. Empty for eager.
        masks_equal: mask output → share of pixels on the same side of zero as eager's. Empty for eager.
        operators: the engine's profile, slowest first; empty unless asked for.
    """

    name: str
    engine: Engine
    timing: Timing
    median: float
    least: float
    times_eager: float
    times_original: float | None
    times_straightforward: float | None
    flops: int
    flops_share: float
    gemm_peak: float
    roofline_share: float
    graph: GraphFacts | None
    peak_bytes: int | None
    errors: Mapping[str, float]
    masks_equal: Mapping[str, float]
    operators: tuple[OperatorTime, ...]

    def agrees(self, tolerance: float) -> bool:
        """Whether every output is within `tolerance` of eager's; in bfloat16, whether the thresholded masks are
        equal."""
        if self.engine is Engine.OPENVINO_BF16:
            return all(share >= MASKS_EQUAL for share in self.masks_equal.values())
        return all(error <= tolerance for error in self.errors.values())


@dataclass(frozen=True)
class Absent:
    """A variant that was not run, and why; no figure is claimed for it."""

    name: str
    engine: Engine
    reason: str


@dataclass(frozen=True)
class Measured:
    """All variants of one piece of work, in the order asked for."""

    variants: tuple[VariantResult, ...]
    absent: tuple[Absent, ...] = ()
