"""What is asked in the benchmark of `segment`: the words "a dog" and one box, on a synthetic frame."""

from __future__ import annotations

import numpy as np

from benchmarks.whole_program import EagerProgram
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.segment import encode_image_program, encode_text_program
from samonnx.runtime.detector_places import detector_places
from samonnx.runtime.manifest import DetectionInfo
from samonnx.runtime.prompts import Box, Prompts
from samonnx.verify_clip import normalised_frame

__all__ = ["detection_inputs"]

A_DOG = (49406, 320, 1929, 49407)
"""CLIP's tokens of "a dog", start and end among them."""

CORNERS = (0.18, 0.31, 0.42, 0.49)
"""The ellipse of the synthetic frame: x0, y0, x1, y1 as shares of the image."""


def detection_inputs(model: EfficientSAM3, detection: DetectionInfo) -> dict[str, Array]:
    """Inputs of `segment` and of its three parts, by port; those of `ground` that the other two make are eager
    PyTorch's. Places for boxes and points that are left over are empty, as a session would leave them."""
    size, sizes = model.tracker.sizes.image_size, model.detector.sizes
    tokens = np.zeros((1, sizes.context_length), np.int64)
    words = A_DOG[: sizes.context_length]
    tokens[0, : len(words)] = words
    x0, y0, x1, y1 = (share * size for share in CORNERS)
    prompts = Prompts(text="a dog", boxes=(Box(x0, y0, x1, y1),))
    places = detector_places(prompts, detection, width=size, height=size, mask_side=4 * sizes.grid)
    feeds: dict[str, Array] = {"image": normalised_frame(0, size), "token_ids": tokens, **places}
    for program in (encode_image_program(model), encode_text_program(model)):
        feeds |= EagerProgram(program, feeds)()
    return feeds
