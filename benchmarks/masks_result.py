"""What the `masks` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.machine import MachineFacts

__all__ = ["MasksResult", "PresetResult"]


@dataclass(frozen=True)
class PresetResult:
    """Automatic masks with one preset. `passed`: masks that each filter let pass; `left`: masks after each stage;
    `seconds` by stage, `total`, and `processor` seconds of all threads: medians; `code_bytes`: of the run-length codes
    that are left; `idle_bytes`: peak memory of the process before a graph was opened; `peak_bytes`: at the end."""

    preset: str
    crop_layers: int
    passed: Mapping[str, int]
    left: Mapping[str, int]
    seconds: Mapping[str, float]
    total: float
    processor: float
    code_bytes: int
    idle_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class MasksResult:
    """`drawn`: whether masks were drawn instead of the network's own."""

    recipe: str
    recipe_digest: str
    weights: str
    width: int
    height: int
    repeats: int
    threads: int
    drawn: bool
    machine: MachineFacts
    presets: tuple[PresetResult, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
