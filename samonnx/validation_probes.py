"""Emitted `track` graphs that also give out the image encoder's maps, so that the reference can be given the same.

The squeeze-excite gates of some encoders magnify rounding, seeded weights most of all: then two correct encoders
differ, and everything after them. With the graph's own maps on both sides, what remains is the tracker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime

from samonnx.models.reference_tracker import ImageFeatures
from samonnx.runtime.manifest import Manifest, PortInfo, ProgramInfo
from samonnx.runtime.session import Session, choose_target, execution_providers
from samonnx.validation import ValidateError

__all__ = ["ProbedSession", "map_ports"]

MAPS = {name: f"tracker_neck/{name}" for name in ImageFeatures.__dataclass_fields__}
"""The maps as they are called in an emitted graph."""


def map_ports(folder: Path, manifest: Manifest, target: str | None) -> dict[str, PortInfo]:
    """The image encoder's maps as outputs of `track`, by name. Raises ValidateError if the graph has them no more, and
    what `choose_target` raises."""
    program = manifest.program("track")
    known = {value.name: value for value in _graph(folder, program, choose_target(program, target)).graph.value_info}
    gone = [value for value in MAPS.values() if value not in known]
    if gone:
        raise ValidateError(
            f"--maps graph: {folder / program.files[choose_target(program, target)]} has no value {gone[0]!r}, a pass "
            f"has folded it away; leave --maps out"
        )
    return {
        name: PortInfo(value, "float32", tuple(side.dim_value for side in known[value].type.tensor_type.shape.dim))
        for name, value in MAPS.items()
    }


class ProbedSession(Session):
    """A session whose program has `ports` as further outputs. The arguments are Session's, and checked by it."""

    def __init__(
        self,
        folder: Path,
        program: str,
        *,
        ports: Mapping[str, PortInfo],
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        super().__init__(folder, program, target=target, threads=threads, providers=providers, manifest=manifest)
        model = _graph(folder, self.program, self.target)
        model.graph.output.extend(onnx.ValueInfoProto(name=port.name) for port in ports.values())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.absolute()))
        if threads is not None:
            options.intra_op_num_threads = threads
        chosen = execution_providers(providers or ["cpu"])
        self._engine = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=chosen)
        self.program = replace(self.program, outputs=(*self.program.outputs, *ports.values()))


def _graph(folder: Path, program: ProgramInfo, target: str) -> onnx.ModelProto:
    return onnx.load(str(folder / program.files[target]), load_external_data=False)
