"""What the `passes` benchmark found, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from benchmarks.engines import Engine
from benchmarks.graph_facts import GraphFacts
from benchmarks.machine import MachineFacts
from benchmarks.measure import Timing

__all__ = ["PassResult", "PassesResult"]


@dataclass(frozen=True)
class PassResult:
    """The step without one pass beside the step with all, timed in turn: `without`, `with_all` in seconds. `gain`:
    median without over median with; `error`: the largest of all outputs between the two."""

    name: str
    without: Timing
    with_all: Timing
    gain: float
    graph: GraphFacts
    error: float


@dataclass(frozen=True)
class PassesResult:
    """`graph`: with all passes; `failed`: pass → why there is no graph without it."""

    recipe: str
    target: str
    engine: Engine
    repeats: int
    threads: int
    machine: MachineFacts
    graph: GraphFacts
    passes: tuple[PassResult, ...]
    failed: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
