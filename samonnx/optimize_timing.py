"""Times two graphs side by side in one process: in turn, as an application would run them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import onnx_ir as ir
import onnxruntime as ort

from samonnx.optimize_engine import compact_session
from samonnx.optimize_result import Timing
from samonnx.passes.evaluation import EngineError
from samonnx.passes.interface import Array

__all__ = ["SLOWER", "compare_times"]

SLOWER = 1.03
"""A graph that takes longer than this times the original is not kept."""

_SECONDS = 1.5
_LEAST, _MOST = 5, 60


def compare_times(
    before: ir.Model, after: ir.Model, feeds: Mapping[str, Array], threads: int | None, *, patience: int = 1
) -> Timing:
    """Alternating calls, the first of each pair by turns, for about 1.5 s · `patience` (5 to 60 pairs each). With the
    engine's own optimisation on; `threads` None: its choice.

    Raises EngineError when a graph does not run.
    """
    sessions = [_session(model, threads) for model in (before, after)]
    first = _call(sessions[0], feeds) + _call(sessions[1], feeds)  # to warm up
    first = min(first, _call(sessions[0], feeds) + _call(sessions[1], feeds))
    pairs = patience * min(_MOST, max(_LEAST, int(_SECONDS / max(first, 1e-6))))
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append(_call(sessions[which], feeds))
    ratio = statistics.median(after / before for before, after in zip(*times, strict=True))
    medians = [1000 * statistics.median(found) for found in times]
    return Timing(medians[0], medians[1], ratio, pairs)


def _session(model: ir.Model, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    return compact_session(model, options)


def _call(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> float:
    """Seconds."""
    start = time.perf_counter()
    try:
        session.run(None, dict(feeds))
    except Exception as error:  # ONNX Runtime's classes have no common base below Exception
        raise EngineError(f"ONNX Runtime: {error}") from error
    return time.perf_counter() - start
