"""What a validation is run on: frames as uint8 RGB, and one object's prompts by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.prompt_rows import row_inputs
from samonnx.runtime.prompts import Points, PromptError, Prompts
from samonnx.runtime.video import open_frames
from samonnx.seeded import seeded_frame

__all__ = ["SYNTHETIC", "Clip", "synthetic_clip", "video_clip"]

SYNTHETIC = "synthetic"


@dataclass(frozen=True, eq=False)
class Clip:
    """`frames` uint8 [height, width, 3]; `count` is None if the file does not tell; `kind` "video" or "images"."""

    name: str
    width: int
    height: int
    count: int | None
    kind: str
    frames: Iterable[npt.NDArray[np.uint8]]
    prompts: Mapping[int, Prompts]

    @property
    def first(self) -> int:
        """The frame from which the object is tracked."""
        return min(self.prompts)

    def check(self, manifest: Manifest) -> None:
        """Raise PromptError for what is known to be wrong before a frame is run."""
        for index, prompts in self.prompts.items():
            self.check_length(index, self.count)
            row_inputs(manifest, 1, prompts, width=self.width, height=self.height)

    def check_length(self, index: int, count: int | None) -> None:
        """PromptError for a prompt on frame `index` of a clip of `count` frames, if it has no such frame."""
        if count is not None and index >= count:
            raise PromptError(f"there is a prompt on frame {index}, but the clip has {count} frames (0 to {count - 1})")


def synthetic_clip(size: int, count: int, prompts: Mapping[int, Prompts]) -> Clip:
    """The clip that compiles are verified on, rounded to 8 bits as frames are; without prompts a click on the ellipse
    of frame 0, as `samonnx.verify_tracked.clip_prompts` has it."""
    click = Prompts(points=Points(((0.3 * size, 0.4 * size),), (1,)))

    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        for index in range(count):
            yield np.round(seeded_frame(index, size) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)

    return Clip(SYNTHETIC, size, size, count, "video", frames(), prompts or {0: click})


def video_clip(path: Path, limit: int | None, prompts: Mapping[int, Prompts]) -> Clip:
    """A video file, a folder of images or one image, its first `limit` frames. Raises VideoError, MissingExtraError."""
    source = open_frames(path)
    count = source.count if source.count is None or limit is None else min(source.count, limit)
    return Clip(path.name, source.width, source.height, count, source.kind, islice(source, limit), prompts)
