"""The full-size detector against the original project's tensors, every stage of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import FullSize
from .detector_stages import Reference, eager_stages, exact_stages, figures, graph_stages, reference_model

GOLDEN = Path(__file__).parents[2] / "golden" / "efficientsam3_m0_9"
TOLERANCE = 1e-4
ROUNDING_MARGIN = 1.5
"""The reference file carries float32 rounding of about the measured size."""

OUTPUTS = {
    "output/pred_logits_image_model",
    "output/presence_logit",
    "output/prob",
    "output/pred_boxes_xyxy",
    "output/pred_masks_first20_s8",
    "output/pred_masks_s23",
    "output/semantic_seg_s4",
}


def held(errors: dict[str, float], allowed: dict[str, float] | None = None) -> None:
    for name, error in errors.items():
        bound = max(TOLERANCE, ROUNDING_MARGIN * (allowed or {}).get(name, 0.0))
        assert error <= bound, f"{name} is off by {error:.1e}, allowed {bound:.1e}"


@pytest.mark.full_size
@pytest.mark.parametrize("file", ["detector_text", "geometry_box"])
def test_every_stage_in_eager_pytorch_is_the_originals(file: str) -> None:
    """Within 1e-4 of each tensor's largest magnitude; queries also after their mean has been subtracted."""
    reference = Reference(GOLDEN / f"{file}.npz")
    errors = figures(reference.tensors, eager_stages(reference_model(reference), reference.feeds(boxes=4, points=4)))
    left = {name for name in reference.tensors if name not in errors and not name.startswith("meta/")}
    assert left <= {"text/token_ids", "geometry/boxes_cxcywh", "geometry/box_labels"}
    held(errors)


@pytest.mark.full_size
def test_every_stage_with_the_plain_weights_is_the_originals_as_far_as_float32_determines_it() -> None:
    """In float64, so that it is the same on every CPU: within 1e-4, or within what the reference's own float32
    rounding, as its trunk map shows it, amounts to in each tensor (measured: `measure_detector_rounding`,
    `golden/…/rounding_detector_text_plain.json`)."""
    reference = Reference(GOLDEN / "detector_text_plain.npz")
    errors = figures(reference.tensors, exact_stages(reference_model(reference), reference.feeds(boxes=4, points=4)))
    held(errors, json.loads((GOLDEN / "rounding_detector_text_plain.json").read_text()))


@pytest.mark.full_size
@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
@pytest.mark.parametrize("file", ["detector_text", "geometry_box"])
def test_the_emitted_graph_gives_the_originals_detections_in_onnx_runtime(
    full_size: FullSize, file: str, target: str
) -> None:
    """Logits, boxes, masks, presence, semantic mask and the stages between, within 1e-4."""
    reference = Reference(GOLDEN / f"{file}.npz")
    errors = figures(reference.tensors, graph_stages(full_size(0), target, reference.feeds(boxes=4, points=4)))
    assert set(errors) >= OUTPUTS | {"decoder/hs_last, centred", "encoder/memory_s5", "prompt/features"}
    held(errors)
