from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.detections import DetectionError, Detections, detect

Outputs = dict[str, npt.NDArray[np.generic]]

seeds = st.integers(0, 10_000)
sides = st.integers(1, 60)


def outputs(seed: int = 0, queries: int = 9, low: int = 8) -> Outputs:
    """Random outputs of the detector; masks are blots that overlap here and there."""
    random = np.random.default_rng(seed)
    corner, size = random.uniform(0, 0.6, (1, queries, 2)), random.uniform(0.05, 0.4, (1, queries, 2))
    coarse = random.normal(0, 3, (queries, 3, 3))
    masks = np.kron(coarse, np.ones((3, 3)))[None, :, :low, :low] + random.normal(0, 0.5, (1, queries, low, low))
    return {
        "boxes": np.concatenate([corner, corner + size], axis=2).astype(np.float32),
        "logits": random.normal(0, 1, (1, queries)).astype(np.float32),
        "presence": random.normal(0, 2, 1).astype(np.float32),
        "scores": random.uniform(0, 1, (1, queries)).astype(np.float32),
        "masks": masks.astype(np.float32),
        "semantic_mask": random.normal(0, 1, (1, 1, low, low)).astype(np.float32),
    }


def found(given: Outputs, threshold: float = 0.5, nms: float | None = None) -> Detections:
    return detect(given, width=40, height=30, threshold=threshold, nms=nms)


def masks_iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    union = int(np.logical_or(one, other).sum())
    return int(np.logical_and(one, other).sum()) / max(union, 1)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, width=sides, height=sides, threshold=st.floats(0, 1, width=32))
def test_detections_are_those_of_the_originals_image_processor(
    seed: int, width: int, height: int, threshold: float
) -> None:
    given_outputs = outputs(seed)
    detections = detect(given_outputs, width=width, height=height, threshold=threshold)
    boxes, scores, masks = (torch.from_numpy(given_outputs[name]) for name in ("boxes", "scores", "masks"))
    keep = scores > threshold
    pixels = boxes[keep] * torch.tensor([width, height, width, height])
    expected = masks[keep]
    if len(expected):
        expected = functional.interpolate(expected[:, None], (height, width), mode="bilinear", align_corners=False)
    else:
        expected = torch.zeros(0, 1, height, width)
    order = np.argsort(detections.indices)
    np.testing.assert_array_equal(detections.indices[order], torch.nonzero(keep[0])[:, 0].numpy())
    np.testing.assert_array_equal(detections.scores[order], scores[keep].numpy())
    np.testing.assert_array_equal(detections.boxes[order], pixels.numpy())
    # where rounding of the resize could decide, either answer is right
    sure = (expected[:, 0].abs() > 1e-4).numpy()
    np.testing.assert_array_equal(detections.masks[order][sure], (expected.sigmoid() > 0.5)[:, 0].numpy()[sure])
    np.testing.assert_array_equal(detections.mask_logits, given_outputs["masks"][0, detections.indices])


def test_shapes_and_dtypes_are_as_documented() -> None:
    detections = found(outputs(), threshold=0.3)
    n = len(detections)
    assert 0 < n < 9
    assert (detections.width, detections.height) == (40, 30)
    arrays = {"boxes": ((n, 4), "float32"), "scores": ((n,), "float32"), "masks": ((n, 30, 40), "bool")}
    arrays |= {"mask_logits": ((n, 8, 8), "float32"), "indices": ((n,), "int64"), "semantic_mask": ((30, 40), "bool")}
    for name, (shape, dtype) in arrays.items():
        array = getattr(detections, name)
        assert (array.shape, str(array.dtype)) == (shape, dtype), name


def test_the_best_comes_first_and_of_equal_ones_the_earlier_query() -> None:
    given_outputs = outputs(queries=4)
    given_outputs["scores"] = np.array([[0.6, 0.9, 0.6, 0.95]], dtype=np.float32)
    assert found(given_outputs).indices.tolist() == [3, 1, 0, 2]


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    given_outputs = outputs(queries=3)
    given_outputs["scores"] = np.array([[0.5, 0.7, np.nextafter(np.float32(0.5), np.float32(1))]], dtype=np.float32)
    assert found(given_outputs, threshold=0.5).indices.tolist() == [1, 2]
    assert found(given_outputs, threshold=0.7).indices.tolist() == []


def test_nothing_found_is_empty_and_says_what_the_best_score_was() -> None:
    given_outputs = outputs(queries=3)
    given_outputs["scores"] = np.array([[0.1, 0.3, 0.2]], dtype=np.float32)
    detections = found(given_outputs, nms=0.1)
    assert len(detections) == 0
    assert detections.masks.shape == (0, 30, 40)
    assert detections.boxes.shape == (0, 4)
    assert detections.best_score == pytest.approx(0.3)
    assert detections.suppressed == 0


@pytest.mark.parametrize("logit", [-1000.0, -3.0, 0.0, 2.0, 1000.0])
def test_presence_is_a_probability(logit: float) -> None:
    given_outputs = outputs() | {"presence": np.array([logit], dtype=np.float32)}
    assert found(given_outputs).presence == pytest.approx(torch.tensor(logit).sigmoid().item(), abs=1e-6)


def test_the_semantic_mask_is_cut_at_the_size_of_the_image() -> None:
    logits = np.full((1, 1, 8, 8), -1, dtype=np.float32)
    logits[..., :4] = 1
    mask = found(outputs() | {"semantic_mask": logits}).semantic_mask
    assert mask[:, :20].all()
    assert not mask[:, 20:].any()


@settings(deadline=None, max_examples=50)
@given(seed=seeds, width=sides, height=sides, stretch=st.integers(1, 5))
def test_boxes_grow_with_the_image(seed: int, width: int, height: int, stretch: int) -> None:
    one = detect(outputs(seed), width=width, height=height, threshold=0.2)
    other = detect(outputs(seed), width=width * stretch, height=height, threshold=0.2)
    np.testing.assert_allclose(other.boxes[:, ::2], one.boxes[:, ::2] * stretch, rtol=1e-6)
    np.testing.assert_array_equal(other.boxes[:, 1::2], one.boxes[:, 1::2])


@settings(deadline=None, max_examples=100)
@given(seed=seeds, limit=st.floats(0, 1))
def test_suppression_is_the_originals(seed: int, limit: float) -> None:
    """The original's way, in words: go through by score; leave out who overlaps one that was kept by more."""
    everything, kept = found(outputs(seed, 20), 0.3), found(outputs(seed, 20), 0.3, limit)
    low = everything.mask_logits > 0
    expected: list[int] = []
    for place in range(len(everything)):
        if all(np.float32(masks_iou(low[place], low[other])) <= np.float32(limit) for other in expected):
            expected.append(place)
    assert kept.indices.tolist() == everything.indices[expected].tolist()
    assert kept.suppressed == len(everything) - len(kept)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, limit=st.floats(0, 1))
def test_suppression_never_leaves_out_the_best_and_twice_is_as_good_as_once(seed: int, limit: float) -> None:
    everything, once = found(outputs(seed, 20), 0.1), found(outputs(seed, 20), 0.1, limit)
    assert once.indices[0] == everything.indices[0]
    only = {name: array[:, once.indices] for name, array in outputs(seed, 20).items() if name in ("boxes", "scores")}
    again = found({**outputs(seed, 20), **only, "masks": once.mask_logits[None]}, 0.1, limit)
    assert again.suppressed == 0
    assert again.scores.tolist() == once.scores.tolist()


def test_equal_masks_are_doubles_and_empty_ones_are_not() -> None:
    given_outputs = outputs(queries=4)
    given_outputs["scores"] = np.array([[0.6, 0.9, 0.7, 0.8]], dtype=np.float32)
    masks = np.full((1, 4, 8, 8), -1, dtype=np.float32)
    masks[0, :2, 2:5, 2:5] = 1
    detections = found(given_outputs | {"masks": masks}, nms=0.99)
    assert detections.indices.tolist() == [1, 3, 2]
    assert detections.suppressed == 1


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_limit_that_is_no_share_is_refused(value: float) -> None:
    with pytest.raises(DetectionError, match=f"threshold is {value:g}; expected a number from 0 to 1"):
        found(outputs(), threshold=value)
    with pytest.raises(DetectionError, match=f"nms is {value:g}; expected a number from 0 to 1"):
        found(outputs(), nms=value)


def test_outputs_of_another_program_are_refused() -> None:
    given_outputs = {f"detection.{name}" if name == "masks" else name: a for name, a in outputs().items()}
    with pytest.raises(DetectionError) as caught:
        found(given_outputs)
    assert "outputs without masks: expected those of `segment` or `ground`" in str(caught.value)
    assert "detection.masks" in str(caught.value)
