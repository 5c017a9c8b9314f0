from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.automatic_masks.mask_cutting import CutMask, MaskCutter
from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.manifest import PreprocessingInfo

Floats = npt.NDArray[np.float32]

INFO = PreprocessingInfo(64, fit="pad")
LOW = 16


def cutter(fit: FrameFit, offset: float) -> MaskCutter:
    return MaskCutter(*fit.mask_resize((LOW, LOW)), offset)


def whole(cut: CutMask, height: int, width: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), dtype=bool)
    mask[cut.top : cut.top + cut.pixels.shape[0], cut.left : cut.left + cut.pixels.shape[1]] = cut.pixels
    return mask


def logits_with_a_blob(seed: int) -> Floats:
    """Noise in a part, far below everywhere else."""
    random = np.random.default_rng(seed)
    logits = np.full((LOW, LOW), -20, dtype=np.float32)
    (top, left), (height, width) = random.integers(0, LOW, 2), random.integers(0, LOW, 2)
    part = logits[top : top + height, left : left + width]
    part[...] = random.normal(0, 3, part.shape)
    return logits


@settings(deadline=None, max_examples=150)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    seed=st.integers(0, 9999),
    offset=st.sampled_from([0, 0.5, 1]),
)
def test_a_window_in_bands_gives_what_the_whole_mask_gives(height: int, width: int, seed: int, offset: float) -> None:
    if min(height, width) * 64 < max(height, width):
        return  # refused, see test_frame_fit
    fit, logits = FrameFit.of(INFO, height, width), logits_with_a_blob(seed)
    expected = fit.original_logits(logits).astype(np.float64)
    if min(np.abs(expected - t).min() for t in (-offset, 0, offset)) < 1e-5:
        return  # two float32 products of other lengths may fall on other sides
    cut = cutter(fit, offset).cut(logits)
    np.testing.assert_array_equal(whole(cut, height, width), expected > 0)
    assert (cut.core, cut.reach) == ((expected > offset).sum(), (expected > -offset).sum())


def test_one_cutter_cuts_many_masks() -> None:
    """In the same memory, which holds what was there before."""
    fit = FrameFit.of(INFO, 90, 120)
    shared = cutter(fit, 1.0)
    for seed in range(20):
        logits = logits_with_a_blob(seed)
        cut = shared.cut(logits)
        np.testing.assert_array_equal(whole(cut, 90, 120), whole(cutter(fit, 1.0).cut(logits), 90, 120))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_mask_without_anything_has_no_pixels(offset: float) -> None:
    cut = cutter(FrameFit.of(INFO, 90, 120), offset).cut(np.full((LOW, LOW), -5, np.float32))
    assert (cut.core, cut.reach, cut.pixels.size) == (0, 0, 0)


def test_what_lies_in_the_padding_is_nothing() -> None:
    logits = np.full((LOW, LOW), -9, dtype=np.float32)
    logits[14:] = 9  # the picture fills 32 of 64 rows
    cut = cutter(FrameFit.of(INFO, 60, 120), 1.0).cut(logits)
    assert (cut.core, cut.reach, cut.pixels.size) == (0, 0, 0)


def test_only_a_window_of_a_small_mask_is_enlarged() -> None:
    logits = np.full((LOW, LOW), -9, dtype=np.float32)
    logits[3, 4] = 9
    cut = cutter(FrameFit.of(INFO, 1200, 1600), 1.0).cut(logits)
    assert cut.pixels.any()
    assert cut.pixels.size < 0.1 * 1200 * 1600


def test_a_plateau_at_the_lower_threshold_is_not_above_it() -> None:
    cut = cutter(FrameFit.of(INFO, 64, 64), 1.0).cut(np.full((LOW, LOW), -1, np.float32))
    assert (cut.core, cut.reach, bool(cut.pixels.any())) == (0, 0, False)
