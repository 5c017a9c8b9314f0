"""Where an ONNX graph spends its time: ONNX Runtime's profile, summed by operator."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.graph_step import Array, GraphStep

__all__ = ["OperatorTime", "profile_graph"]


@dataclass(frozen=True)
class OperatorTime:
    """`calls` and `seconds` in one step; `share` of all operators' time. Operators are the engine's, after its own
    fusions."""

    operator: str
    calls: int
    seconds: float
    share: float


def profile_graph(path: Path, feeds: Mapping[str, Array], threads: int, steps: int = 2) -> tuple[OperatorTime, ...]:
    """All operators, the slowest first; the mean over `steps` steps after one that is not counted."""
    with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
        step = GraphStep(path, feeds, threads, profile=Path(folder) / "profile")
        for _ in range(1 + steps):
            step.run()
        events = json.loads(Path(step.session.end_profiling()).read_text())
    runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[1]:
            operator = event["args"]["op_name"]
            seconds[operator] += event["dur"] / 1e6 / steps
            calls[operator] += 1
    total = sum(seconds.values())
    slowest = sorted(seconds, key=lambda operator: -seconds[operator])
    return tuple(OperatorTime(o, calls[o] // steps, seconds[o], seconds[o] / total) for o in slowest)
