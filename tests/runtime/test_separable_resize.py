from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.separable_resize import BAND, Resize, bilinear, composed, cut

sides = st.integers(1, 300)


def noise(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def matrix(resize: Resize) -> npt.NDArray[np.float64]:
    dense = np.zeros((resize.new, resize.old))
    np.add.at(dense, (np.arange(resize.new)[:, None], resize.places), resize.weights)
    return dense


@settings(deadline=None, max_examples=60)
@given(old=sides, new=sides)
def test_an_axis_is_resized_as_torch_does(old: int, new: int) -> None:
    values = noise(old, 3)
    tensor = torch.from_numpy(values.T.copy())[None]
    expected = functional.interpolate(tensor, size=new, mode="linear", align_corners=False)[0].T
    np.testing.assert_allclose(bilinear(old, new).apply(values), expected.numpy(), atol=5e-7)


@pytest.mark.parametrize(("old", "new"), [(1024, 1800), (683, 1200), (1024, 4000), (1000, 333), (7, 1), (1, 7)])
def test_also_at_sizes_at_which_float32_rounds_the_places(old: int, new: int) -> None:
    values = noise(old, 2)
    tensor = torch.from_numpy(values.T.copy())[None]
    expected = functional.interpolate(tensor, size=new, mode="linear", align_corners=False)[0].T
    np.testing.assert_allclose(bilinear(old, new).apply(values), expected.numpy(), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(low=st.integers(1, 40), scale=st.integers(1, 5), data=st.data(), new=sides)
def test_enlarged_cut_and_resized_is_one_matrix(low: int, scale: int, data: st.DataObject, new: int) -> None:
    """The product, in real arithmetic."""
    part = data.draw(st.integers(1, low * scale))
    first, second = bilinear(low, low * scale), bilinear(part, new)
    both = composed(cut(first, part), second)
    assert (both.old, both.new) == (low, new)
    np.testing.assert_allclose(matrix(both), matrix(second) @ matrix(first)[:part], atol=1e-12)
    np.testing.assert_allclose(matrix(both).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("new", [1, BAND - 1, BAND, BAND + 1, 5 * BAND + 3])
def test_bands_are_the_matrix_piece_by_piece(new: int) -> None:
    resize = bilinear(37, new)
    assert [band.start for band in resize.bands] == list(range(0, new, BAND))
    assert resize.bands[-1].stop == new
    dense = np.zeros((new, 37), dtype=np.float32)
    for band in resize.bands:
        dense[band.start : band.stop, band.first : band.last] = band.weights
    np.testing.assert_array_equal(dense, matrix(resize).astype(np.float32))


def test_a_picture_of_the_same_size_stays_as_it_is() -> None:
    values = noise(50, 4)
    np.testing.assert_array_equal(bilinear(50, 50).apply(values), values)
