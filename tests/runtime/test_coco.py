from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from samonnx.runtime.coco import CocoError, coco_document, mask_to_rle, write_coco
from samonnx.runtime.detections import Detections
from samonnx.runtime.extras import MissingExtraError, require_extra
from samonnx.runtime.prompts import Box, MaskPrompt, Points, Prompts

COCO = require_extra("pycocotools.coco", "coco").COCO
WIDTH, HEIGHT = 7, 5
DOG = Prompts(text="a dog")


def detections(number: int = 2) -> Detections:
    random = np.random.default_rng(0)
    masks = random.random((number, HEIGHT, WIDTH)) > 0.5
    return Detections(
        width=WIDTH,
        height=HEIGHT,
        boxes=np.array([[1.5, 0, 4.25, 3], [-0.1, 1, 7.3, 5]], dtype=np.float32)[:number],
        scores=np.array([0.9, 0.55], dtype=np.float32)[:number],
        masks=masks,
        mask_logits=np.zeros((number, 4, 4), dtype=np.float32),
        indices=np.array([3, 1])[:number],
        presence=0.97,
        semantic_mask=np.ones((HEIGHT, WIDTH), dtype=bool),
        best_score=0.9,
        suppressed=1,
    )


def column_runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """COCO's definition: lengths of runs, columns first, beginning with the number of zeros."""
    flat = mask.T.reshape(-1)
    borders = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *borders, len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs


def unpacked(counts: str) -> list[int]:
    """The compressed form, unpacked by hand: 5 bits a character, from the third run on the difference to run i - 2."""
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        bits = ord(character) - 48
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return runs


masks = hypothesis_numpy.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@settings(deadline=None, max_examples=100)
@given(mask=masks)
def test_a_mask_survives_its_run_lengths(mask: npt.NDArray[np.bool_]) -> None:
    code = json.loads(json.dumps(mask_to_rle(mask)))
    runs = unpacked(code["counts"])
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    height, width = code["size"]
    np.testing.assert_array_equal(flat.reshape(width, height).T, mask)


@settings(deadline=None, max_examples=100)
@given(mask=masks)
def test_run_lengths_are_cocos(mask: npt.NDArray[np.bool_]) -> None:
    code = mask_to_rle(mask)
    assert code["size"] == list(mask.shape)
    assert unpacked(str(code["counts"])) == column_runs(mask)


def test_the_document_says_what_was_found() -> None:
    found = detections()
    document = coco_document(found, file_name="photo.jpg", prompts=DOG)
    assert document == {
        "info": {
            "description": "detections by samonnx",
            "prompts": {"text": "a dog"},
            "presence": 0.97,
            "suppressed": 1,
        },
        "images": [{"id": 1, "file_name": "photo.jpg", "width": 7, "height": 5}],
        "categories": [{"id": 1, "name": "a dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [1.5, 0.0, 2.75, 3.0],
                "segmentation": mask_to_rle(found.masks[0]),
                "area": int(found.masks[0].sum()),
                "iscrowd": 0,
                "score": 0.9,
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 1,
                "bbox": [-0.1, 1.0, 7.4, 4.0],
                "segmentation": mask_to_rle(found.masks[1]),
                "area": int(found.masks[1].sum()),
                "iscrowd": 0,
                "score": 0.55,
            },
        ],
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with NumPy 2
def test_cocos_own_reader_reads_the_file(tmp_path: Path) -> None:
    found = detections()
    write_coco(tmp_path / "photo.json", coco_document(found, file_name="photo.jpg", prompts=DOG))
    dataset = COCO(str(tmp_path / "photo.json"))
    annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=[1]))
    assert [annotation["score"] for annotation in annotations] == [0.9, 0.55]
    for annotation, mask in zip(annotations, found.masks, strict=True):
        np.testing.assert_array_equal(dataset.annToMask(annotation), mask)


def test_nothing_found_is_a_document_too(tmp_path: Path) -> None:
    document = coco_document(detections(0), file_name="photo.jpg", prompts=DOG)
    assert document["annotations"] == []
    write_coco(tmp_path / "photo.json", document)
    assert COCO(str(tmp_path / "photo.json")).getImgIds() == [1]


def test_all_prompts_are_written_down() -> None:
    mask = np.ones((HEIGHT, WIDTH), dtype=bool)
    prompts = Prompts(
        points=Points(((1, 2.5), (3, 4)), (1, 0)),
        boxes=(Box(0, 1, 2, 3),),
        exemplars=(Box(1, 1, 2, 2, 0),),
        mask=MaskPrompt(mask),
    )
    document = coco_document(detections(0), file_name="photo.jpg", prompts=prompts)
    assert document["categories"] == [{"id": 1, "name": "visual"}]
    info = document["info"]
    assert isinstance(info, dict)
    assert info["prompts"] == {
        "boxes": [[0, 1, 2, 3, 1]],
        "exemplars": [[1, 1, 2, 2, 0]],
        "points": [[1, 2.5, 1], [3, 4, 0]],
        "mask": mask_to_rle(mask),
    }


def test_names_that_are_not_utf_8_come_back_as_they_were(tmp_path: Path) -> None:
    for name in ("hündchen 🐶.jpg", b"photo\xff.jpg".decode("utf-8", "surrogateescape")):
        write_coco(tmp_path / "photo.json", coco_document(detections(), file_name=name, prompts=DOG))
        read = json.loads((tmp_path / "photo.json").read_text(encoding="utf-8"))
        assert read["images"][0]["file_name"] == name


def test_a_document_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "photo.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write_coco(path, {"score": float("nan")})
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["photo.json"]


def test_a_disk_that_fails_leaves_the_old_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.json"
    path.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CocoError, match=r"cannot write .*photo.json: .*No space left on device"):
        write_coco(path, {})
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["photo.json"]


def test_a_place_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match=r"cannot write .*photo.json: folder .*nowhere does not exist"):
        write_coco(tmp_path / "nowhere" / "photo.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(CocoError, match=r"cannot write .*folder: "):
        write_coco(tmp_path / "folder", {})
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_without_pycocotools_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(MissingExtraError, match=r'run: pip install "samonnx\[coco\]"'):
        mask_to_rle(np.ones((2, 2), dtype=bool))
