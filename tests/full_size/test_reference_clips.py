"""The emitted full-size graphs against the original project's tensors, stepping the bank in ONNX Runtime."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest

from samonnx.build_model import build_model
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.recipe import load_recipe

from .conftest import RECIPE, FullSize
from .reference_clip import POSITION_TOLERANCE, TOLERANCE, clip_figures

GOLDEN = Path(__file__).parents[2] / "golden" / "efficientsam3_m0_9"
PROBES = {
    "features": "tracker_neck/features",
    "conditioned": "attend_memory/conditioned",
    "slots": "read_bank/slots",
    "tokens": "read_bank/tokens",
    "memory_position": "read_bank/memory_position",
    "memory_valid": "read_bank/memory_valid",
    "pointer_position": "read_bank/pointer_position",
    "pointer_valid": "read_bank/pointer_valid",
}
ROUNDING_MARGIN = 1.5
"""The reference file carries float32 rounding of about the measured size, of another CPU."""
ENCODER_MARGIN = 10
"""Float32 kernels of another CPU or engine may round that much worse than those that the rounding was measured with."""
WIRING = 2e-2
"""Rounding moves the encoder's maps by up to 3e-3, a wrong layer by 1e-1."""


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("clip", "seed", "programs", "target"),
    [("tracker_click", 3, ("track", "track@first"), "ort-cpu"), ("tracker_occluded", 0, (), "onnx")],
)
def test_the_graph_gives_the_originals_tensors_at_every_frame(
    full_size: FullSize, clip: str, seed: int, programs: tuple[str, ...], target: str
) -> None:
    """Every tensor within 1e-4 of the reference tensor's largest magnitude, or within what float32 rounding of the
    image encoder alone does to the original network at that frame (measured: `measure_rounding`,
    `golden/…/rounding_*.json`), whichever is larger. The graph's encoder is within 1e-4 of the encoder in float64, or
    within ten times the frame's largest rounding, whichever is larger."""
    model = cast(EfficientSAM3, build_model(load_recipe(RECIPE, [f"weights.seed={seed}"])).module)
    rounding = json.loads((GOLDEN / f"rounding_{clip}.json").read_text())
    figures = clip_figures(full_size(seed, *programs), model, GOLDEN / f"{clip}.npz", target, PROBES)
    for (frame, name), error in figures.by_frame.items():
        allowed = max(TOLERANCE, ROUNDING_MARGIN * rounding[frame].get(re.sub(r"_s\d+$", "", name), 0.0))
        assert error <= allowed, f"frame {frame}: {name} is off by {error:.1e}, allowed {allowed:.1e}"
    for (frame, name), error in figures.encoder.items():
        allowed = min(WIRING, max(TOLERANCE, ENCODER_MARGIN * max(rounding[frame].values())))
        assert error <= allowed, f"frame {frame}: the encoder's {name} is off by {error:.1e}, allowed {allowed:.1e}"
    assert figures.largest["memory_prompt_pos"] <= POSITION_TOLERANCE
    assert figures.largest["object_pointer_pos"] <= POSITION_TOLERANCE
    assert figures.largest["memory of the prompted frame"] <= TOLERANCE
    assert all(found == expected for found, expected in figures.choices)
    assert figures.pixels_equal >= 0.9999 * figures.pixels_compared
    assert figures.pixels_turned <= 1e-4 * 1008 * 1008
