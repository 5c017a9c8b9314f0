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
from samonnx.runtime.frame_result import FrameResult, Search
from samonnx.runtime.prompts import Box, Points, Prompts
from samonnx.runtime.tracker import Tracker
from samonnx.runtime.video import open_frames
from samonnx.runtime.video_writer import VideoWriter
from samonnx.track import describe_search, main
from tests.runtime.hand_made_artifact import build, clip
from tests.runtime.hand_made_both import build as build_both
from tests.runtime.hand_made_vocabulary import write_vocabulary


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
    code = run(artifact, video, "--point", "5,6", "--object", 2, "--box", "20,5,20,15", "-o", out, "--masks-dir", masks)
    assert code == ExitCode.OK
    source = open_frames(out)
    assert (source.width, source.height, source.count, source.rate) == (46, 32, 6, Fraction(24))
    assert sorted(os.listdir(tmp_path)) == ["masks", "out.mp4"]
    frames = list(open_frames(video))
    prompts = {0: {1: Prompts(points=Points(((5.0, 6.0),), (1,))), 2: Prompts(boxes=(Box(20, 5, 40, 20),))}}
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


def test_the_porting_guides_command_line_works_and_corners_are_the_same_box(
    artifact: Path, video: Path, tmp_path: Path
) -> None:
    """Left, top, width, height, as in SAMURAI's scripts; and the provider by its short name."""
    boxes = {"sized": ("--box", "20,5,20,15"), "corners": ("--box-corners", "20,5,40,20")}
    for name, box in boxes.items():
        run(artifact, video, *box, "--provider", "cpu", "--masks-dir", tmp_path / name, "--quiet")
    sized, corners = (read_masks(tmp_path / name) for name in boxes)
    tracker = Tracker(artifact)
    for result in tracker.track(video, box=(20, 5, 20, 15)):
        name = f"frame_{result.frame_index:05d}_object_1.png"
        np.testing.assert_array_equal(sized[name] > 0, result.masks[0])
        np.testing.assert_array_equal(sized[name], corners[name])
    assert tracker.next_frame == len(sized) == len(corners) == 6


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


@pytest.fixture(scope="module")
def detecting_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "both"
    build_both(folder)
    return folder


def test_words_are_tracked_as_the_objects_that_they_find(
    detecting_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, masks = tmp_path / "out.mp4", tmp_path / "masks"
    options = ("--object", 3, "--text", "a dog", "-o", out, "--masks-dir", masks)
    assert run(detecting_artifact, video, *options) == ExitCode.OK
    prompts = {0: {3: Prompts(text="a dog")}}
    written = read_masks(masks)
    assert len(written) == 12
    for result in Tracker(detecting_artifact, num_frames=6).track(list(open_frames(video)), prompts):
        assert result.objects == (3, 4)
        for number, mask in zip(result.objects, result.masks, strict=True):
            image = written[f"frame_{result.frame_index:05d}_object_{number}.png"]
            np.testing.assert_array_equal(image, mask.astype(np.uint8) * 255)
        if result.searches:
            first, second = result.searches[0].scores
    assert f"frame 0, 'a dog': found object 3 ({first:.2f}), 4 ({second:.2f})\n" in capsys.readouterr().out


def test_words_and_exemplars_and_clicks_of_several_objects_go_together(
    detecting_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--text", "a dog", "--object", 8, "--exemplar", "2,2,20,20", "--frame", 2, "--object", 9)
    code = run(detecting_artifact, video, *options, "--point", "5,6", "--masks-dir", tmp_path / "masks")
    assert code == ExitCode.OK
    said = capsys.readouterr().out
    assert "frame 0, 'a dog': found object 1 (" in said
    assert "frame 0, the exemplars: " in said
    assert {name.split("_")[-1] for name in read_masks(tmp_path / "masks")} >= {"1.png", "2.png", "9.png"}


def test_nothing_found_is_no_error_and_says_what_the_best_score_was(
    detecting_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--text", "a dog", "--threshold", 0.99, "-o", tmp_path / "out.mp4", "--masks-dir", tmp_path / "masks")
    assert run(detecting_artifact, video, *options) == ExitCode.OK
    said = capsys.readouterr().out
    assert "frame 0, 'a dog': nothing found, the best score was 0.8" in said
    assert f"wrote {tmp_path}/out.mp4; " in said
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_the_same_words_again_add_nothing_that_is_tracked(
    detecting_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--text", "a dog", "--object", 5, "--text", "a dog", "--masks-dir", tmp_path / "masks")
    assert run(detecting_artifact, video, *options) == ExitCode.OK
    assert "frame 0, 'a dog': nothing new; 2 tracked already" in capsys.readouterr().out


def test_every_outcome_of_a_search_has_its_words() -> None:
    prompts = {2: {1: Prompts(text="a dog"), 5: Prompts(exemplars=(Box(0, 0, 1, 1),))}}
    outcomes = {
        Search(1, (1, 3), (0.9, 0.8), 2, 1, 0.9): "'a dog': found object 1 (0.90), 3 (0.80); 2 tracked already; "
        "1 without a pixel in the mask",
        Search(1, (), (), 0, 3, 0.7): "'a dog': nothing new; 3 without a pixel in the mask",
        Search(5, (), (), 0, 0, 0.3): "the exemplars: nothing found, the best score was 0.30 (--threshold)",
    }
    for search, said in outcomes.items():
        assert describe_search(search, 2, prompts) == f"frame 2, {said}"


def test_words_are_read_by_the_vocabulary_that_is_given(
    detecting_artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary = write_vocabulary(tmp_path / "v.txt", ["d o", "do g</w>"])
    options = ("--text", "a dog", "--masks-dir", tmp_path / "masks", "--vocabulary")
    assert run(detecting_artifact, video, *options, vocabulary) == ExitCode.OK
    frame = next(iter(open_frames(video)))
    by_it, by_clips = (
        Tracker(detecting_artifact, vocabulary=path).step(frame, {1: Prompts(text="a dog")}).searches[0].scores[0]
        for path in (vocabulary, None)
    )
    assert f"{by_it:.2f}" != f"{by_clips:.2f}"
    assert f"frame 0, 'a dog': found object 1 ({by_it:.2f})" in capsys.readouterr().out


def test_a_vocabulary_that_is_not_there_is_said_before_anything_runs(
    detecting_artifact: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Tracker, "step", lambda *arguments: pytest.fail("a frame was tracked"))
    options = ("--point", "5,6", "--frame", 3, "--text", "a dog", "--vocabulary", tmp_path / "v.txt")
    assert run(detecting_artifact, video, *options, "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    assert f"vocabulary {tmp_path}/v.txt does not exist" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_words_for_an_artifact_that_only_tracks_say_what_to_compile(
    artifact: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifact, video, "--text", "a dog", "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    error = capsys.readouterr().err
    assert "object 1: words and exemplars need the detector, but the artifact of recipe 'hand_made'" in error
    assert "Compile a recipe with `segment` under `programs:`" in error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--text", "a dog", "--point", "5,6"],
            "object 1, frame 0: words stand for every instance on the frame, points",
        ),
        (
            ["--exemplar", "1,1,99,9"],
            "object 1, frame 0: --exemplar 1,1,99,9 (left, top, width, height) goes from (1, 1) to (100, 10), beyond",
        ),
        (["--exemplar", "1,1,9,9"] * 3, "object 1: 3 boxes, exemplars among them, but the artifact has 2 places"),
        (
            ["--box", "1,1,8,8,0"],
            "object 1, frame 0: box (1, 1, 9, 9) has label 0, but an object is tracked from a box",
        ),
        (["--text", "&nbsp;"], "object 1: nothing is left of the text"),
    ],
)
def test_words_and_exemplars_that_cannot_be_tracked_leave_nothing(
    detecting_artifact: Path,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert run(detecting_artifact, video, *options, "-o", tmp_path / "out.mp4") == ExitCode.ERROR
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


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


def first_click() -> dict[int, dict[int, Prompts]]:
    return {0: {1: Prompts(points=Points(((5.0, 6.0),), (1,)))}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "500,6"], "object 1: point (500, 6) lies outside the frame, which is 46 x 32 pixels"),
        (["--frame", "6", "--point", "5,6"], "there is a prompt on frame 6, but"),
        (["--point", "5,6"] * 5, "5 points on one object, but the graph has 4 prompt places"),
        (["--box", "1,1,9,9", "--box", "2,2,9,9"], "object 1 has 2 boxes on frame 0; expected one"),
        (["--mask", "nowhere.png"], "mask nowhere.png does not exist"),
        (["--point", "5,6", "--target", "web"], "was not compiled for target 'web'; it has: onnx, ort-cpu"),
        (
            ["--box", "20,5,40,20"],
            "object 1, frame 0: --box 20,5,40,20 (left, top, width, height) goes from (20, 5) to",
        ),
        (["--box-corners", "20,5,60,20"], "object 1: box corner (60, 20) lies outside the frame, which is 46 x 32"),
        (["--point", "5,6", "--provider", "gpu"], "execution provider 'gpu' is not in this build of ONNX Runtime; it "),
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
        (["--box", "1,2,3"], "expected X,Y,WIDTH,HEIGHT (left, top, width, height)"),
        (["--box", "9,2,3,-4"], "has the height -4: expected left, top, width and height"),
        (["--box-corners", "9,2,3,4"], "is empty: expected x0 < x1"),
        (["--frame", "-1"], "expected a whole number of at least 0"),
        (["--text", "a dog", "--threshold", "2"], "expected a number from 0 to 1; found '2'"),
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
        f"import sys; from samonnx.track import describe_search, main; assert main({options!r}) == 0; "
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
