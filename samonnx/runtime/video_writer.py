"""Frames out: a video file, or a folder of PNG images. Nothing half-written is ever seen under the final name.

Everything is written aside, next to its place, and moved there when the `with` block ends well; if it ends with an
exception (Ctrl-C included), what was written is removed and whatever stood there before stays.
"""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from samonnx.runtime.extras import require_extra
from samonnx.runtime.video import VideoError

__all__ = ["FrameWriter", "ImageFolderWriter", "VideoWriter", "frame_writer"]

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
CODECS = ("libx264", "mpeg4")
"""H.264 if this build of FFmpeg has it, else MPEG-4 part 2, which every build has."""

LARGEST_TIME_BASE = 65535
"""MPEG-4 part 2 counts time in units no finer than this."""


class FrameWriter(Protocol):
    """Something that takes frames in a `with` block."""

    def __enter__(self) -> FrameWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        """One more frame, uint8 [H, W, 3] RGB."""


def frame_writer(path: str | os.PathLike[str], rate: Fraction) -> FrameWriter:
    """A writer for `path`: a video file by its suffix, a folder of PNG images if it has none. VideoError otherwise."""
    path = Path(path)
    if path.suffix.lower() in CONTAINERS:
        return VideoWriter(path, rate)
    if path.suffix and not path.is_dir():
        raise VideoError(
            f"cannot write {path}: expected a name that ends in {', '.join(CONTAINERS)}, "
            f"or one without a suffix for a folder of PNG images"
        )
    return ImageFolderWriter(path)


class VideoWriter:
    """A video file of `rate` frames a second; odd sizes get one more row or column, a copy of the last."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        _check_parent(path)
        if path.is_dir():
            raise VideoError(f"cannot write the video {path}: a folder of that name is there")
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._rate = Fraction(rate).limit_denominator(1001)
        if self._rate.numerator > LARGEST_TIME_BASE or self._rate <= 0:
            self._rate = Fraction(max(1, min(round(rate), 1000)))
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        av = require_extra("av", "video")
        even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        try:
            if self._container is None:
                self._open(width=even.shape[1], height=even.shape[0])
            picture = av.VideoFrame.from_ndarray(even, format="rgb24")
            self._container.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"cannot write the video {self._path}: {error}") from error

    def _open(self, *, width: int, height: int) -> None:
        av = require_extra("av", "video")
        self._container = av.open(str(self._aside), "w", format=CONTAINERS[self._path.suffix.lower()])
        codec = next(name for name in CODECS if name in av.codecs_available)
        options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
        self._stream = self._container.add_stream(codec, rate=self._rate, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._container is not None:
                self._finish(discard=kind is not None)
            if kind is None and self._container is not None:
                os.replace(self._aside, self._path)
        except OSError as problem:
            raise VideoError(f"cannot write the video {self._path}: {problem}") from problem
        finally:
            self._aside.unlink(missing_ok=True)

    def _finish(self, *, discard: bool) -> None:
        try:
            if not discard:
                self._container.mux(self._stream.encode(None))
        finally:
            try:
                self._container.close()
            except OSError:
                if not discard:
                    raise


class ImageFolderWriter:
    """A folder of PNG images, `frame_00000.png` and so on; or named images through `write_named`."""

    def __init__(self, path: Path) -> None:
        _check_parent(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            what = "is a file" if not path.is_dir() else "is a folder with something in it"
            raise VideoError(f"cannot write images to {path}: it {what}; give a new or an empty folder")
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._written = 0

    def __enter__(self) -> ImageFolderWriter:
        return self

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        self.write_named(f"frame_{self._written:05d}.png", frame)
        self._written += 1

    def write_named(self, name: str, image: npt.NDArray[np.uint8]) -> None:
        """One image: uint8 [H, W, 3] RGB or [H, W] grey."""
        image_module = require_extra("PIL.Image", "video")
        try:
            self._aside.mkdir(exist_ok=True)
            image_module.fromarray(image).save(self._aside / name)
        except OSError as error:
            raise VideoError(f"cannot write {self._path / name}: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._aside.is_dir():
                if self._path.is_dir():
                    self._path.rmdir()
                os.replace(self._aside, self._path)
        except OSError as problem:
            raise VideoError(f"cannot write images to {self._path}: {problem}") from problem
        finally:
            shutil.rmtree(self._aside, ignore_errors=True)


def _check_parent(path: Path) -> None:
    """Said before the work is done rather than after it."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise VideoError(f"cannot write {path}: folder {parent} does not exist")
    if not os.access(parent, os.W_OK):
        raise VideoError(f"cannot write {path}: no permission to write in {parent}")
