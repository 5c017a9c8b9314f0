from __future__ import annotations

import pytest

from samonnx.runtime.manifest import XMemInfo
from samonnx.runtime.xmem_proportions import proportions_note

WIDE = XMemInfo(10, 5, 10000, 128, 5, 30, 1, height=480, width=854)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (854, 480), (1280, 720), (640, 400)])
def test_videos_of_nearly_the_same_proportions_are_no_matter(width: int, height: int) -> None:
    assert proportions_note(WIDE, width=width, height=height) is None


def test_an_upright_video_gets_the_size_to_compile_for_with_the_same_short_side() -> None:
    note = proportions_note(WIDE, width=1080, height=1920)
    assert note is not None
    assert "1080 x 1920 pixels and is stretched to the network's frame of 854 x 480" in note
    assert "--set programs.track.height=853 --set programs.track.width=480" in note


def test_so_does_one_that_is_wider() -> None:
    note = proportions_note(WIDE, width=1000, height=400)
    assert note is not None
    assert "height=480 --set programs.track.width=1200" in note
