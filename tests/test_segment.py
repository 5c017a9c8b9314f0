from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samonnx.cli import main as samonnx
from samonnx.exit_codes import ExitCode
from samonnx.runtime.extras import require_extra
from samonnx.runtime.overlay import draw_overlay
from samonnx.runtime.prompts import Box, MaskPrompt, Points, Prompts
from samonnx.runtime.segmenter import Segmenter
from samonnx.runtime.session import Session
from samonnx.runtime.video_writer import VideoWriter
from samonnx.runtime.vocabulary import find_vocabulary
from samonnx.segment import main
from tests.runtime import hand_made_artifact
from tests.runtime.hand_made_segment_artifact import BOXES, build, picture
from tests.runtime.hand_made_vocabulary import write_vocabulary

HEIGHT, WIDTH = 90, 132


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "hand_made_segment"
    build(folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(HEIGHT, WIDTH)).save(tmp_path / "in" / "photo.png")
    return tmp_path / "in" / "photo.png"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and numpy 2
def test_an_image_and_words_become_a_picture_and_a_coco_file(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifact, photo, "--text", "a dog", "--nms", 0.1, "-o", tmp_path / "dogs.png") == ExitCode.OK
    assert sorted(os.listdir(tmp_path)) == ["dogs.json", "dogs.png", "in"]
    prompts = Prompts(text="a dog")
    found = Segmenter(artifact).segment(picture(HEIGHT, WIDTH), prompts, nms=0.1)
    assert len(found) == 2
    document, coco = read(tmp_path / "dogs.json"), require_extra("pycocotools.mask", "coco")
    assert document["images"] == [{"id": 1, "file_name": "photo.png", "width": WIDTH, "height": HEIGHT}]
    assert document["categories"] == [{"id": 1, "name": "a dog"}]
    for one, box, mask, score in zip(document["annotations"], found.boxes, found.masks, found.scores, strict=True):
        np.testing.assert_array_equal(coco.decode([one["segmentation"]])[:, :, 0] > 0, mask)
        np.testing.assert_allclose(one["bbox"], [box[0], box[1], box[2] - box[0], box[3] - box[1]], rtol=1e-6)
        assert one["score"] == pytest.approx(float(score))
        assert one["area"] == mask.sum()
    labels = [f"{rank}  {score:.2f}" for rank, score in enumerate(found.scores, start=1)]
    expected = draw_overlay(picture(HEIGHT, WIDTH), found.masks, labels=labels, boxes=found.boxes, prompts=[prompts])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "dogs.png")), expected)
    said = capsys.readouterr()
    assert said.err == ""
    assert "photo.png: 2 found for 'a dog'" in said.out
    for score, mask in zip(found.scores, found.masks, strict=True):
        (line,) = (line for line in said.out.splitlines() if f" {score:.2f} " in line)
        assert f"{mask.mean():.1%}" in line
    assert f"wrote {tmp_path}/dogs.png and {tmp_path}/dogs.json\n1 image in " in said.out


def test_all_kinds_of_prompts_go_together(artifact: Path, photo: Path, tmp_path: Path) -> None:
    options = ("--text", "a dog", "--box", "5,5,35,35", "--exemplar", "60,30,30,40,0", "--point", "9,9,0")
    assert run(artifact, photo, *options, "--nms", 1, "-o", tmp_path / "out.png", "--quiet") == ExitCode.OK
    prompts = Prompts("a dog", Points(((9.0, 9.0),), (0,)), (Box(5, 5, 40, 40),), None, (Box(60, 30, 90, 70, 0),))
    found = Segmenter(artifact).segment(picture(HEIGHT, WIDTH), prompts)
    document = read(tmp_path / "out.json")
    assert [one["score"] for one in document["annotations"]] == pytest.approx(found.scores.tolist())
    assert document["info"]["prompts"]["exemplars"] == [[60, 30, 90, 70, 0]]
    drawn = np.asarray(Image.open(tmp_path / "out.png"))
    assert (drawn == (40, 210, 60)).all(axis=2).any(), "the box is green"
    assert (drawn == (235, 40, 40)).all(axis=2).any(), "the negative exemplar and point are red"


def test_without_words_it_asks_for_visual(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifact, photo, "--exemplar", "5,5,40,40", "-o", tmp_path / "out.png") == ExitCode.OK
    assert read(tmp_path / "out.json")["categories"] == [{"id": 1, "name": "visual"}]
    assert "found for 'visual'" in capsys.readouterr().out


def test_a_mask_goes_in_where_the_model_takes_masks(photo: Path, artifact: Path, tmp_path: Path) -> None:
    build(tmp_path / "masks", masks=1)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:40, 20:60] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    options = ("--mask", tmp_path / "mask.png", "-o", tmp_path / "out.png", "--quiet")
    assert run(tmp_path / "masks", photo, *options) == ExitCode.OK
    found = Segmenter(tmp_path / "masks").segment(picture(HEIGHT, WIDTH), Prompts(mask=MaskPrompt(mask)))
    assert len(read(tmp_path / "out.json")["annotations"]) == len(found)


def test_threshold_and_suppression_decide_what_is_shown(artifact: Path, photo: Path, tmp_path: Path) -> None:
    counts = {}
    for threshold, nms in ((0.5, 0.1), (0.5, 1), (0.1, 1), (0.99, 1)):
        out = tmp_path / f"{threshold}-{nms}.png"
        assert run(artifact, photo, "--text", "a dog", "--threshold", threshold, "--nms", nms, "-o", out) == 0
        counts[threshold, nms] = len(read(out.with_suffix(".json"))["annotations"])
    assert counts[0.99, 1] == 0 < counts[0.5, 0.1] < counts[0.5, 1] < counts[0.1, 1]


def test_nothing_found_is_no_error_and_says_what_the_best_score_was(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifact, photo, "--text", "a dog", "--threshold", "0.99", "-o", tmp_path / "out.png") == ExitCode.OK
    best = Segmenter(artifact).segment(picture(HEIGHT, WIDTH), Prompts(text="a dog")).best_score
    assert (
        f"{photo}: nothing found for 'a dog': the best score was {best:.2f}, and only what is above 0.99 is shown "
        f"(--threshold)\n"
    ) in capsys.readouterr().out
    assert read(tmp_path / "out.json")["annotations"] == []
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), picture(HEIGHT, WIDTH))


def test_many_images_go_into_a_folder_and_the_words_are_encoded_once(
    artifact: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture(20, 50)).save(photo.parent / "small.jpg")
    Image.fromarray(picture(60, 60)).save(tmp_path / "other.png")
    original, ran = Session.run, []

    def counted(session: Session, inputs: Any) -> Any:
        ran.append(session.program.name)
        return original(session, inputs)

    monkeypatch.setattr(Session, "run", counted)
    assert run(artifact, photo.parent, tmp_path / "other.png", "--text", "a dog", "-o", tmp_path / "out") == ExitCode.OK
    assert sorted(os.listdir(tmp_path / "out")) == [
        *("other.json", "other.png", "photo.json", "photo.png", "small.json", "small.png")
    ]
    assert (ran.count("encode_text"), ran.count("encode_image")) == (1, 3)
    assert read(tmp_path / "out" / "small.json")["images"][0]["width"] == 50
    said = capsys.readouterr().out
    for name in ("photo", "small", "other"):
        assert f"{name}.json\n" in said
    assert "\n3 images in " in said


@pytest.mark.parametrize(("images", "readings"), [(1, 1), (3, 6)])
def test_one_image_is_decoded_once_and_several_before_the_first_is_run_and_again(
    artifact: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, readings: int
) -> None:
    for number in range(1, images):
        shutil.copy(photo, photo.parent / f"{number}.png")
    original, opened, opened_before = Image.open, [], []
    run_session = Session.run

    def counted(path: Any) -> Any:
        opened.append(path)
        return original(path)

    def ran(session: Session, inputs: Any) -> Any:
        opened_before.append(len(opened))
        return run_session(session, inputs)

    monkeypatch.setattr(Image, "open", counted)
    monkeypatch.setattr(Session, "run", ran)
    assert run(artifact, photo.parent, "--text", "a dog", "-o", tmp_path / "out", "--quiet") == ExitCode.OK
    assert len(opened) == readings
    assert opened_before[0] == (1 if images == 1 else images + 1)


def test_words_are_read_by_the_vocabulary_that_is_given(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_made = write_vocabulary(tmp_path / "in" / "v.txt", ["d o", "do g</w>"])
    scores = {}
    for name, vocabulary in {"clip": find_vocabulary(), "hand_made": hand_made}.items():
        options = ("--text", "a dog", "--vocabulary", vocabulary, "--nms", 1, "-o", tmp_path / f"{name}.png")
        assert run(artifact, photo, *options, "--quiet") == ExitCode.OK
        found = Segmenter(artifact, vocabulary=vocabulary).segment(picture(HEIGHT, WIDTH), Prompts(text="a dog"))
        scores[name] = [one["score"] for one in read(tmp_path / f"{name}.json")["annotations"]]
        assert scores[name] == pytest.approx(found.scores.tolist())
    assert scores["clip"] != scores["hand_made"]
    by_default = Segmenter(artifact).segment(picture(HEIGHT, WIDTH), Prompts(text="a dog"))
    assert scores["clip"] == pytest.approx(by_default.scores.tolist())
    nowhere = ("--text", "a dog", "--vocabulary", tmp_path / "none.gz", "-o", tmp_path / "out.png")
    assert run(artifact, photo, *nowhere) == ExitCode.ERROR
    assert f"vocabulary {tmp_path}/none.gz does not exist; expected CLIP's bpe_simple" in capsys.readouterr().err


def test_words_that_are_not_utf_8_go_through(artifact: Path, photo: Path, tmp_path: Path) -> None:
    """As Python hands over bytes of the command line that it cannot decode."""
    words = b"dog \xff".decode("utf-8", "surrogateescape")
    assert run(artifact, photo, "--text", words, "-o", tmp_path / "out.png") == ExitCode.OK
    assert read(tmp_path / "out.json")["categories"] == [{"id": 1, "name": words}]


def test_one_image_may_go_into_a_folder(artifact: Path, photo: Path, tmp_path: Path) -> None:
    assert run(artifact, photo, "--text", "a dog", "-o", tmp_path / "out", "--quiet") == ExitCode.OK
    assert sorted(os.listdir(tmp_path / "out")) == ["photo.json", "photo.png"]


def test_quiet_says_nothing(artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(artifact, photo, photo.parent, "--text", "a dog", "-o", tmp_path / "out", "--quiet") == ExitCode.ERROR
    assert "would both be called photo" in capsys.readouterr().err
    assert run(artifact, photo, "--text", "a dog", "-o", tmp_path / "out", "--quiet") == ExitCode.OK
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_text_that_is_too_long_is_cut_with_one_warning(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "a small brown dog that sleeps under the table in the sun"
    assert run(artifact, photo, "--text", words, "-o", tmp_path / "out.png", "--quiet") == ExitCode.OK
    error = capsys.readouterr().err
    assert error.startswith("samonnx: warning: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--box", "1,1,500,9"],
            "photo.png: --box 1,1,500,9 (left, top, width, height) goes from (1, 1) to (501, 10), beyond",
        ),
        (["--exemplar", "1,1,9,500"], "photo.png: --exemplar 1,1,9,500 (left, top, width, height) goes"),
        (["--box-corners", "1,1,500,9"], "photo.png: box corner (500, 9) lies outside the frame"),
        (["--point", "-1.0,5"], "photo.png: point (-1, 5) lies outside the frame"),
        (["--exemplar", "1,1,9,9"] * (BOXES + 1), f"{BOXES + 1} boxes, exemplars among them, but the artifact has"),
        (["--text", "a", "--text", "b"], "--text is given 2 times for the same thing; expected once"),
        (["--text", "&nbsp;"], "nothing is left of the text '&nbsp;' once it is cleaned"),
        (["--mask", "nowhere.png"], "mask nowhere.png does not exist"),
        (["--text", "a dog", "--target", "web"], "was not compiled for target 'web'; it has: onnx"),
        (["--text", "a dog", "--provider", "gpu"], "execution provider 'gpu' is not in this build of ONNX Runtime"),
    ],
)
def test_errors_are_one_line_exit_code_1_and_leave_nothing(
    artifact: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    joined = [f"{options[0]}={options[1]}"] if options[1].startswith("-") else options
    assert run(artifact, photo, *joined, "-o", tmp_path / "out.png") == ExitCode.ERROR
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert os.listdir(tmp_path) == ["in"]


def test_a_mask_for_a_model_without_an_encoder_for_it_says_what_to_do(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[5:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert run(artifact, photo, "--mask", tmp_path / "mask.png", "-o", tmp_path / "out.png") == ExitCode.ERROR
    error = capsys.readouterr().err
    assert "cannot look for things by a mask" in error
    assert "as an exemplar, which is Box(10, 5, 30, 20), or --exemplar 10,5,20,15" in error
    Image.fromarray(mask[:5]).save(tmp_path / "mask.png")
    assert run(artifact, photo, "--mask", tmp_path / "mask.png", "-o", tmp_path / "out.png") == ExitCode.ERROR
    assert f"photo.png: the mask is {WIDTH} x 5 pixels, the frame {WIDTH} x {HEIGHT}" in capsys.readouterr().err


def test_an_image_that_cannot_be_decoded_is_named_before_anything_runs(
    artifact: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = photo.parent / "broken.jpg"
    broken.write_bytes(photo.read_bytes()[:200])
    monkeypatch.setattr(Session, "run", lambda *arguments: pytest.fail("the network ran"))
    assert run(artifact, photo.parent, "--text", "a dog", "-o", tmp_path / "out") == ExitCode.ERROR
    error = capsys.readouterr().err
    assert f"image {broken} cannot be read: " in error
    assert error.count("\n") == 1
    assert run(artifact, tmp_path / "none.png", "--text", "a dog", "-o", tmp_path / "out.png") == ExitCode.ERROR
    assert f"{tmp_path}/none.png does not exist" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in"]


def test_a_video_is_sent_to_track(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with VideoWriter(tmp_path / "clip.mp4", Fraction(24)) as writer:
        for frame in hand_made_artifact.clip(2):
            writer.write(frame)
    assert run(artifact, tmp_path / "clip.mp4", "--text", "a dog", "-o", tmp_path / "out.png") == ExitCode.ERROR
    error = capsys.readouterr().err
    assert "clip.mp4 is a video, and segment takes images; for a video there is samonnx track" in error


def test_an_artifact_that_only_tracks_says_so(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hand_made_artifact.build(tmp_path / "tracks")
    assert run(tmp_path / "tracks", photo, "--text", "a dog", "-o", tmp_path / "out.png") == ExitCode.ERROR
    assert (
        "has no program that detects; it has: track, track@first. Compile a recipe with `segment` under `programs:`"
    ) in capsys.readouterr().err
    assert run(tmp_path / "in", photo, "--text", "a dog", "-o", tmp_path / "out.png") == ExitCode.ERROR
    assert "has no manifest.json, so it is not an artifact folder" in capsys.readouterr().err


def test_the_input_is_never_overwritten(artifact: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photo.read_bytes()
    assert run(artifact, photo, "--text", "a dog", "-o", photo) == ExitCode.ERROR
    assert "is the input; give another name" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_an_interrupt_leaves_nothing_and_keeps_the_earlier_output(
    artifact: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.png").write_bytes(b"earlier")
    original, calls = Segmenter.segment, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(Segmenter, "segment", interrupted)
    Image.fromarray(picture(20, 50)).save(photo.parent / "zebra.png")
    assert run(artifact, photo.parent, "--text", "a dog", "-o", tmp_path / "out") == ExitCode.INTERRUPTED
    assert sorted(os.listdir(tmp_path)) == ["in", "out.png"]
    assert (tmp_path / "out.png").read_bytes() == b"earlier"


def test_wrong_usage_is_exit_code_2_and_help_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("d", "a.jpg", "-o", "out.png") == ExitCode.USAGE
    assert "nothing to look for" in capsys.readouterr().err
    assert run("--help") == ExitCode.OK
    text = capsys.readouterr().out
    assert 'samonnx segment dist/efficientsam3_m0_9 photo.jpg --text "a dog" -o dogs.png' in text
    assert "exit codes: 0 done" in text


def test_it_is_a_subcommand_and_a_module(artifact: Path, photo: Path, tmp_path: Path) -> None:
    options = [str(artifact), str(photo), "--text", "a dog", "--quiet", "-o"]
    assert samonnx(["segment", *options, str(tmp_path / "a.png")]) == ExitCode.OK
    subprocess.run([sys.executable, "-m", "samonnx.segment", *options, str(tmp_path / "b.png")], check=True)
    assert read(tmp_path / "a.json") == read(tmp_path / "b.json")


def test_it_does_not_import_torch(artifact: Path, photo: Path, tmp_path: Path) -> None:
    options = [str(artifact), str(photo), "--text", "a dog", "--quiet", "-o", str(tmp_path / "a.png")]
    program = (
        f"import sys; from samonnx.segment import main; assert main({options!r}) == 0; "
        "print(sorted({'torch', 'onnx', 'pydantic', 'yaml', 'onnx_ir', 'osam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
