"""The image predictor and automatic masks on a compiled SAM: what the eager model and the original's algorithm give."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from samonnx.build_model import build_model
from samonnx.models.sam import Sam
from samonnx.models.sam_geometry import original_masks, to_network
from samonnx.recipe import load_recipe
from samonnx.runtime.automatic_masks.generator import AutomaticMasks
from samonnx.runtime.automatic_masks.parameters import MaskParameters
from samonnx.runtime.image_predictor import ImagePredictor
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompts import Box, Points, Prompts
from samonnx.seeded import seeded_frame
from tests.tiny_model import ROOT

Artifacts = Callable[..., Path]

RECIPE = ROOT / "recipes" / "sam_tiny.yaml"
WIDTH, HEIGHT, SIZE, LOW = 150, 90, 128, 32


def picture() -> npt.NDArray[np.uint8]:
    image = seeded_frame(0, WIDTH)[:, :HEIGHT]
    return np.ascontiguousarray((255 * image).astype(np.uint8).transpose(1, 2, 0))


@cache
def model() -> Sam:
    return cast(Sam, build_model(load_recipe(RECIPE)).module)


@pytest.fixture(scope="module")
def predictor(artifacts: Artifacts) -> ImagePredictor:
    return ImagePredictor(artifacts(recipe=RECIPE), threads=1)


def clicks(*points: tuple[float, float]) -> Prompts:
    return Prompts(points=Points(points, (1,) * len(points)))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("with_earlier", [True, False])
def test_masks_of_points_and_boxes_are_those_of_the_eager_model(
    predictor: ImagePredictor, multimask: bool, with_earlier: bool
) -> None:
    prompts = (
        clicks((40, 30)),
        clicks((40, 30), (120, 70)),
        Prompts(points=Points(((50, 50),), (0,)), boxes=(Box(20, 10, 100, 80),)),
    )
    places = [[(40, 30)], [(40, 30), (120, 70)], [(20, 10), (100, 80), (50, 50)]]
    labels = torch.tensor([[1, -1, -1, -1], [1, 1, -1, -1], [2, 3, 0, -1]], dtype=torch.int32)
    coords = torch.zeros(3, 4, 2)
    for row, points in zip(coords, places, strict=True):
        row[: len(points)] = to_network(torch.tensor(points, dtype=torch.float64), (HEIGHT, WIDTH), SIZE)
    earlier = np.random.default_rng(0).standard_normal((3, 1, LOW, LOW), dtype=np.float32)
    encoded = predictor.encode_image(picture())
    with torch.inference_mode():
        image = torch.from_numpy(network_image(picture(), predictor.manifest.seeing(), kind="images"))
        found = model().predict(
            model().encode_image(image), coords, labels, torch.from_numpy(earlier), torch.full((3,), with_earlier)
        )
    expected = found.of_mode(multimask)
    predicted = predictor.predict(encoded, prompts, multimask=multimask, earlier=earlier if with_earlier else None)
    np.testing.assert_allclose(predicted.low_res_logits, expected.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(predicted.ious, expected.ious.numpy(), atol=1e-4)
    in_the_picture = original_masks(expected.logits, (HEIGHT, WIDTH), SIZE)
    np.testing.assert_allclose(predicted.logits(), in_the_picture.numpy(), atol=1e-4)


def test_automatic_masks_are_those_of_their_points(predictor: ImagePredictor) -> None:
    """Without filters, since seeded weights make masks that none would let pass."""
    chosen = MaskParameters(
        points_per_side=3, points_per_batch=4, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )
    found = AutomaticMasks(predictor, chosen).generate(picture()).masks
    assert len(found) == 27
    encoded = predictor.encode_image(picture())
    for index, (x, y) in enumerate(found.points):
        alone = predictor.predict(encoded, [clicks((x, y))])
        (candidate,) = np.flatnonzero(np.abs(alone.ious[0] - found.predicted_ious[index]) < 1e-5)
        logits = alone.logits()[0, candidate]
        differs = found.mask(index) != (logits > 0)
        assert np.abs(logits[differs]).max(initial=0) < 1e-5  # other batches, other rounding
