"""Words, boxes, points and masks as feeds of the emitted programs that detect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from samonnx.runtime.session import Session

from .scenario import Array, image

__all__ = [
    "A_CAT",
    "A_DOG",
    "BASE",
    "EFFECT",
    "NOISE",
    "WIDE",
    "Example",
    "Open",
    "Outputs",
    "assert_equal_but_for_noise",
    "assert_heard",
    "assert_same",
    "detections",
    "distance",
    "features_of_frame",
    "features_of_words",
    "idle_feeds",
    "opened",
    "show",
]

# The base recipe brings the full-size trunk's activations down to 1. The tiny trunk's are 1 from the start: divided by
# 2^15 as well, the image would move no output, and a graph that ignores it would pass.
LIVELY = "weights.rescale.detector.backbone.vision_backbone.trunk.model.head.1.running_var=1.0"
BASE = (LIVELY, "programs.track.objects=2")
"""Overrides of the tiny recipe: the artifact, with all its programs, that the laws are tried on."""

WIDE = (
    LIVELY,
    "detection.boxes=7",
    "detection.points=6",
    "detection.masks=1",
    "model.args.mask_prompts=true",
    "pins.detector.geometry_encoder.mask_encoder.mask_downsampler.resize_to_16x_grid=true",
)
"""The same weights with more places, and with one for a mask."""

NOISE = 1e-5
"""Of `distance`; float32 rounding moves outputs by up to 3e-6."""

EFFECT = 1e-4
"""What is heard moves every output by more than this, ten times what the laws allow."""

A_DOG = (49406, 320, 1929, 49407)
A_CAT = (49406, 320, 2368, 49407)

Outputs = Mapping[str, Array]
Open = Callable[[str], Session]
"""Program name → its session."""

Example = tuple[tuple[float, ...], int]
"""What is pointed at, in shares of the image, and its label: 1 positive, 0 negative."""

_RESULTS = ("boxes", "logits", "presence", "scores", "masks", "semantic_mask")


@lru_cache(maxsize=64)
def opened(folder: Path, program: str, target: str = "onnx") -> Session:
    return Session(folder, program=program, target=target, threads=1)


def idle_feeds(open_: Open, program: str, words: Sequence[int] = A_DOG, frame: int = 0) -> dict[str, Array]:
    """All inputs of a program: words and a frame (or their features), every place for examples and every slot of the
    bank empty."""
    session = open_(program)
    ports = {port.name: port for port in session.program.inputs}
    feeds: dict[str, Array] = {
        name: np.full(port.shape, -1 if name.endswith("_labels") else 0, port.dtype) for name, port in ports.items()
    }
    for pair in session.manifest.bank:
        if pair.input in ports:
            feeds[pair.input][...] = pair.empty
    if "token_ids" in ports:
        feeds["token_ids"][0, : len(words)] = words
    if "image" in ports:
        feeds["image"] = image(frame, session.manifest.seeing().size)
    if "features" in ports:
        feeds |= features_of_words(open_, words) | features_of_frame(open_, frame)
    if "attend_memory" in ports:
        feeds["frame_index"][...] = frame
        feeds["attend_memory"][:] = True
    return feeds


def features_of_words(open_: Open, words: Sequence[int]) -> dict[str, Array]:
    return open_("encode_text").run(idle_feeds(open_, "encode_text", words))


def features_of_frame(open_: Open, frame: int) -> dict[str, Array]:
    return open_("encode_image").run(idle_feeds(open_, "encode_image", frame=frame))


def show(feeds: dict[str, Array], kind: str, examples: Mapping[int, Example]) -> None:
    """Put examples of a kind ("box" or "point") into the places that are their keys."""
    plural = "prompt_boxes" if kind == "box" else "prompt_points"
    for place, (coordinates, label) in examples.items():
        feeds[plural][0, place] = coordinates
        feeds[f"prompt_{kind}_labels"][0, place] = label


def detections(outputs: Outputs) -> dict[str, Array]:
    """What was detected, by the names that it has in `segment`."""
    prefix = "detection." if "detection.boxes" in outputs else ""
    return {name: outputs[f"{prefix}{name}"] for name in _RESULTS}


def distance(found: Outputs, expected: Outputs) -> dict[str, float]:
    """Of each array, the largest difference over the largest magnitude expected, or over 1 if that is more: a logit
    near zero is no more exact than one near 1. Of arrays with a row an object, the worst row. Integers and flags count
    as numbers."""
    assert found.keys() == expected.keys()
    result = {}
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert np.isfinite(array.astype(np.float64)).all(), name
        a, b = (side.astype(np.float64).reshape(len(array), -1) for side in (found[name], array))
        result[name] = float((np.abs(a - b).max(1) / np.abs(b).max(1).clip(min=1.0)).max())
    return result


def assert_same(found: Outputs, expected: Outputs) -> None:
    """To the bit, and finite."""
    for name, array in expected.items():
        assert np.isfinite(array.astype(np.float64)).all(), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def assert_equal_but_for_noise(found: Outputs, expected: Outputs) -> None:
    off = {name: error for name, error in distance(found, expected).items() if not error <= NOISE}
    assert not off


def assert_heard(found: Outputs, expected: Outputs) -> None:
    """Every output moved."""
    unmoved = {name: moved for name, moved in distance(found, expected).items() if not moved > EFFECT}
    assert not unmoved
