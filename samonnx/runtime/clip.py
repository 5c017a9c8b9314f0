"""What `track` of a tracker is given: the frames of a clip, and the prompts of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from samonnx.runtime.preprocessing import check_frame
from samonnx.runtime.prompts import PromptError, Prompts
from samonnx.runtime.sized_boxes import check_sized_box, sized_box
from samonnx.runtime.video import FrameSource, open_frames

__all__ = [
    "BOX_OBJECT",
    "Frames",
    "PromptsByFrame",
    "check_box_on_frame",
    "check_no_prompt_beyond",
    "frames_of",
    "prompts_of",
]

BOX_OBJECT = 1
"""The number of the object that `box` is around."""

Frames = Iterable[npt.NDArray[np.uint8]]
PromptsByFrame = Mapping[int, Mapping[int, Prompts]]


def frames_of(video: str | os.PathLike[str] | Frames) -> FrameSource | Frames:
    """What is at a path, opened; anything else as it is. Raises VideoError and MissingExtraError."""
    return open_frames(video) if isinstance(video, str | os.PathLike) else video


def prompts_of(
    prompts: PromptsByFrame | None, box: Sequence[float] | None, *, first: int, objects: Collection[int]
) -> PromptsByFrame:
    """All prompts by frame, then by object: `prompts`, and `box`, x, y, width, height around object 1 on frame `first`.

    `objects` are tracked already. Without a box it is `prompts` itself, which the caller may add to while tracking.
    Raises PromptError: neither is given, and nothing is tracked; both are, for the same object; no box.
    """
    if box is None:
        if prompts is None and not objects:
            raise PromptError(
                "nothing to track: give box=(x, y, width, height) for one object on the first frame, or prompts by "
                "frame and object number"
            )
        return {} if prompts is None else prompts
    here = {} if prompts is None else prompts.get(first, {})
    if BOX_OBJECT in here:
        raise PromptError(
            f"box is object {BOX_OBJECT} on frame {first}, and prompts have that object on that frame too; "
            f"give one of the two, or the other object another number"
        )
    if BOX_OBJECT in objects:
        raise PromptError(
            f"box is a new object {BOX_OBJECT}, but object {BOX_OBJECT} is tracked already: call reset() before "
            f"another clip, or correct the object by prompts"
        )
    if len(box) != 4:
        raise PromptError(f"box has {len(box)} numbers; expected four: x, y, width, height in pixels of the frame")
    x, y, width, height = map(float, box)
    around = Prompts(boxes=(sized_box(x, y, width, height),))
    return {**(prompts or {}), first: {BOX_OBJECT: around, **here}}


def check_box_on_frame(prompts: PromptsByFrame, first: int, frame: npt.NDArray[np.uint8]) -> None:
    """Raise PromptError, with a word on corners, if the box in what `prompts_of` made reaches beyond the frame.

    Raises FrameError for a frame that is none.
    """
    check_frame(frame)
    for box in prompts[first][BOX_OBJECT].boxes:
        check_sized_box(
            box,
            width=frame.shape[1],
            height=frame.shape[0],
            name="box",
            corners=f"Corners go into prompts={{{first}: {{{BOX_OBJECT}: Prompts(boxes=(Box(x0, y0, x1, y1),))}}}}",
        )


def check_no_prompt_beyond(prompts: PromptsByFrame, frames: int) -> None:
    """Raise PromptError for a prompt on a frame that the clip, of so many frames, has not."""
    beyond = min((index for index in prompts if index >= frames), default=None)
    if beyond is not None:
        raise PromptError(f"there is a prompt on frame {beyond}, but the clip has {frames} frames")
