"""Where a graph spends its time: the engine's own profile, summed by operator."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import Engine
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


def profile_graph(
    path: Path, feeds: Mapping[str, Array], threads: int, engine: Engine = Engine.ORT, steps: int = 2
) -> tuple[OperatorTime, ...]:
    """All operators, the slowest first; the mean over `steps` steps after one that is not counted."""
    measure = _onnx_runtime if engine is Engine.ORT else _openvino
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for operator, duration in measure(path, feeds, threads, steps, engine):
        seconds[operator] += duration / steps
        calls[operator] += 1
    total = sum(seconds.values())
    slowest = sorted(seconds, key=lambda operator: -seconds[operator])
    return tuple(OperatorTime(o, calls[o] // steps, seconds[o], seconds[o] / total) for o in slowest)


Calls = Iterable[tuple[str, float]]
"""Operator and seconds of each call, in all counted steps."""


def _onnx_runtime(path: Path, feeds: Mapping[str, Array], threads: int, steps: int, _: Engine) -> Calls:
    with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
        step = GraphStep(path, feeds, threads, profile=Path(folder) / "profile")
        for _number in range(1 + steps):
            step.run()
        events = json.loads(Path(step.session.end_profiling()).read_text())
    runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[1]:
            yield event["args"]["op_name"], event["dur"] / 1e6


def _openvino(path: Path, feeds: Mapping[str, Array], threads: int, steps: int, engine: Engine) -> Calls:
    from benchmarks.openvino_step import OpenVinoStep

    precision = "bf16" if engine is Engine.OPENVINO_BF16 else "f32"
    step = OpenVinoStep(path, feeds, threads, precision, counters=True)
    for number in range(1 + steps):
        step.run()
        for info in step.request.profiling_info if number else ():
            if info.status == info.Status.EXECUTED:
                yield info.node_type, info.real_time.total_seconds()
