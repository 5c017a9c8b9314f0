"""What the `track` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.graph_facts import GraphFacts
from benchmarks.machine import MachineFacts
from benchmarks.measure import Timing
from benchmarks.operator_profile import OperatorTime

__all__ = ["TrackResult", "VariantResult"]


@dataclass(frozen=True)
class VariantResult:
    """One way to run the step.

    Attributes:
        name: "eager", "eager, 2 necks" (the original's work), "straightforward" or a target.
        times_eager: eager's median over this median: 2.0 is twice as fast; `times_straightforward` likewise.
        flops: of one step; the eager step's are those of the straightforward export.
        flops_share: `flops` over the straightforward export's.
        graph: figures of the file; None for eager.
        peak_bytes: resident memory of a process that runs this alone; None: not measured.
        errors: output → largest difference from eager's, over the largest magnitude of eager's.
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


@dataclass(frozen=True)
class TrackResult:
    """`frames`: tracked before this one; `memories`, `pointers`: how many of them are attended (all slots, in a full
    bank). `object_score`: of the eager step; when it is not positive, the masks are a constant."""

    recipe: str
    recipe_digest: str
    weights: str
    frames: int
    memories: int
    pointers: int
    full_bank: bool
    repeats: int
    threads: int
    object_score: float
    tolerance: float
    machine: MachineFacts
    variants: tuple[VariantResult, ...]

    @property
    def agrees(self) -> bool:
        """Whether every output of every variant is within `tolerance` of eager's."""
        return all(error <= self.tolerance for variant in self.variants for error in variant.errors.values())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
