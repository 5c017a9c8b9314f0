"""The `step` program: detection of a concept and tracking of O objects on the same frame, whose image is encoded
once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Component, Port, Program
from samonnx.programs.segment import segment_program
from samonnx.programs.track import track_program

if TYPE_CHECKING:
    from samonnx.recipe import DetectionSpec, MemorySpec, TrackSpec

__all__ = ["DETECTION_PREFIX", "step_program"]

DETECTION_PREFIX = "detection."
"""In front of the outputs of `segment`, since both programs give out `masks`."""


def step_program(
    model: EfficientSAM3, memory: MemorySpec, track_spec: TrackSpec, detection_spec: DetectionSpec
) -> Program:
    """All ports of `track` and `segment`; the trunk, and whatever else both have, is there once.

    Raises what `track_program` and `segment_program` raise.
    """
    track = track_program(model, memory, track_spec)
    segment = segment_program(model, detection_spec, DETECTION_PREFIX)
    components: dict[str, Component] = {part.name: part for part in (*track.components, *segment.components)}
    inputs: dict[str, Port] = {port.name: port for port in (*segment.inputs, *track.inputs)}
    return Program(
        name="step",
        inputs=tuple(inputs.values()),
        outputs=(*track.outputs, *segment.outputs),
        components=tuple(components.values()),
        wires=tuple(dict.fromkeys((*track.wires, *segment.wires))),
        bank=track.bank,
        pinned=track.pinned,
    )
