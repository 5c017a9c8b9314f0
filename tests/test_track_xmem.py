"""`samonnx track` with XMem: masks are followed, and what needs SAM or a detector says so."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samonnx.exit_codes import ExitCode
from samonnx.runtime.prompts import MaskPrompt, Prompts
from samonnx.runtime.video import open_frames
from samonnx.runtime.video_writer import VideoWriter
from samonnx.runtime.xmem_tracker import XMemTracker
from samonnx.track import main
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_xmem import build as build_xmem


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 46 x 32 pixels."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, Fraction(24)) as writer:
        for frame in clip(6, 32, 46):
            writer.write(frame)
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def xmem_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XMem alone."""
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build_xmem(folder, start=False)
    return folder


def test_a_mask_is_followed_by_xmem(
    xmem_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted = np.zeros((32, 46), dtype=np.uint8)
    painted[4:14, 4:20] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "-o", tmp_path / "out.mp4", "--masks-dir", tmp_path / "masks")
    assert run(xmem_artifact, video, *options) == ExitCode.OK
    written = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "masks").iterdir()}
    prompts = {0: {1: Prompts(mask=MaskPrompt(painted > 0))}}
    for result in XMemTracker(xmem_artifact).track(video, prompts):
        np.testing.assert_array_equal(written[f"frame_{result.frame_index:05d}_object_1.png"] > 0, result.masks[0])
    assert len(written) == 6
    assert open_frames(tmp_path / "out.mp4").count == 6
    assert "6 frames, 46 x 32" in capsys.readouterr().out


def test_a_video_that_is_stretched_is_said_once_with_what_to_compile(
    xmem_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The artifact's frame is 32 x 24."""
    Image.fromarray(clip(1, 40, 20)[0]).save(tmp_path / "tall.png")
    painted = np.zeros((40, 20), dtype=np.uint8)
    painted[10:30, 5:15] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "--masks-dir", tmp_path / "masks")
    assert run(xmem_artifact, tmp_path / "tall.png", *options) == ExitCode.OK
    said = capsys.readouterr().err
    assert said.count("the video is 20 x 40 pixels and is stretched to the network's frame of 32 x 24") == 1
    assert "--set programs.track.height=48 --set programs.track.width=24" in said


def test_a_click_on_xmem_alone_says_what_to_give_before_anything_is_run(
    xmem_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(xmem_artifact, video, "--point", "5,6", "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    said = capsys.readouterr().err
    assert "a click needs SAM to find the object" in " ".join(said.split())
    assert "--mask FILE" in said
    assert "recipes/sam_xmem.yaml" in said
    assert run(xmem_artifact, video, "--text", "a dog", "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    assert "words need a detector" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
