from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samonnx.segment_output import OutputError, SegmentOutput

PICTURE = np.full((4, 6, 3), 200, dtype=np.uint8)


def test_one_image_becomes_a_picture_and_a_json_file_beside_it(tmp_path: Path) -> None:
    image = tmp_path / "photo.jpg"
    with SegmentOutput(tmp_path / "dogs.png", [image]) as output:
        output.write(image, PICTURE, {"annotations": []})
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert sorted(os.listdir(tmp_path)) == ["dogs.json", "dogs.png"]
    assert output.paths(image) == (tmp_path / "dogs.png", tmp_path / "dogs.json")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "dogs.png")), PICTURE)
    assert json.loads((tmp_path / "dogs.json").read_text()) == {"annotations": []}


def test_several_images_become_a_folder_with_two_files_each(tmp_path: Path) -> None:
    images = [tmp_path / "a.jpg", tmp_path / "b.png"]
    (tmp_path / "out").mkdir()
    with SegmentOutput(tmp_path / "out", images) as output:
        for image in images:
            output.write(image, PICTURE, {})
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert sorted(os.listdir(tmp_path / "out")) == ["a.json", "a.png", "b.json", "b.png"]


@pytest.mark.parametrize("place", ["out.png", "out"])
def test_after_an_exception_nothing_is_there_but_what_was(tmp_path: Path, place: str) -> None:
    (tmp_path / "out.json").write_text("earlier")
    image = tmp_path / "photo.jpg"

    def write_and_be_interrupted() -> None:
        with SegmentOutput(tmp_path / place, [image]) as output:
            output.write(image, PICTURE, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted()
    assert os.listdir(tmp_path) == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "earlier"


def test_half_a_surrogate_pair_comes_back_as_it_was(tmp_path: Path) -> None:
    image, text = tmp_path / "photo.jpg", b"dog \xff".decode("utf-8", "surrogateescape")
    with SegmentOutput(tmp_path / "out.png", [image]) as output:
        output.write(image, PICTURE, {"text": text})
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {"text": text}


def test_earlier_results_of_one_image_are_replaced(tmp_path: Path) -> None:
    for name in ("out.png", "out.json"):
        (tmp_path / name).write_text("earlier")
    image = tmp_path / "photo.jpg"
    with SegmentOutput(tmp_path / "out.png", [image]) as output:
        output.write(image, PICTURE, {"new": 1})
    assert json.loads((tmp_path / "out.json").read_text()) == {"new": 1}


def refusal(path: Path, *images: Path) -> str:
    with pytest.raises(OutputError) as caught:
        SegmentOutput(path, images)
    return str(caught.value)


def test_places_that_are_none_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "dog.jpg", tmp_path / "b" / "dog.png"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "x.json").mkdir()
    assert "expected a name that ends in .jpg, .jpeg, .png" in refusal(tmp_path / "out.mp4", one)
    assert f"2 images do not go into the one picture {tmp_path}/out.png; give a folder, -o {tmp_path}/out" in refusal(
        tmp_path / "out.png", one, other
    )
    assert f"the results of {one} and {other} would both be called dog" in refusal(tmp_path / "out", one, other)
    assert f"folder {tmp_path}/none does not exist" in refusal(tmp_path / "none" / "out.png", one)
    assert "it is a folder with something in it; give a new or an empty folder" in refusal(tmp_path / "full", one)
    assert "it is a file; give a new or an empty folder" in refusal(tmp_path / "file", one)
    assert f"{tmp_path}/x.json: a folder of that name is there" in refusal(tmp_path / "x.png", one)
    assert "is the input; give another name" in refusal(tmp_path / "in.png", tmp_path / "sub" / ".." / "in.png")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"no permission to write in {tmp_path}" in refusal(tmp_path / "out.png", tmp_path / "a.jpg")


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "photo.jpg"

    def full(*arguments: object, **options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    said = r"cannot write .*out\.png and .*out\.json: No space left on device"
    with pytest.raises(OutputError, match=said), SegmentOutput(tmp_path / "out.png", [image]) as output:
        output.write(image, PICTURE, {})
    assert os.listdir(tmp_path) == []
