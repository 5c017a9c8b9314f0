from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from samonnx.runtime.xmem_result import read_probabilities


def distribution(objects: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """[1 + objects, height, width] that sum to 1."""
    logits = torch.randn(1 + objects, height, width, generator=torch.Generator().manual_seed(seed))
    found: npt.NDArray[np.float32] = (2 * logits).softmax(0).numpy()
    return found


@pytest.mark.parametrize("objects", [1, 2, 3])
@pytest.mark.parametrize("size", [(33, 47), (9, 100), (12, 17)])
def test_masks_are_the_most_probable_after_the_originals_resizing(objects: int, size: tuple[int, int]) -> None:
    probabilities = distribution(objects, 24, 33)
    enlarged = F.interpolate(torch.from_numpy(probabilities)[:, None], size, mode="bilinear", align_corners=False)
    winner = enlarged[:, 0].argmax(0).numpy()
    result = read_probabilities(
        probabilities, list(range(objects)), tuple(range(10, 10 + objects)), frame_index=3, video_size=size[::-1]
    )
    expected = winner == np.arange(1, 1 + objects)[:, None, None]
    close = np.sort(enlarged[:, 0].numpy(), axis=0)
    decided = close[-1] - close[-2] > 1e-5
    np.testing.assert_array_equal(result.masks[:, decided], expected[:, decided])
    assert decided.mean() > 0.99
    assert result.masks.sum(axis=0).max() == 1


def test_rows_of_the_graph_are_put_in_the_order_of_the_objects() -> None:
    probabilities = distribution(3, 8, 8)
    result = read_probabilities(probabilities, [2, 0], (7, 4), frame_index=0, video_size=(8, 8))
    np.testing.assert_array_equal(result.probabilities, probabilities[[0, 3, 1]])
    np.testing.assert_array_equal(result.masks[0], probabilities[3] > probabilities[[0, 1]].max(0))


def test_of_equal_probabilities_the_background_has_the_pixel_then_the_object_that_came_first() -> None:
    probabilities = np.full((3, 4, 4), 1 / 3, dtype=np.float32)
    assert not read_probabilities(probabilities, [0, 1], (1, 2), frame_index=0, video_size=(4, 4)).masks.any()
    probabilities[0] = 0.1
    masks = read_probabilities(probabilities, [0, 1], (1, 2), frame_index=0, video_size=(4, 4)).masks
    assert masks[0].all()
    assert not masks[1].any()
    alone = np.full((2, 4, 4), 0.5, dtype=np.float32)
    assert not read_probabilities(alone, [0], (1,), frame_index=0, video_size=(4, 4)).masks.any()


def test_a_score_is_the_mean_probability_of_the_objects_pixels_and_0_without_any() -> None:
    probabilities = np.zeros((3, 4, 4), dtype=np.float32)
    probabilities[0], probabilities[2] = 1, 0
    probabilities[:, 0, 0], probabilities[:, 0, 1] = (0.1, 0.9, 0), (0.3, 0.7, 0)
    result = read_probabilities(probabilities, [0, 1], (1, 2), frame_index=0, video_size=(8, 8))
    np.testing.assert_allclose(result.scores, [0.8, 0])
    assert result.present.tolist() == [True, False]
    assert result.boxes[1].tolist() == [0, 0, 0, 0]
    assert result.searches == ()


def test_no_objects_make_an_empty_result() -> None:
    result = read_probabilities(np.ones((2, 4, 4), dtype=np.float32), [], (), frame_index=0, video_size=(6, 5))
    assert result.masks.shape == (0, 5, 6)
    assert result.scores.shape == (0,)
    assert result.boxes.shape == (0, 4)
