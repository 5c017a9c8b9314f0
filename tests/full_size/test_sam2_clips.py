"""The emitted full-size graphs of SAM 2.1 and SAMURAI against the original project's tensors, stepping the bank in ONNX
Runtime."""

from __future__ import annotations

import logging

import pytest

from .conftest import FullSize
from .sam2_clip import clip_figures

TOLERANCE = 1e-4
POSITION_TOLERANCE = 1e-5
FILTER_TOLERANCE = 1e-3
MOST_TURNED = 5
"""Pixels of the prompted frame's mask that may lie within rounding of 0, of a million."""


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("recipe", "clip", "seed", "frames", "target"),
    [
        ("sam2.1_hiera_t", "tracker_hiera_t_click", 8, 20, "onnx"),
        ("samurai_hiera_b+", "samurai_hiera_b+", 15, 30, "ort-cpu"),
    ],
)
def test_the_graph_gives_the_originals_tensors_and_decisions_at_every_frame(
    full_size: FullSize, recipe: str, clip: str, seed: int, frames: int, target: str
) -> None:
    """Tensors within 1e-4 of the reference tensor's largest magnitude, positions within 1e-5, the filter's state within
    1e-3 entry by entry; mask choice, phase, count of stable frames and attended frames the same."""
    folder = full_size(seed, "track", "track@first", "track@3", recipe=recipe, target=target)
    figures = clip_figures(folder, clip, target)
    report = ", ".join(f"{name} {error:.1e}" for name, error in figures.largest.items())
    logging.getLogger(__name__).info("%s: %s", clip, report)  # shown by --log-cli-level=INFO
    assert not figures.different, (figures.different, report)
    assert figures.pixels_turned <= MOST_TURNED, (figures.pixels_turned, report)
    assert figures.compared["memory frames"] == figures.compared["obj_ptr"] == frames, report
    allowed = {"memory_pos": POSITION_TOLERANCE, "pointer_pos": POSITION_TOLERANCE}
    allowed |= {name: FILTER_TOLERANCE for name in figures.largest if name.startswith("kf_")}
    beyond = {name: error for name, error in figures.largest.items() if error > allowed.get(name, TOLERANCE)}
    assert not beyond, (beyond, report)
