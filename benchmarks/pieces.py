"""Pieces of work side by side, each in eager PyTorch, in one form or several, and in compiled graphs: medians of runs
in turn in one process, and how far the outputs are from eager's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.graph_step import Array, GraphStep
from benchmarks.machine import MachineFacts
from benchmarks.measure import Timing, alternate
from benchmarks.output_agreement import output_errors

__all__ = ["GraphWork", "Piece", "PieceResult", "PieceVariant", "PiecesResult", "measure_piece"]

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class GraphWork:
    """A graph of ONNX Runtime and its inputs; `feeds` may hold more than it takes."""

    path: Path
    feeds: Mapping[str, Array]


@dataclass(frozen=True)
class Piece:
    """`eager`: by name, the first is what all others are compared with. Of the outputs, those are compared that both
    sides have."""

    name: str
    eager: Mapping[str, Callable[[], Outputs]]
    graphs: Mapping[str, GraphWork]


@dataclass(frozen=True)
class PieceVariant:
    """`median`, `least`: seconds. `times`: eager's name → its median over this one. `errors`: output → largest
    difference from eager's, over the largest magnitude of eager's."""

    name: str
    timing: Timing
    median: float
    least: float
    times: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class PieceResult:
    name: str
    variants: tuple[PieceVariant, ...]

    def ratio(self, name: str) -> float:
        """How many times as fast as the first eager variant the one called `name` is."""
        baseline = self.variants[0].name
        return next(one.times[baseline] for one in self.variants if one.name == name)


@dataclass(frozen=True)
class PiecesResult:
    """`tolerance`: that the outputs are held to."""

    title: str
    recipe: str
    recipe_digest: str
    weights: str
    repeats: int
    threads: int
    tolerance: float
    machine: MachineFacts
    pieces: tuple[PieceResult, ...]

    @property
    def disagreement(self) -> str:
        """Empty where every output of every variant is within `tolerance` of eager's."""
        wrong = [
            f"{piece.name}, {one.name}: {output} {error:.1e}"
            for piece in self.pieces
            for one in piece.variants
            for output, error in one.errors.items()
            if not error <= self.tolerance
        ]
        return f"outputs differ by more than {self.tolerance:g} from eager's: {'; '.join(wrong)}" if wrong else ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def measure_piece(
    piece: Piece, repeats: int, threads: int, progress: Callable[[str], None] = lambda _: None
) -> PieceResult:
    """Load all variants, compare their outputs, time them in turn. PyTorch's threads are the caller's to set; what is
    loaded is gone afterwards. Raises VerificationError for outputs of another shape or dtype."""
    steps: dict[str, Callable[[], object]] = {}
    found: dict[str, Outputs] = {}
    for name, step in piece.eager.items():
        progress(f"{piece.name}: warm up {name}")
        found[name], steps[name] = step(), step
    for name, work in piece.graphs.items():
        progress(f"{piece.name}: load {name}")
        graph = GraphStep(work.path, work.feeds, threads)
        found[name], steps[name] = graph(), graph.run
    timings = alternate(steps, repeats, lambda what: progress(f"{piece.name}: {what}"))
    expected = found[next(iter(piece.eager))]
    return PieceResult(
        piece.name, tuple(_variant(name, timings, piece.eager, found[name], expected) for name in timings)
    )


def _variant(
    name: str, timings: Mapping[str, Timing], eager: Sequence[str] | Mapping[str, object], own: Outputs, to: Outputs
) -> PieceVariant:
    median = timings[name].median
    times = {other: timings[other].median / median for other in eager}
    errors = {} if own is to else output_errors(own, {key: array for key, array in to.items() if key in own})
    return PieceVariant(name, timings[name], median, timings[name].least, times, errors)
