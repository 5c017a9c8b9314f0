"""What the `track` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from benchmarks.machine import MachineFacts
from benchmarks.variant_result import Absent, Measured, VariantResult

__all__ = ["TrackResult"]


@dataclass(frozen=True)
class TrackResult:
    """`frames`: tracked before this one; `memories`, `pointers`: how many of them are attended (all slots, in a full
    bank). `object_score`: of the eager step; when it is not positive, the masks are a constant. `absent`: variants that
    were not run."""

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
    absent: tuple[Absent, ...] = ()

    @property
    def measured(self) -> Measured:
        return Measured(self.variants, self.absent)

    @property
    def agrees(self) -> bool:
        """Whether every output of every variant is within `tolerance` of eager's."""
        return all(variant.agrees(self.tolerance) for variant in self.variants)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
