"""Graph passes: ONNX in, ONNX out, one pass a file. Imports neither torch nor `samonnx.models`."""

from __future__ import annotations

from samonnx.passes.interface import Exactness, GraphPass, PassDeclinedError, PassResult
from samonnx.passes.pipeline import PassFailedError, PassObserver, PassReport, PipelineResult, run_passes
from samonnx.passes.registry import PASSES, PassSummary, UnknownPassError, pass_by_name, pass_summaries
from samonnx.passes.statistics import GraphStatistics, graph_statistics

__all__ = [
    "PASSES",
    "Exactness",
    "GraphPass",
    "GraphStatistics",
    "PassDeclinedError",
    "PassFailedError",
    "PassObserver",
    "PassReport",
    "PassResult",
    "PassSummary",
    "PipelineResult",
    "UnknownPassError",
    "graph_statistics",
    "pass_by_name",
    "pass_summaries",
    "run_passes",
]
