"""An ONNX graph as a variant: ONNX Runtime on the CPU, inputs and outputs bound once. Imports no torch, so that its
memory can be measured alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

__all__ = ["GraphStep"]

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}


class GraphStep:
    """Callable: runs the graph on `feeds` with the engine's default optimisation and `threads` threads inside an
    operation.

    `feeds` may hold more than the graph takes. `profile` is the prefix of a profile to write.
    """

    def __init__(self, path: Path, feeds: Mapping[str, Array], threads: int, profile: Path | None = None) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._binding = self.session.io_binding()
        self._inputs = {
            # np.ascontiguousarray would turn a scalar into a vector of one
            value.name: ort.OrtValue.ortvalue_from_numpy(feeds[value.name].copy(order="C"))
            for value in self.session.get_inputs()
        }
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._outputs = self._bound_outputs()

    def _bound_outputs(self) -> dict[str, ort.OrtValue]:
        """Buffers bound as outputs; those with a symbolic dimension get theirs from a first run."""
        outputs = {value.name: value for value in self.session.get_outputs()}
        shapes = {name: value.shape for name, value in outputs.items()}
        if any(not isinstance(side, int) for shape in shapes.values() for side in shape):
            for name in outputs:
                self._binding.bind_output(name)
            self.session.run_with_iobinding(self._binding)
            shapes = {name: value.shape() for name, value in zip(outputs, self._binding.get_outputs(), strict=True)}
            self._binding.clear_binding_outputs()
        bound = {
            name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shapes[name], _DTYPES[value.type]))
            for name, value in outputs.items()
        }
        for name, value in bound.items():
            self._binding.bind_ortvalue_output(name, value)
        return bound

    def run(self) -> None:
        """One step; the outputs stay in the bound buffers."""
        self.session.run_with_iobinding(self._binding)

    def __call__(self) -> dict[str, Array]:
        """One step, and copies of its outputs: the buffers themselves are overwritten by the next step, and gone with
        the session."""
        self.run()
        return {name: value.numpy().copy() for name, value in self._outputs.items()}
