from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samonnx.cli import main as samonnx
from samonnx.exit_codes import ExitCode
from samonnx.runtime.prompts import Box, ObjectPrompts, Points
from samonnx.runtime.tracker import FrameResult, Tracker
from samonnx.runtime.video import open_frames
from samonnx.runtime.video_writer import VideoWriter
from samonnx.track import main
from tests.runtime.hand_made_artifact import build, clip


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "hand_made"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 45 x 31 pixels, odd on purpose; the file has 46 x 32."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, Fraction(24)) as writer:
        for frame in clip(6, 31, 45):
            writer.write(frame)
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def test_a_video_becomes_an_overlay_and_masks(
    artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, masks = tmp_path / "out.mp4", tmp_path / "masks"
    code = run(artifact, video, "--point", "5,6", "--object", 2, "--box", "20,5,40,20", "-o", out, "--masks-dir", masks)
    assert code == ExitCode.OK
    source = open_frames(out)
    assert (source.width, source.height, source.count, source.rate) == (46, 32, 6, Fraction(24))
    assert sorted(os.listdir(tmp_path)) == ["masks", "out.mp4"]
    frames = list(open_frames(video))
    prompts = {0: {1: ObjectPrompts(points=Points(((5.0, 6.0),), (1,))), 2: ObjectPrompts(box=Box(20, 5, 40, 20))}}
    written = read_masks(masks)
    assert len(written) == 12
    for result in Tracker(artifact, num_frames=6).track(frames, prompts):
        for number, mask in zip(result.objects, result.masks, strict=True):
            image = written[f"frame_{result.frame_index:05d}_object_{number}.png"]
            np.testing.assert_array_equal(image, mask.astype(np.uint8) * 255)
    summary = capsys.readouterr().out
    assert "6 frames, 46 x 32" in summary
    assert "wrote" in summary
    assert "out.mp4" in summary


def test_a_folder_of_images_of_any_size_works(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index, frame in enumerate(clip(11, 17, 23)):
        Image.fromarray(frame).save(tmp_path / "in" / f"{index}.jpg")
    assert run(artifact, tmp_path / "in", "--point", "5,6", "-o", tmp_path / "out", "--quiet") == ExitCode.OK
    source = open_frames(tmp_path / "out")
    assert (source.width, source.height, source.count) == (23, 17, 11)


def test_a_mask_file_is_a_prompt(artifact: Path, video: Path, tmp_path: Path) -> None:
    mask = np.zeros((32, 46), dtype=np.uint8)
    mask[4:14, 4:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    code = run(artifact, video, "--mask", tmp_path / "mask.png", "--masks-dir", tmp_path / "masks", "--quiet")
    assert code == ExitCode.OK
    assert len(read_masks(tmp_path / "masks")) == 6


def test_quiet_says_nothing(artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(artifact, video, "--point", "5,6", "-o", tmp_path / "out.mp4", "--quiet") == ExitCode.OK
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_max_frames_and_a_later_frame(artifact: Path, video: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    options = ("--max-frames", 4, "--threads", 1, "--target", "onnx", "--quiet", "--masks-dir", masks)
    assert run(artifact, video, "--frame", 2, "--point", "5,6", *options) == ExitCode.OK
    assert sorted(read_masks(masks)) == ["frame_00002_object_1.png", "frame_00003_object_1.png"]


def test_the_tracker_is_told_the_length_of_the_clip(artifact: Path, video: Path, tmp_path: Path) -> None:
    for frames in (5, 6):
        folder = tmp_path / str(frames)
        run(artifact, video, "--point", "5,6", "--max-frames", frames, "--masks-dir", folder, "--quiet")
    results = [
        list(Tracker(artifact, num_frames=frames).track(list(open_frames(video))[:frames], first_click()))
        for frames in (5, 6)
    ]
    for frames, result in zip((5, 6), results, strict=True):
        written = read_masks(tmp_path / str(frames))
        np.testing.assert_array_equal(written["frame_00004_object_1.png"] > 0, result[4].masks[0])


def first_click() -> dict[int, dict[int, ObjectPrompts]]:
    return {0: {1: ObjectPrompts(points=Points(((5.0, 6.0),), (1,)))}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "500,6"], "object 1: point (500, 6) lies outside the frame, which is 46 x 32 pixels"),
        (["--frame", "6", "--point", "5,6"], "there is a prompt on frame 6, but"),
        (["--point", "5,6"] * 5, "5 points on one object, but the graph has 4 prompt places"),
        (["--box", "1,1,9,9", "--box", "2,2,9,9"], "object 1 has 2 boxes on frame 0; expected one"),
        (["--mask", "nowhere.png"], "mask nowhere.png does not exist"),
        (["--point", "5,6", "--target", "web"], "was not compiled for target 'web'; it has: onnx, ort-cpu"),
    ],
)
def test_errors_are_one_line_exit_code_1_and_leave_nothing(
    artifact: Path,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert run(artifact, video, *options, "-o", tmp_path / "out.mp4", "--masks-dir", tmp_path / "m") == ExitCode.ERROR
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert os.listdir(tmp_path) == []


def test_a_mask_beside_a_point_or_of_another_size_is_an_error(
    artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((5, 5), 255, dtype=np.uint8)).save(tmp_path / "m.png")
    options = ("--mask", tmp_path / "m.png", "-o", tmp_path / "out.mp4")
    assert run(artifact, video, *options, "--point", "1,1") == ExitCode.ERROR
    assert "object 1, frame 0: a mask prompt stands alone" in capsys.readouterr().err
    assert run(artifact, video, *options) == ExitCode.ERROR
    assert "object 1: the mask is 5 x 5 pixels, the frame 46 x 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to track: give at least one prompt"),
        (["--point", "5"], "expected X,Y or X,Y,LABEL with label 1 or 0, for example 320,240,1; found '5'"),
        (["--point", "5,6,7"], "expected X,Y or X,Y,LABEL with label 1 or 0"),
        (["--box", "1,2,3"], "expected X0,Y0,X1,Y1 (left, top, right, bottom)"),
        (["--box", "9,2,3,4"], "is empty: expected x0 < x1"),
        (["--frame", "-1"], "expected a whole number of at least 0"),
        (["--point", "1,1", "--max-frames", "0"], "expected a whole number of at least 1; found '0'"),
        (["--frame", "9", "--point", "1,1", "--max-frames", "3"], "prompt on frame 9, but --max-frames 3 ends before"),
        (["--pont", "1,1"], "unrecognized arguments: --pont"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    artifact: Path, video: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(artifact, video, *options, "-o", "out.mp4") == ExitCode.USAGE
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_nowhere_to_write_is_wrong_usage(artifact: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(artifact, video, "--point", "5,6") == ExitCode.USAGE
    assert "nowhere to write: give -o OVERLAY.mp4, --masks-dir FOLDER, or both" in capsys.readouterr().err


def test_help_shows_an_example_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == ExitCode.OK
    text = capsys.readouterr().out
    assert "samonnx track dist/efficientsam3_m0_9 clip.mp4 --point 320,240 -o overlay.mp4" in text
    assert "130 interrupted" in text


def test_it_is_a_subcommand_and_a_module(artifact: Path, video: Path, tmp_path: Path) -> None:
    options = [str(artifact), str(video), "--point", "5,6", "--quiet", "-o"]
    assert samonnx(["track", *options, str(tmp_path / "a.mp4")]) == ExitCode.OK
    subprocess.run([sys.executable, "-m", "samonnx.track", *options, str(tmp_path / "b.mp4")], check=True)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_it_does_not_import_torch(artifact: Path, video: Path, tmp_path: Path) -> None:
    options = [str(artifact), str(video), "--point", "5,6", "--quiet", "-o", str(tmp_path / "a.mp4")]
    program = (
        f"import sys; from samonnx.track import main; assert main({options!r}) == 0; "
        "print(sorted({'torch', 'onnx', 'pydantic', 'yaml', 'onnx_ir'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_interrupt_leaves_nothing_and_keeps_the_earlier_output(
    artifact: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"earlier")
    original = Tracker.step

    def interrupted(tracker: Tracker, *arguments: object) -> FrameResult:
        if tracker.next_frame == 3:
            raise KeyboardInterrupt
        return original(tracker, *arguments)  # type: ignore[arg-type]  # passed through as they came

    monkeypatch.setattr(Tracker, "step", interrupted)
    code = run(artifact, video, "--point", "5,6", "-o", tmp_path / "out.mp4", "--masks-dir", tmp_path / "masks")
    assert code == ExitCode.INTERRUPTED
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"


def test_the_input_is_never_overwritten(artifact: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = video.read_bytes()
    assert run(artifact, video, "--point", "5,6", "-o", video) == ExitCode.ERROR
    assert "is the input; give another name" in capsys.readouterr().err
    assert video.read_bytes() == before


def test_a_folder_that_is_no_artifact_is_an_error(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, video, "--point", "5,6", "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    assert "has no manifest.json, so it is not an artifact folder" in capsys.readouterr().err


def test_a_file_that_is_no_video_is_an_error(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"nonsense")
    assert run(artifact, tmp_path / "clip.mp4", "--point", "5,6", "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    assert "cannot be read as a video" in capsys.readouterr().err
