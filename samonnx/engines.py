"""Which engine runs the graphs of a target when they are verified."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from samonnx.graph_session import Array, GraphSession
from samonnx.runtime.extras import require_extra
from samonnx.runtime.manifest import TargetInfo

__all__ = ["TARGETS", "OpenGraph", "OpenvinoGraph", "RunnableGraph", "open_graph_for", "verifying_engine"]

TARGETS: Mapping[str, TargetInfo] = {
    "onnx": TargetInfo("any"),
    "ort-cpu": TargetInfo("onnxruntime"),
    "openvino": TargetInfo("openvino", precisions=("f32", "bf16")),
}
"""Target → what the manifest says about it."""


class RunnableGraph(Protocol):
    """A graph opened in an engine."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds may hold more than the graph takes; every output comes back by name."""
        ...


OpenGraph = Callable[[ir.Model], RunnableGraph]


class OpenvinoGraph:
    """One graph, compiled once by OpenVINO for the CPU, in float32. MissingExtraError where OpenVINO is not
    installed."""

    def __init__(self, model: ir.Model) -> None:
        openvino = require_extra("openvino", "openvino")
        # OpenVINO reads external weights from a file beside the graph only.
        with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
            path = Path(folder) / "model.onnx"
            ir.save(model.clone(), path, external_data="weights.bin")
            self._compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.inputs = tuple(str(value.name) for value in model.graph.inputs)
        self.outputs = tuple(str(value.name) for value in model.graph.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As `GraphSession.run`."""
        results = self._compiled({name: np.asarray(feeds[name]) for name in self.inputs})
        return {name: np.array(results[self._compiled.output(name)]) for name in self.outputs}


def verifying_engine(target: str) -> str:
    """`openvino` for the target of that name where it is installed, else `onnxruntime`, which runs every target."""
    here = importlib.util.find_spec("openvino") is not None
    return "openvino" if TARGETS[target].engine == "openvino" and here else "onnxruntime"


def open_graph_for(target: str) -> OpenGraph:
    """What opens the graphs of `target` in `verifying_engine(target)`."""
    return OpenvinoGraph if verifying_engine(target) == "openvino" else GraphSession
