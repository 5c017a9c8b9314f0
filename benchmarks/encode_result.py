"""What the `encode` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from benchmarks.machine import MachineFacts
from benchmarks.variant_result import Absent, Measured, VariantResult

__all__ = ["EncodeResult"]


@dataclass(frozen=True)
class EncodeResult:
    """`tolerance`: that the three maps are held to. `absent`: variants that were not run."""

    recipe: str
    recipe_digest: str
    weights: str
    repeats: int
    threads: int
    tolerance: float
    machine: MachineFacts
    variants: tuple[VariantResult, ...]
    absent: tuple[Absent, ...] = ()

    @property
    def measured(self) -> Measured:
        return Measured(self.variants, self.absent)

    @property
    def agrees(self) -> bool:
        """Whether every map of every variant is within `tolerance` of eager's."""
        return all(variant.agrees(self.tolerance) for variant in self.variants)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
