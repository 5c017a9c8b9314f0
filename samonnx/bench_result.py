"""What `samonnx bench` measures, as values: timings, one result a graph, one a number of tracked objects."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from samonnx.errors import SamonnxError

__all__ = ["Bench", "BenchError", "Failure", "Machine", "ProgramResult", "Timing", "TrackingResult"]


class BenchError(SamonnxError):
    """Something was asked that this artifact or this machine cannot be timed with, or a measurement failed."""


@dataclass(frozen=True)
class Timing:
    """Wall-clock time of repeated calls. The derived figures are fields, so that they stand in the JSON file."""

    seconds: tuple[float, ...]
    """Every repeat, in the order run."""
    median_ms: float
    least_ms: float
    spread_ms: float
    """Between the first and the third quartile; 0 for a single repeat."""
    per_second: float
    """Calls, or frames, a second, by the median."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """From at least one repeat, in seconds, each above 0."""
        median = statistics.median(seconds)
        low, high = (min(seconds), max(seconds))
        if len(seconds) > 1:
            low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(tuple(seconds), 1e3 * median, 1e3 * min(seconds), 1e3 * (high - low), 1 / median)


@dataclass(frozen=True)
class ProgramResult:
    """One graph on one provider: a call takes arrays in the computer's memory and gives arrays there."""

    program: str
    target: str
    provider: str
    timing: Timing
    open_seconds: float
    """Opening the graph and its weights; files may have been in the system's cache or not."""
    peak_bytes: int | None
    """Largest memory of the process, the interpreter and all loading included; GPU memory is not in it. None where
    the system does not tell."""
    graph_bytes: int
    """Size of the graph's file; the weights lie in a file that all share."""


@dataclass(frozen=True)
class TrackingResult:
    """A frame of samonnx.runtime's Tracker with so many objects: preprocessing, calls of `track`, masks at frame
    size."""

    target: str
    provider: str
    objects: int
    calls: int
    """Calls of the graph a frame."""
    timing: Timing
    peak_bytes: int | None
    """As in ProgramResult, of the one process that tracked all numbers of objects in turn."""


@dataclass(frozen=True)
class Failure:
    """What could not be measured, and why."""

    what: str
    """Name of the program, or `Tracker`."""
    target: str
    provider: str
    reason: str
    expected_to_run: bool
    """False: a provider that is in this build of ONNX Runtime, but that nobody asked for by name."""


@dataclass(frozen=True)
class Machine:
    """What figures depend on besides the artifact. `cores` are logical ones that this process may use."""

    processor: str
    cores: int
    memory_bytes: int | None
    load: float | None
    """Of the last minute before the run."""
    system: str
    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True)
class Bench:
    """A whole run."""

    recipe: str
    weights_source: str
    weights_bytes: int
    rows: int | None
    """Objects that one call of `track` follows; None: the artifact does not track."""
    machine: Machine
    threads: int | None
    """None: the engine's choice."""
    repeats: int
    warm_up: int
    frame_size: tuple[int, int]
    """Width and height of the frames that the Tracker was given."""
    programs: tuple[ProgramResult, ...]
    tracking: tuple[TrackingResult, ...]
    failures: tuple[Failure, ...]
