"""Runs an in-memory graph with ONNX Runtime as a deployment would: the engine's own optimisation on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from samonnx.graph_file import Overlaid, external_tensors, serialized

__all__ = ["Array", "GraphSession"]

Array = np.ndarray[Any, np.dtype[Any]]


class GraphSession:
    """One graph, loaded once. `threads` None: the engine's default (one a core).

    The engine reads large weights where they lie; nothing is written to disk.
    """

    def __init__(self, model: ir.Model, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        clone = model.clone()
        self._weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in external_tensors(clone)}
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()]
        if values:
            options.add_external_initializers(list(self._weights), values)
        self._session = ort.InferenceSession(serialized(clone, Overlaid()), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds may hold more than the graph takes; every output comes back by name."""
        taken = {name: feeds[name] for name in self.inputs}
        return dict(zip(self.outputs, self._session.run(None, taken), strict=True))
