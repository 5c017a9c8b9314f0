"""Detections as JSON in the format of the COCO dataset, which tools for annotation and evaluation read.

    info         the prompts; the probability that the concept is in the image; how many doubles were left out
    images       one: id, file_name, width, height
    categories   one: id, and as its name the words that were asked for
    annotations  image_id, category_id, bbox [x, y, width, height], segmentation {size [H, W], counts}, area, iscrowd 0,
                 score

Best first. `bbox` is the detector's box in pixels, `area` the number of the mask's pixels, `counts` COCO's compressed
run-length code, columns first. `score` stands there as in COCO's results. Needs pycocotools:
`pip install "samonnx[coco]"`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.detections import Detections
from samonnx.runtime.extras import require_extra
from samonnx.runtime.prompts import Box, Prompts
from samonnx.runtime.segmenter import WITHOUT_WORDS

__all__ = ["CocoError", "coco_document", "mask_to_rle", "write_coco"]

Mask = npt.NDArray[np.bool_]


class CocoError(SamonnxError):
    """A file of detections that cannot be written."""


def coco_document(detections: Detections, *, file_name: str, prompts: Prompts) -> dict[str, object]:
    """What becomes the JSON file of one image, called `file_name` in it. Raises MissingExtraError."""
    annotations = [
        {
            "id": position + 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [_plain(side) for side in (x0, y0, x1 - x0, y1 - y0)],
            "segmentation": mask_to_rle(mask),
            "area": int(mask.sum()),
            "iscrowd": 0,
            "score": _plain(score),
        }
        for position, ((x0, y0, x1, y1), mask, score) in enumerate(
            zip(detections.boxes, detections.masks, detections.scores, strict=True)
        )
    ]
    return {
        "info": {
            "description": "detections by samonnx",
            "prompts": _described(prompts),
            "presence": detections.presence,
            "suppressed": detections.suppressed,
        },
        "images": [{"id": 1, "file_name": file_name, "width": detections.width, "height": detections.height}],
        "categories": [{"id": 1, "name": WITHOUT_WORDS if prompts.text is None else prompts.text}],
        "annotations": annotations,
    }


def write_coco(path: str | os.PathLike[str], document: Mapping[str, object]) -> None:
    """Write the document to `path`, aside first and then into place. Raises CocoError; what was there then stays."""
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise CocoError(f"cannot write {path}: folder {path.absolute().parent} does not exist")
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    try:
        # half a surrogate pair, as in a name that is not UTF-8, comes out as JSON's escape for it
        aside.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(aside, path)
    except OSError as error:
        raise CocoError(f"cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def mask_to_rle(mask: Mask) -> dict[str, object]:
    """A mask bool [H, W] as {"size": [H, W], "counts": text}. Raises MissingExtraError."""
    code = require_extra("pycocotools.mask", "coco").encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}


def _described(prompts: Prompts) -> dict[str, object]:
    """The prompts that were given, boxes as x0, y0, x1, y1, label, points as x, y, label."""
    points = prompts.points
    given = {
        "text": prompts.text,
        "boxes": _corners(prompts.boxes),
        "exemplars": _corners(prompts.exemplars),
        "points": [] if points is None else [[*xy, n] for xy, n in zip(points.coordinates, points.labels, strict=True)],
        "mask": None if prompts.mask is None else mask_to_rle(prompts.mask.mask),
    }
    return {what: value for what, value in given.items() if value}


def _corners(boxes: Iterable[Box]) -> list[list[float]]:
    return [[box.x0, box.y0, box.x1, box.y1, box.label] for box in boxes]


def _plain(value: np.float32) -> float:
    """The shortest number that is this float32; as float64 it would trail ten digits of nothing."""
    return float(str(value))
