from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from samonnx.runtime import video_writer
from samonnx.runtime.video import VideoError, open_frames
from samonnx.runtime.video_writer import FrameWriter, ImageFolderWriter, VideoWriter, frame_writer
from tests.runtime.hand_made_artifact import clip


@pytest.mark.parametrize(("height", "width"), [(30, 44), (31, 44), (30, 45), (31, 45), (3, 5)])
def test_odd_sizes_are_padded_by_one(tmp_path: Path, height: int, width: int) -> None:
    with VideoWriter(tmp_path / "clip.mp4", Fraction(25)) as writer:
        for frame in np.full((3, height, width, 3), 120, dtype=np.uint8):
            writer.write(frame)
    source = open_frames(tmp_path / "clip.mp4")
    assert (source.height, source.width, source.count) == (height + height % 2, width + width % 2, 3)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(1, 2), Fraction(90000), Fraction(123457, 4321)])
@pytest.mark.parametrize("codecs", [("libx264", "mpeg4"), ("mpeg4",)])
def test_any_frame_rate_can_be_written_with_either_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: Fraction, codecs: tuple[str, ...]
) -> None:
    monkeypatch.setattr(video_writer, "CODECS", codecs)
    with VideoWriter(tmp_path / "clip.mp4", rate) as writer:
        for frame in clip(3):
            writer.write(frame)
    source = open_frames(tmp_path / "clip.mp4")
    assert source.count == 3
    if rate == Fraction(30000, 1001):
        assert source.rate == rate
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == {"libx264": "h264"}.get(codecs[0], codecs[0])


def test_a_name_without_suffix_is_a_folder_of_images(tmp_path: Path) -> None:
    with frame_writer(tmp_path / "out", Fraction(25)) as writer:
        for frame in clip(2):
            writer.write(frame)
    assert sorted(os.listdir(tmp_path / "out")) == ["frame_00000.png", "frame_00001.png"]
    for frame, original in zip(open_frames(tmp_path / "out"), clip(2), strict=True):
        np.testing.assert_array_equal(frame, original)


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with frame_writer(tmp_path / "out", Fraction(25)) as writer:
        writer.write(clip(1)[0])
    assert os.listdir(tmp_path / "out") == ["frame_00000.png"]


def writers(folder: Path) -> dict[str, Callable[[], FrameWriter]]:
    return {
        "video": lambda: VideoWriter(folder / "out.mp4", Fraction(25)),
        "images": lambda: ImageFolderWriter(folder / "out"),
    }


@pytest.mark.parametrize("kind", ["video", "images"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("frames", [0, 2])
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, kind: str, error: type[BaseException], frames: int
) -> None:
    def interrupted() -> None:
        with writers(tmp_path)[kind]() as writer:
            for frame in clip(frames):
                writer.write(frame)
            raise error

    with pytest.raises(error):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_interrupted_write_leaves_the_earlier_video(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"earlier")

    def interrupted() -> None:
        with VideoWriter(tmp_path / "out.mp4", Fraction(25)) as writer:
            writer.write(clip(1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", Fraction(25)) as writer:
        writer.write(clip(1)[0])
        assert not (tmp_path / "out.mp4").exists()
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    for kind, open_writer in writers(tmp_path).items():

        def write_one(opened: Callable[[], FrameWriter] = open_writer) -> None:
            with opened() as writer:
                writer.write(clip(1)[0])

        with pytest.raises(VideoError, match=r"cannot write .*out.*No space left on device"):
            write_one()
        assert os.listdir(tmp_path) == [], kind


def test_places_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"cannot write .*out\.mp4: folder .*no does not exist"):
        frame_writer(tmp_path / "no" / "out.mp4", Fraction(25))
    with pytest.raises(VideoError, match=r"expected a name that ends in \.mp4, \.mov, \.mkv, \.avi, or one without"):
        frame_writer(tmp_path / "out.gif", Fraction(25))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    with pytest.raises(VideoError, match="it is a folder with something in it; give a new or an empty folder"):
        frame_writer(tmp_path / "taken", Fraction(25))
    (tmp_path / "plain").write_text("")
    with pytest.raises(VideoError, match="it is a file; give a new or an empty folder"):
        frame_writer(tmp_path / "plain", Fraction(25))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="a folder of that name is there"):
        frame_writer(tmp_path / "folder.mp4", Fraction(25))
