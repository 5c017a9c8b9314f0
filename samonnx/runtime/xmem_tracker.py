"""Frames and prompts in, masks out: drives the programs of XMem, with SAM in front of them or without.

Objects are rows of one graph with one memory, coupled by soft aggregation: a pixel belongs to one of them or to the
background. What the original's `inference_core.py` decides in Python is decided here from the bank's counters: a frame
with a mask given is a memory frame, and so is one `every` frames after the last; a full working memory is consolidated
before the next frame. The clip's last frame is a frame like any other (the original's `end` keeps it out of a memory
that nobody reads any more). Frames before the first prompt pass without a call.

A mask given for an object that is tracked replaces the prediction, and is remembered. A click or a box is a new
question to SAM (multimask off, its mask cut at 0 in XMem's frame), whose answer is then given: clicks of earlier frames
play no part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from samonnx.runtime.clip import (
    Frames,
    PromptsByFrame,
    check_box_on_frame,
    check_no_prompt_beyond,
    frames_of,
    prompts_of,
)
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.preprocessing import FrameError, check_frame
from samonnx.runtime.prompts import PromptError, Prompts
from samonnx.runtime.session import Session
from samonnx.runtime.tracker import TrackerError
from samonnx.runtime.video import FrameSource
from samonnx.runtime.xmem_bank import XMemBank
from samonnx.runtime.xmem_frame_run import XMemFrameRun
from samonnx.runtime.xmem_memory import XMemMemory
from samonnx.runtime.xmem_prompts import GivenObject, given_object
from samonnx.runtime.xmem_result import XMemResult, read_probabilities
from samonnx.runtime.xmem_sessions import XMemSessions

__all__ = ["XMemTracker"]


class XMemTracker:
    """Tracks objects through one clip, a frame at a time.

    `folder` is an artifact folder; `target`, `threads`, `providers` as in Session. `kind` is where frames come from,
    "video" or "images", by default what `track` opens. `keep_sessions` keeps the graphs for prompted frames open, which
    takes memory and saves opening them again. Raises ManifestError and SessionError.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        kind: str | None = None,
        keep_sessions: bool = False,
    ) -> None:
        if kind not in (None, "video", "images"):
            raise TrackerError(f"kind is {kind!r}; expected 'video' or 'images'")
        self.manifest = Manifest.load(folder)
        self.manifest.following()  # says what to do about another artifact
        open_session = partial(
            Session, folder, target=target, threads=threads, providers=providers, manifest=self.manifest
        )
        self._sessions = XMemSessions(self.manifest, open_session, keep=keep_sessions)
        self._memory = XMemMemory(self.manifest)
        self._calls = XMemFrameRun(self.manifest, self._memory, self._sessions)
        self._wanted_kind = kind
        self._forget_frame()

    def reset(self) -> None:
        """Forget all objects and frames; the next frame is frame 0."""
        self._memory.restore(XMemBank.empty(self.manifest))
        self._forget_frame()

    def _forget_frame(self) -> None:
        self._kind = self._wanted_kind or "video"
        self._video_size: tuple[int, int] | None = None
        self._frame: npt.NDArray[np.uint8] | None = None
        self._given: dict[int, GivenObject] = {}

    @property
    def open_programs(self) -> tuple[str, ...]:
        """The programs that are loaded now; the last one opened comes last."""
        return self._sessions.open

    @property
    def next_frame(self) -> int:
        """Index of the frame that the next `step` is for."""
        return self._memory.next_frame

    @property
    def objects(self) -> tuple[int, ...]:
        """Numbers of the objects that are tracked, in the order in which they came."""
        return self._memory.objects

    def step(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, Prompts] | None = None) -> XMemResult:
        """Track through the next frame, uint8 [H, W, 3] RGB; prompts by object number, new numbers are new objects.

        Before there is any object the result is empty and no graph runs. Raises FrameError, PromptError, SessionError;
        after an error the tracker is as before.
        """
        check_frame(frame)
        size = (frame.shape[1], frame.shape[0])
        if self._video_size is not None and size != self._video_size:
            raise FrameError(
                f"frame {self.next_frame} is {size[0]} x {size[1]} pixels, the frames before it "
                f"{self._video_size[0]} x {self._video_size[1]}; one clip has one size (reset() starts another)"
            )
        given = self._checked(prompts or {}, size)
        result = self._run(frame, given)
        self._frame, self._given, self._video_size = frame, given, size
        return result

    def correct(self, prompts: Mapping[int, Prompts]) -> XMemResult:
        """Prompt objects on the frame that was stepped last, after having seen its masks; may be repeated.

        The frame is run again from the bank before it, with what was given on it before, but for the objects in
        `prompts`. Raises TrackerError if no frame is held, PromptError and SessionError (the tracker is as before).
        """
        if self._frame is None or self._video_size is None:
            raise TrackerError("there is no frame to correct: step a frame first (a saved bank does not hold one)")
        frame, before = self._frame, self._given
        given = {**before, **self._checked(prompts, self._video_size)}
        self._memory.rewind()
        self._frame = None  # in case that the frame cannot be run as it was, either
        try:
            result = self._run(frame, given)
        except BaseException:
            self._run(frame, before)
            self._frame = frame
            raise
        self._frame, self._given = frame, given
        return result

    def track(
        self,
        video: str | os.PathLike[str] | Frames,
        prompts: PromptsByFrame | None = None,
        *,
        box: Sequence[float] | None = None,
    ) -> Iterator[XMemResult]:
        """Track through `video`, with prompts by frame index, then by object number; yields a result for each frame.

        `video` is the path of a video file, an image or a folder of images, what `open_frames` made of one, or frames
        as in `step`. Its first frame is the tracker's next one (frame 0, unless it has seen frames). `box` is x, y,
        width, height around object 1 on that frame, in pixels, instead of `prompts` or beside them.

        Between two results, objects may be removed and corrected. Raises what `step` raises, VideoError, and
        PromptError for prompts that contradict each other, are missing, or (after the last frame) lie beyond it. After
        an error in a frame or a prompt the tracker is as it was after the frame before.
        """
        frames = frames_of(video)
        prompts_of(prompts, box, first=self.next_frame, objects=self.objects)  # said here, not at the first frame
        return self._track(frames, prompts, box)

    def _track(
        self, frames: FrameSource | Frames, given: PromptsByFrame | None, box: Sequence[float] | None
    ) -> Iterator[XMemResult]:
        first = self.next_frame
        prompts = prompts_of(given, box, first=first, objects=self.objects)
        if isinstance(frames, FrameSource):
            self._kind = self._wanted_kind or frames.kind
        for frame in frames:
            if box is not None and self.next_frame == first:
                check_box_on_frame(prompts, first, frame)
            yield self.step(frame, prompts.get(self.next_frame, {}))
        check_no_prompt_beyond(prompts, self.next_frame)

    def remove(self, number: int) -> None:
        """Stop tracking an object; its row is free for a new one, and its pixels for the others from the next frame on.

        What none of the others can read goes too: the memory of frames before their first, and all of it with the last
        object. Its number may come again, for an object that starts from nothing. Raises TrackerError if it is not
        tracked.
        """
        if number not in self.objects:
            there = ", ".join(map(str, self.objects)) or "none"
            raise TrackerError(f"object {number} cannot be removed, as it is not tracked; tracked objects: {there}")
        self._memory.remove(number)
        self._given = {known: given for known, given in self._given.items() if known != number}

    def bank(self) -> XMemBank:
        """A copy of all that is remembered, to be saved or restored; not the frame itself, so no `correct` after it."""
        return self._memory.bank()

    def restore(self, bank: XMemBank) -> None:
        """Go on from a bank: its objects, its next frame.

        Raises BankError if the bank belongs to another recipe or other weights; the tracker is then as before.
        """
        self._memory.restore(bank)
        self._forget_frame()

    def check_prompts(self, prompts: Mapping[int, Prompts], *, width: int, height: int) -> None:
        """Raise PromptError for prompts that would be refused on frames of that size. Nothing is run."""
        for number, prompt in prompts.items():
            given_object(self.manifest, number, prompt, width=width, height=height)

    def _checked(self, prompts: Mapping[int, Prompts], size: tuple[int, int]) -> dict[int, GivenObject]:
        width, height = size
        given = {n: given_object(self.manifest, n, p, width=width, height=height) for n, p in prompts.items()}
        rows, new = self._memory.rows, [number for number in given if number not in self.objects]
        if len(new) > rows.count(None):
            there = ", ".join(map(str, self.objects)) or "none"
            needed = len(rows) - rows.count(None) + len(new)
            raise PromptError(
                f"object {new[rows.count(None)]} is one too many: the graph has {len(rows)} "
                f"row{'' if len(rows) == 1 else 's'} for objects (tracked: {there}). Remove one, or compile with "
                f"--set programs.track.objects={needed}"
            )
        return given

    def _run(self, frame: npt.NDArray[np.uint8], given: Mapping[int, GivenObject]) -> XMemResult:
        """One step; after an error the memory is as before, up to a consolidation that was due."""
        index = self.next_frame
        seats = self._memory.seats()
        free = [row for row, number in enumerate(self._memory.rows) if number is None]
        seats |= dict(zip((number for number in given if number not in seats), free, strict=False))
        found = self._calls.run(frame, given, seats, kind=self._kind)
        for number, row in seats.items():
            self._memory.rows[row] = number
        return read_probabilities(
            found.probabilities,
            [seats[number] for number in self.objects],
            self.objects,
            frame_index=index,
            video_size=(frame.shape[1], frame.shape[0]),
            prompted=tuple(given),
            prompt_ious=found.prompt_ious,
        )
