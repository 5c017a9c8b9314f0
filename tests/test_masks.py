"""The command `samonnx masks` on a hand-made artifact: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samonnx.cli import main as samonnx
from samonnx.exit_codes import ExitCode
from samonnx.masks import main
from samonnx.runtime.automatic_masks.generator import AutomaticMasks
from samonnx.runtime.automatic_masks.overlay import draw_masks
from samonnx.runtime.automatic_masks.parameters import MaskParameters, with_preset
from samonnx.runtime.extras import require_extra
from samonnx.runtime.image_predictor import ImagePredictor
from samonnx.runtime.session import Session
from tests.runtime.hand_made_sam_artifact import build
from tests.runtime.hand_made_segment_artifact import picture

HEIGHT, WIDTH = 90, 132
SCENE = ("--points-per-side", 3, "--stability-score-thresh", 0.7, "--pred-iou-thresh", 0.85)
CHOSEN = MaskParameters(points_per_side=3, stability_score_thresh=0.7, pred_iou_thresh=0.85)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "sam"
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
def test_an_image_becomes_a_picture_and_a_file_of_coco_masks(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifact, photo, "-o", tmp_path / "all.png", *SCENE) == ExitCode.OK
    assert sorted(os.listdir(tmp_path)) == ["all.json", "all.png", "in"]
    found = AutomaticMasks(ImagePredictor(artifact), CHOSEN).generate(picture(HEIGHT, WIDTH))
    assert len(found.masks) >= 9
    document, coco = read(tmp_path / "all.json"), require_extra("pycocotools.mask", "coco")
    assert document["image"] == {"file_name": "photo.png", "width": WIDTH, "height": HEIGHT}
    assert document["info"]["preset"] == "quality"
    assert document["info"]["parameters"]["points_per_side"] == 3
    assert [one["id"] for one in document["annotations"]] == list(range(1, len(found.masks) + 1))
    for index, one in enumerate(document["annotations"]):
        mask = found.masks.mask(index)
        np.testing.assert_array_equal(coco.decode(one["segmentation"]) > 0, mask)
        rows, columns = np.nonzero(mask)
        assert one["bbox"] == [columns.min(), rows.min(), np.ptp(columns), np.ptp(rows)]
        assert one["area"] == mask.sum()
        assert one["crop_box"] == [0, 0, WIDTH, HEIGHT]
        assert one["predicted_iou"] > 0.85
        assert 0.7 <= one["stability_score"] <= 1
        ((x, y),) = one["point_coords"]
        assert (x * 6 / WIDTH, y * 6 / HEIGHT) in [(i, j) for i in (1, 3, 5) for j in (1, 3, 5)]
    expected = draw_masks(picture(HEIGHT, WIDTH), found.masks)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "all.png")), expected)
    said = capsys.readouterr()
    assert f"photo.png: {len(found.masks)} masks" in said.out
    for step in ("ask the points", "predicted IoU above 0.85", "stability of at least 0.7", "box IoU above 0.7"):
        assert step in said.out
    assert f"wrote {tmp_path}/all.png and {tmp_path}/all.json\n1 image in " in said.out
    assert "9/9 points" in said.err


def test_every_parameter_is_an_option(artifact: Path, photo: Path, tmp_path: Path) -> None:
    options = {
        "points_per_side": 2,
        "points_per_batch": 3,
        "pred_iou_thresh": 0.1,
        "stability_score_thresh": 0.2,
        "stability_score_offset": 0.5,
        "box_nms_thresh": 0.9,
        "crop_n_layers": 1,
        "crop_nms_thresh": 0.8,
        "crop_overlap_ratio": 0.25,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 7,
    }
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert run(artifact, photo, "-o", tmp_path / "a.png", "--json", tmp_path / "b.json", "--quiet", *given) == 0
    assert read(tmp_path / "b.json")["info"]["parameters"] == {**options, "point_grids": None}
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "grids.json").write_text("[[[0.5, 0.5], [0.25, 0.5]]]")
    arguments = ("-o", tmp_path / "g.png", "--point-grids", tmp_path / "grids.json", "--quiet")
    assert run(artifact, photo, *arguments, "--pred-iou-thresh", 0, "--stability-score-thresh", 0) == 0
    points = [one["point_coords"] for one in read(tmp_path / "g.json")["annotations"]]
    assert {tuple(point) for (point,) in points} == {(WIDTH / 2, HEIGHT / 2), (WIDTH / 4, HEIGHT / 2)}


def test_a_preset_sets_parameters(artifact: Path, photo: Path, tmp_path: Path) -> None:
    assert run(artifact, photo, "-o", tmp_path / "a.png", "--preset", "fast", "--quiet") == ExitCode.OK
    written = read(tmp_path / "a.json")["info"]
    assert written["preset"] == "fast"
    assert MaskParameters(**written["parameters"]) == with_preset("fast")


def test_nothing_found_is_no_error_and_the_table_says_where_masks_went(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifact, photo, "-o", tmp_path / "a.png", *SCENE, "--stability-score-thresh", 1) == ExitCode.OK
    said = capsys.readouterr().out
    assert f"{photo}: nothing found; the table shows which step has dropped the last ones\n" in said
    assert read(tmp_path / "a.json")["annotations"] == []
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture(HEIGHT, WIDTH))


def test_it_is_a_subcommand(artifact: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ("masks", artifact, photo, "-o", tmp_path / "a.png", "--quiet", *SCENE)
    assert samonnx([str(argument) for argument in arguments]) == ExitCode.OK
    assert (tmp_path / "a.json").is_file()


def test_it_does_not_import_torch(artifact: Path, photo: Path, tmp_path: Path) -> None:
    options = [str(artifact), str(photo), "--quiet", "-o", str(tmp_path / "a.png")]
    program = (
        f"import sys; from samonnx.masks import main; assert main({options!r}) == 0; "
        "print(sorted({'torch', 'onnx', 'pydantic', 'yaml', 'onnx_ir', 'scipy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: ExitCode = ExitCode.ERROR) -> str:
    assert run(*arguments) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_what_is_no_picture_is_refused(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo.parent / "text.png").write_text("no picture")
    Image.fromarray(picture(1, 200)).save(photo.parent / "thin.png")
    for name, message in (
        ("text.png", "text.png"),
        ("nowhere.png", "nowhere.png"),
        ("thin.png", "the picture is 200 x 1 pixels, and 64 x 0 when its long side is 64, as the network takes it"),
    ):
        assert message in refused(capsys, artifact, photo.parent / name, "-o", tmp_path / "a.png", "--quiet")
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_artifacts_without_the_programs_are_refused(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "encoder", programs=("encode_image",))
    said = refused(capsys, tmp_path / "encoder", photo, "-o", tmp_path / "a.png")
    assert "has no program predict; it has: encode_image. Masks of an image need both" in said
    assert "does not exist" in refused(capsys, tmp_path / "none", photo, "-o", tmp_path / "a.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--points-per-side", "0"), "argument --points-per-side: expected a whole number of at least 1; found '0'"),
        (("--pred-iou-thresh", "1.2"), "argument --pred-iou-thresh: expected a number from 0 to 1; found '1.2'"),
        (("--stability-score-offset", "-1"), "expected a number of at least 0; found '-1'"),
        (("--preset", "best"), "argument --preset: invalid choice: 'best'"),
        (("--preset", "fast", "--crop-n-layers", "2"), "crop_n_layers is 2, and preset 'fast' has at most 1"),
        (
            ("--points-per-side", "1", "--crop-n-layers", "1", "--crop-n-points-downscale-factor", "2"),
            "no point is left",
        ),
        (("--point-grids", "nowhere.json"), "argument --point-grids: cannot read nowhere.json: No such file"),
    ],
)
def test_parameters_without_sense_are_wrong_usage(
    artifact: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert message in refused(capsys, artifact, photo, "-o", tmp_path / "a.png", *options, code=ExitCode.USAGE)


def test_a_file_of_grids_that_is_none_is_refused(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, message in (
        ("{", "is no JSON list of grids, for each layer a list of [x, y]"),
        ("[[0.5]]", "is no JSON list of grids"),
        ("[[[0.5, 2]]]", "point_grids[0]: expected at least one point, x and y from 0 to 1"),
    ):
        (tmp_path / "grids.json").write_text(text)
        options = ("-o", tmp_path / "a.png", "--point-grids", tmp_path / "grids.json")
        assert message in refused(capsys, artifact, photo, *options, code=ExitCode.USAGE)


def test_places_that_cannot_be_written_are_refused_before_anything_runs(
    artifact: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Session, "__init__", lambda *_, **__: pytest.fail("a graph was opened"))
    (tmp_path / "folder.json").mkdir()
    copy = shutil.copy(photo, tmp_path / "copy.png")
    for image, output, message in (
        (photo, tmp_path / "a.txt", "expected a name that ends in .jpg, .jpeg, .png"),
        (photo, tmp_path / "no" / "a.png", f"folder {tmp_path}/no does not exist"),
        (photo, tmp_path / "folder.png", f"cannot write {tmp_path}/folder.json: a folder of that name is there"),
        (copy, tmp_path / "copy.png", "is the input; give another name"),
    ):
        assert message in refused(capsys, artifact, image, "-o", output)
    both = ("-o", tmp_path / "a.png", "--json", tmp_path / "a.png")
    assert "the picture and the JSON file are both" in refused(capsys, artifact, photo, *both)


def test_when_writing_fails_what_was_there_stays(
    artifact: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    said = refused(capsys, artifact, photo, "-o", tmp_path / "a.png", "--quiet", *SCENE)
    assert "a.json: no space left on device" in said
    assert sorted(os.listdir(tmp_path)) == ["a.json", "in"]
    assert (tmp_path / "a.json").read_text() == "before"
