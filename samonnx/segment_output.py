"""What `samonnx segment` writes: for each image a picture and a JSON file, all of them or none.

Everything is written aside, next to its place, and moved there when the `with` block ends well; if it ends with an
exception (Ctrl-C included), what was written is removed and whatever stood there before stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.coco import CocoError, write_coco
from samonnx.runtime.extras import require_extra
from samonnx.runtime.video import IMAGE_SUFFIXES

__all__ = ["OutputError", "SegmentOutput"]


class OutputError(SamonnxError):
    """Results that cannot be written, or have no good place to go."""


class SegmentOutput:
    """The place for the results of `images`: the file `path` and its JSON file, or a folder of them.

    It is a file if it ends like an image (one image only), a folder if it has no suffix or is one. Raises OutputError
    before anything is run: no such parent folder, a folder with something in it, an image that would be overwritten,
    two images whose results would have the same name.
    """

    def __init__(self, path: Path, images: Sequence[Path]) -> None:
        self._path = path
        self._is_folder = path.is_dir() or not path.suffix
        self._names = self._place(images)
        self._check_place(images)
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def paths(self, image: Path) -> tuple[Path, Path]:
        """Where the picture and the JSON file of that image will lie."""
        name = self._names[image]
        picture = self._path / name if self._is_folder else self._path
        return picture, picture.with_suffix(".json")

    def __enter__(self) -> SegmentOutput:
        return self

    def write(self, image: Path, picture: npt.NDArray[np.uint8], document: Mapping[str, object]) -> None:
        """The results of one image: `picture` uint8 [H, W, 3] RGB, and what becomes the JSON file."""
        image_module = require_extra("PIL.Image", "video")
        for_picture, for_document = self.paths(image)
        try:
            self._aside.mkdir(exist_ok=True)
            image_module.fromarray(picture).save(self._aside / for_picture.name)
            write_coco(self._aside / for_document.name, document)
        except (OSError, CocoError) as error:
            raise OutputError(f"cannot write {for_picture} and {for_document}: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._aside.is_dir():
                self._move_into_place()
        except OSError as problem:
            raise OutputError(f"cannot write {self._path}: {problem}") from problem
        finally:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _move_into_place(self) -> None:
        if not self._is_folder:
            for file in sorted(self._aside.iterdir()):
                os.replace(file, self._path.with_name(file.name))
            return
        if self._path.is_dir():
            self._path.rmdir()
        os.replace(self._aside, self._path)

    def _place(self, images: Sequence[Path]) -> dict[Path, str]:
        """The name of each image's picture."""
        if self._is_folder:
            names: dict[str, Path] = {}
            for image in images:
                other = names.setdefault(f"{image.stem}.png", image)
                if other is not image:
                    raise OutputError(
                        f"the results of {other} and {image} would both be called {image.stem}; "
                        f"give one of them in a run of its own"
                    )
            return {image: name for name, image in names.items()}
        if self._path.suffix.lower() not in IMAGE_SUFFIXES:
            raise OutputError(
                f"cannot write {self._path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}, "
                f"or one without a suffix for a folder"
            )
        if len(images) > 1:
            raise OutputError(
                f"{len(images)} images do not go into the one picture {self._path}; give a folder, "
                f"-o {self._path.with_suffix('')}"
            )
        return dict.fromkeys(images, self._path.name)

    def _check_place(self, images: Sequence[Path]) -> None:
        parent = self._path.absolute().parent
        if not parent.is_dir():
            raise OutputError(f"cannot write {self._path}: folder {parent} does not exist")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"cannot write {self._path}: no permission to write in {parent}")
        if self._is_folder:
            if self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
                what = "is a file" if not self._path.is_dir() else "is a folder with something in it"
                raise OutputError(f"cannot write results to {self._path}: it {what}; give a new or an empty folder")
            return
        if self._path.resolve() in {image.resolve() for image in images}:
            raise OutputError(f"the output {self._path} is the input; give another name")
        document = self._path.with_suffix(".json")
        if document.is_dir():
            raise OutputError(f"cannot write {document}: a folder of that name is there")
