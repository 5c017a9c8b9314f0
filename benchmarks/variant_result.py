"""What was found about one variant of a piece of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.graph_facts import GraphFacts
from benchmarks.measure import Timing
from benchmarks.operator_profile import OperatorTime

__all__ = ["VariantResult"]


@dataclass(frozen=True)
class VariantResult:
    """One way to do the work.

    Attributes:
        name: "eager", another eager variant, "straightforward" or a target.
        median, least: seconds.
        times_eager: eager's median over this median: 2.0 is twice as fast; `times_straightforward` likewise.
        flops: of one run; the eager one's are those of the straightforward export.
        flops_share: `flops` over the straightforward export's.
        graph: figures of the file; None for eager.
        peak_bytes: resident memory of a process that runs this alone; None: not measured.
        errors: output → largest difference from eager's, over the largest magnitude of eager's; of flags and integers
            the number that differ. Empty for eager.
        operators: the engine's profile, slowest first; empty unless asked for.
    """

    name: str
    timing: Timing
    median: float
    least: float
    times_eager: float
    times_straightforward: float
    flops: int
    flops_share: float
    graph: GraphFacts | None
    peak_bytes: int | None
    errors: Mapping[str, float]
    operators: tuple[OperatorTime, ...]

    def agrees(self, tolerance: float) -> bool:
        """Whether every output is within `tolerance` of eager's."""
        return all(error <= tolerance for error in self.errors.values())
