"""What the `segment` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from benchmarks.machine import MachineFacts
from benchmarks.variant_result import Absent, Measured, VariantResult

__all__ = ["ProgramResult", "SegmentResult", "WordCost"]


@dataclass(frozen=True)
class ProgramResult:
    """One program in all variants. `tolerance`: that outputs are held to; None: errors are reported only. `absent`:
    variants that were not run."""

    program: str
    tolerance: float | None
    variants: tuple[VariantResult, ...]
    absent: tuple[Absent, ...] = ()

    @property
    def measured(self) -> Measured:
        return Measured(self.variants, self.absent)

    @property
    def agrees(self) -> bool:
        """Whether every output of every variant is within `tolerance` of eager's."""
        return self.tolerance is None or all(variant.agrees(self.tolerance) for variant in self.variants)


@dataclass(frozen=True)
class WordCost:
    """Seconds (sums of medians) that one more text costs on the same image: everything again (`segment`), with the
    image's features kept (`encode_text` and `ground`), with the text's kept as well (`ground`)."""

    variant: str
    again: float
    image_kept: float
    both_kept: float


@dataclass(frozen=True)
class SegmentResult:
    """`programs`: `segment` first, then those of its parts that the artifact has."""

    recipe: str
    recipe_digest: str
    weights: str
    repeats: int
    threads: int
    machine: MachineFacts
    programs: tuple[ProgramResult, ...]

    @property
    def agrees(self) -> bool:
        return all(program.agrees for program in self.programs)

    def word_costs(self) -> tuple[WordCost, ...]:
        """One for each variant that all parts have; empty if a part is missing."""
        medians = {
            program.program: {variant.name: variant.median for variant in program.variants} for program in self.programs
        }
        if not {"segment", "encode_text", "ground"} <= set(medians):
            return ()
        again, text, ground = medians["segment"], medians["encode_text"], medians["ground"]
        known = [name for name in again if name in text and name in ground]
        return tuple(WordCost(name, again[name], text[name] + ground[name], ground[name]) for name in known)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
