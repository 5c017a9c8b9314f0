"""Frames from a video file, a folder of images or one image, as uint8 RGB arrays.

Needs PyAV for video files and Pillow for images: `pip install "samonnx[video]"`. Images are ordered by the numbers in
their names (frame_2 before frame_10). A video's rotation flag is obeyed, an image's EXIF orientation is not: both as in
the original's loaders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.extras import require_extra

__all__ = ["IMAGE_SUFFIXES", "FrameSource", "VideoError", "images_in", "open_frames", "read_image", "read_mask"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tiff", ".tif", ".webp")
DEFAULT_RATE = Fraction(25)

Frame = npt.NDArray[np.uint8]


class VideoError(SamonnxError):
    """Frames that cannot be read or written."""


@dataclass(frozen=True)
class FrameSource:
    """Frames that can be read any number of times, from the first one.

    `count` is None if the file does not tell; `kind` is "video" or "images", as Tracker takes it.
    """

    path: Path
    width: int
    height: int
    count: int | None
    rate: Fraction
    kind: str
    images: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[Frame]:
        """Yield uint8 [H, W, 3] RGB. Raises VideoError for a frame that is damaged or of another size."""
        frames = self._from_images() if self.kind == "images" else _decode(self.path)
        for index, frame in enumerate(frames):
            if frame.shape[:2] != (self.height, self.width):
                name = self.images[index] if self.kind == "images" else f"frame {index} of {self.path}"
                raise VideoError(
                    f"{name} is {frame.shape[1]} x {frame.shape[0]} pixels, the first {self.width} x {self.height}; "
                    f"all frames of a clip must have one size"
                )
            yield frame

    def _from_images(self) -> Iterator[Frame]:
        for path in self.images:
            yield read_image(path)


def open_frames(path: str | os.PathLike[str]) -> FrameSource:
    """Look at a video file, a folder of images or one image; its first frame is read.

    Raises VideoError: nothing there, not readable, no video stream, no frames, no images in the folder; and
    MissingExtraError.
    """
    path = Path(path)
    if path.is_dir():
        return _image_source(path, images_in(path))
    if not path.exists():
        raise VideoError(f"{path} does not exist; expected a video file, a folder of images, or an image")
    if _is_image(path):
        return _image_source(path, (path,))
    return _video_source(path)


def images_in(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, in the order of the numbers in their names. Raises VideoError if there is none."""
    images = tuple(sorted((path for path in folder.iterdir() if _is_image(path)), key=lambda path: _natural(path.name)))
    if not images:
        raise VideoError(f"folder {folder} has no images; looked for {', '.join(IMAGE_SUFFIXES)}")
    return images


def read_image(path: str | os.PathLike[str]) -> Frame:
    """One image as uint8 [H, W, 3] RGB. Raises VideoError that names it, and MissingExtraError."""
    image_module = require_extra("PIL.Image", "video")
    try:
        with image_module.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise VideoError(f"image {path} does not exist") from error
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise VideoError(f"image {path} cannot be read: {error}") from error


def read_mask(path: str | os.PathLike[str]) -> npt.NDArray[np.bool_]:
    """A mask image as bool [H, W]: an index other than 0 in a palette image; else brighter than half of the range.

    (An image whose largest value is 1 is taken as 0 and 1.) Raises VideoError, MissingExtraError.
    """
    image_module = require_extra("PIL.Image", "video")
    try:
        with image_module.open(path) as image:
            indexed = image.mode == "P"
            values: Frame = np.asarray(image if indexed else image.convert("L"))
    except FileNotFoundError as error:
        raise VideoError(f"mask {path} does not exist") from error
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise VideoError(f"mask {path} cannot be read as an image: {error}") from error
    return np.greater(values, 0 if indexed or values.max(initial=0) <= 1 else 127)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key in which runs of digits count as numbers."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def _image_source(path: Path, images: tuple[Path, ...]) -> FrameSource:
    height, width = read_image(images[0]).shape[:2]
    return FrameSource(path, width, height, len(images), DEFAULT_RATE, "images", images)


def _video_source(path: Path) -> FrameSource:
    first = next(_decode(path), None)
    if first is None:
        raise VideoError(f"{path} has a video stream, but no frame in it; is the file cut short?")
    with _open_container(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or DEFAULT_RATE
        count = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    height, width = first.shape[:2]
    return FrameSource(path, width, height, count or None, Fraction(rate), "video")


def _open_container(path: Path) -> Any:
    """PyAV's container (untyped there); VideoError if it is not a video."""
    av = require_extra("av", "video")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path} cannot be read as a video: {_reason(error)}") from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{path} has no video stream; expected a video file, a folder of images, or an image")
    return container


def _decode(path: Path) -> Iterator[Frame]:
    av = require_extra("av", "video")
    with _open_container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        index = 0
        try:
            for picture in container.decode(stream):
                yield _upright(picture.to_ndarray(format="rgb24"), picture.rotation)
                index += 1
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(
                f"frame {index} of {path} cannot be decoded: {_reason(error)}; is the file cut short?"
            ) from error


def _upright(frame: Frame, rotation: int) -> Frame:
    """Turn by the file's rotation flag, in degrees counter-clockwise; flags that are no quarter turn are left alone."""
    turns = (rotation // 90) % 4 if rotation % 90 == 0 else 0
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
