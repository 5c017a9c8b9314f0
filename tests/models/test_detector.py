"""What logits and scores of the detector mean."""

from __future__ import annotations

import torch

from samonnx.models.detector import Detector
from tests.tiny_model import tiny_model

CLASS = torch.tensor([[-12.0, -3.0, 0.0, 2.0, 12.0]])
PRESENCE = torch.tensor([1.5])
JOINT = 1 / (1 + torch.exp(-CLASS.double())) / (1 + torch.exp(-PRESENCE.double()))


def detector(joint: bool) -> Detector:
    return tiny_model(f"pins.detector.joint_box_scores={str(joint).lower()}").detector


def test_the_image_models_logit_is_the_classes_own_and_the_score_is_joint() -> None:
    logits, scores = detector(joint=False).scored(CLASS, PRESENCE)
    assert torch.equal(logits, CLASS)
    torch.testing.assert_close(scores.double(), JOINT, rtol=1e-6, atol=0)


def test_the_video_models_logit_is_that_of_the_joint_probability_at_least_a_thousandth() -> None:
    logits, scores = detector(joint=True).scored(CLASS, PRESENCE)
    odds = JOINT.clamp(min=1e-3) / (1 - JOINT)
    torch.testing.assert_close(logits.double(), odds.log(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores, logits.sigmoid())
    shown = JOINT > 2e-3
    torch.testing.assert_close(scores.double()[shown], JOINT[shown], rtol=1e-5, atol=0)
    assert 0.9e-3 < float(scores.min()) < 1.1e-3


def test_a_certain_joint_probability_has_a_finite_logit() -> None:
    certain = torch.full((1, 2), 50.0)
    logits, scores = detector(joint=True).scored(certain, torch.tensor([60.0]))
    assert torch.isfinite(logits).all()
    assert float(logits.max()) <= 10
    assert float(scores.max()) <= 1
