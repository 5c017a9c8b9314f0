"""Runs an in-memory graph with ONNX Runtime as a deployment would: the engine's own optimisation on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

__all__ = ["Array", "GraphSession"]

Array = np.ndarray[Any, np.dtype[Any]]


class GraphSession:
    """One graph, loaded once. `threads` None: the engine's default (one a core)."""

    def __init__(self, model: ir.Model, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        # Through a file, so that the weights are mapped and not copied into one protobuf message.
        with tempfile.TemporaryDirectory(prefix="samonnx-") as folder:
            path = Path(folder) / "model.onnx"
            ir.save(model.clone(), path, external_data="model.data")
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds may hold more than the graph takes; every output comes back by name."""
        taken = {name: feeds[name] for name in self.inputs}
        return dict(zip(self.outputs, self._session.run(None, taken), strict=True))
