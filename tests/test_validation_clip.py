from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samonnx.runtime.prompts import Box, PromptError, Prompts
from samonnx.seeded import seeded_frame
from samonnx.validation_clip import synthetic_clip, video_clip
from samonnx.verify_tracked import clip_prompts

BOX = Prompts(boxes=(Box(1, 2, 5, 6),))


def test_the_synthetic_clip_is_that_of_compiling_in_8_bits_with_the_same_click() -> None:
    clip = synthetic_clip(32, 3, {})
    frames = list(clip.frames)
    assert (clip.name, clip.width, clip.height, clip.count, clip.first) == ("synthetic", 32, 32, 3, 0)
    assert [(frame.dtype, frame.shape) for frame in frames] == [(np.dtype(np.uint8), (32, 32, 3))] * 3
    for t, frame in enumerate(frames):
        assert np.abs(frame.transpose(2, 0, 1) / 255 - seeded_frame(t, 32)).max() <= 0.5 / 255 + 1e-6
    click = clip.prompts[0].points
    expected = clip_prompts(32)[0]
    assert click is not None
    np.testing.assert_allclose(click.coordinates, expected.coords)
    assert click.labels == tuple(expected.labels)


def test_prompts_replace_the_click_and_say_where_tracking_begins() -> None:
    clip = synthetic_clip(32, 9, {4: BOX, 2: BOX})
    assert (clip.first, set(clip.prompts)) == (2, {2, 4})


def test_a_video_is_cut_at_the_limit(tmp_path: Path) -> None:
    for t in range(4):
        Image.new("RGB", (20, 10), (t, 0, 0)).save(tmp_path / f"{t}.png")
    whole, cut, beyond = (video_clip(tmp_path, limit, {0: BOX}) for limit in (None, 2, 9))
    assert (whole.count, cut.count, beyond.count) == (4, 2, 4)
    assert [int(frame[0, 0, 0]) for frame in cut.frames] == [0, 1]
    assert (whole.width, whole.height, whole.kind) == (20, 10, "images")


def test_a_prompt_beyond_the_last_frame_is_refused() -> None:
    clip = synthetic_clip(32, 3, {0: BOX})
    clip.check_length(2, 3)
    clip.check_length(5, None)
    with pytest.raises(PromptError, match=r"a prompt on frame 3, but the clip has 3 frames \(0 to 2\)"):
        clip.check_length(3, 3)
