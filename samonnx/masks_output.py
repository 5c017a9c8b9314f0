"""What `samonnx masks` writes: a picture and a JSON file, both or none."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.found_masks import FoundMasks
from samonnx.runtime.automatic_masks.parameters import MaskParameters
from samonnx.runtime.coco import CocoError, write_coco
from samonnx.runtime.extras import require_extra
from samonnx.runtime.video import IMAGE_SUFFIXES
from samonnx.segment_output import OutputError

__all__ = ["check_output", "masks_document", "write_masks"]


def masks_document(found: FoundMasks, *, file_name: str, preset: str, parameters: MaskParameters) -> dict[str, object]:
    """What becomes the JSON file, in the form of SA-1B's files: `image`, and `annotations` with the original's fields.

    `info` has the parameters. Raises MissingExtraError.
    """
    return {
        "info": {
            "description": "automatic masks by samonnx",
            "preset": preset,
            "parameters": dataclasses.asdict(parameters),
        },
        "image": {"file_name": file_name, "width": found.width, "height": found.height},
        "annotations": [{"id": number, **record} for number, record in enumerate(found.records(), start=1)],
    }


def check_output(image: Path, picture: Path, document: Path) -> None:
    """Raise OutputError, before anything is run, for places that cannot be written or would overwrite the image."""
    if picture.suffix.lower() not in IMAGE_SUFFIXES:
        raise OutputError(f"cannot write {picture}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}")
    for path in (picture, document):
        parent = path.absolute().parent
        if not parent.is_dir():
            raise OutputError(f"cannot write {path}: folder {parent} does not exist")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"cannot write {path}: no permission to write in {parent}")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: a folder of that name is there")
        if path.resolve() == image.resolve():
            raise OutputError(f"the output {path} is the input; give another name")
    if picture.resolve() == document.resolve():
        raise OutputError(f"the picture and the JSON file are both {picture}; give the one another name")


def write_masks(picture: Path, pixels: npt.NDArray[np.uint8], document: Path, content: dict[str, object]) -> None:
    """The picture uint8 [H, W, 3] RGB and the JSON file. Raises OutputError; what was there before then stays."""
    aside = [path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}") for path in (picture, document)]
    try:
        require_extra("PIL.Image", "video").fromarray(pixels).save(aside[0])
        write_coco(aside[1], content)
        for written, path in zip(aside, (picture, document), strict=True):
            os.replace(written, path)
    except (OSError, CocoError) as error:
        raise OutputError(f"cannot write {picture} and {document}: {error}") from error
    finally:
        for path in aside:
            path.unlink(missing_ok=True)
