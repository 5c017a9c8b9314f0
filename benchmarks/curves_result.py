"""What the `curves` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from benchmarks.curve_points import Axis
from benchmarks.engines import Engine
from benchmarks.machine import MachineFacts
from benchmarks.measure import Timing
from benchmarks.power_law import PowerLaw

__all__ = ["Curve", "CurvePoint", "CurvesResult"]


@dataclass(frozen=True)
class CurvePoint:
    """One compiled graph with a full bank. `times_first`: median over that of the curve's first point. `overrides`: of
    the recipe."""

    x: int
    overrides: tuple[str, ...]
    timing: Timing
    median: float
    least: float
    times_first: float
    flops: int


@dataclass(frozen=True)
class Curve:
    """`time`, `work`: the power laws of medians and of FLOPs; None with fewer than two points."""

    axis: Axis
    points: tuple[CurvePoint, ...]
    time: PowerLaw | None
    work: PowerLaw | None


@dataclass(frozen=True)
class CurvesResult:
    """`overrides`: of the recipe, at all points."""

    recipe: str
    overrides: tuple[str, ...]
    target: str
    engine: Engine
    repeats: int
    threads: int
    machine: MachineFacts
    curves: tuple[Curve, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
