"""An artifact that tracks and detects: the two hand-made ones in one folder (their weights are the same)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from samonnx.runtime.manifest import Manifest
from tests.runtime import hand_made_artifact, hand_made_segment_artifact

__all__ = ["build"]


def build(folder: Path, *, objects: int = 2) -> Manifest:
    """Write the artifact folder. For "a dog" the detector finds two things, the upper left and the lower right one."""
    detects = hand_made_segment_artifact.build(folder)
    tracks = hand_made_artifact.build(folder, objects=objects)
    assert tracks.weights == detects.weights
    both = replace(
        tracks, programs=(*tracks.programs, *detects.programs), text=detects.text, detection=detects.detection
    )
    both.save(folder / "manifest.json")
    return both
