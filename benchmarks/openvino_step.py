"""An ONNX graph as a variant: OpenVINO on the CPU, converted by OpenVINO's own reader, inputs bound once. Imports no
torch, so that its memory can be measured alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from benchmarks.graph_step import Array

__all__ = ["OpenVinoStep"]


class OpenVinoStep:
    """Callable: runs the graph on `feeds` (perhaps among others) for one request at a time, with `threads` threads.

    `precision`: "f32" or "bf16", the hint; without one OpenVINO picks the fastest, whatever the graph says. `counters`
    lets it count the time of each operation.
    """

    def __init__(
        self, path: Path, feeds: Mapping[str, Array], threads: int, precision: str = "f32", counters: bool = False
    ) -> None:
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "PERF_COUNT": counters,
        }
        self.engine = ov.Core().compile_model(str(path), "CPU", config)
        self.request = self.engine.create_infer_request()
        self._inputs = []  # the request reads them in place
        for port in self.engine.inputs:
            (name,) = port.names & feeds.keys()
            self._inputs.append(np.array(feeds[name], order="C"))
            self.request.set_tensor(port, ov.Tensor(self._inputs[-1], shared_memory=True))

    def run(self) -> None:
        """One step; the outputs stay in the request."""
        self.request.infer()

    def __call__(self) -> dict[str, Array]:
        """One step, and copies of its outputs under all the names that a tensor has."""
        self.run()
        return {name: self.request.get_tensor(port).data.copy() for port in self.engine.outputs for name in port.names}
