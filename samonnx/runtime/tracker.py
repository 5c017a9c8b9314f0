"""Frames and prompts in, masks out: drives the `track` program over a clip.

Objects are rows of the graph, grouped as many at a time as the recipe says; each has a bank of its own, so an object
may join at any frame. Like the original's predictor: a prompted frame does not attend to memory (in SAM 2's predictor
a correction does); a click on a frame that was tracked already (`correct`) gets that frame's earlier low-resolution
logits, clamped to ±32, and replaces the frame's memory; masks are shown at the size of the video, low-resolution logits
resized bilinearly and cut at 0.

Unlike it: frames come in order, so a later prompted frame cannot help an earlier one, and objects are never made to
give way to each other. Words and exemplars are looked up on the frames they are given for, not on every frame
(samonnx.runtime.instances).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.bank import Bank
from samonnx.runtime.clip import (
    Frames,
    PromptsByFrame,
    check_box_on_frame,
    check_no_prompt_beyond,
    frames_of,
    prompts_of,
)
from samonnx.runtime.detections import Detections
from samonnx.runtime.frame_result import FrameResult, Search, read_result
from samonnx.runtime.frame_run import run_frame
from samonnx.runtime.instances import InstanceFinder, new_objects
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import ObjectGroup, RowInputs, SharedInputs
from samonnx.runtime.preprocessing import FrameError, check_frame, network_image
from samonnx.runtime.prompt_rows import row_inputs
from samonnx.runtime.prompts import Prompts
from samonnx.runtime.seated_bank import bank_of, seat_objects
from samonnx.runtime.seating import Seating
from samonnx.runtime.session import Session
from samonnx.runtime.step_sessions import StepSessions
from samonnx.runtime.video import FrameSource

__all__ = ["FrameResult", "Tracker", "TrackerError"]


class TrackerError(SamonnxError):
    """Something was asked of the tracker that it cannot do in its present state."""


class Tracker:
    """Tracks objects through one clip, a frame at a time.

    `folder` is an artifact folder; `target`, `threads`, `providers` as in Session. `num_frames` is the length of the
    clip, which the network's encoding of time depends on below 16 frames; 0 if unknown. `kind` is where frames come
    from, "video" or "images": the original resizes the two differently. By default both follow from the file or folder
    that `track` opens, and are 0 and "video" for frames from elsewhere. `threshold` is the score, 0…1, above which an
    instance found by words or exemplars becomes an object, by default the artifact's. `vocabulary` as in Tokenizer, for
    words. Early frames run in graphs made for a bank that holds little yet, opened as the bank fills; `keep_sessions`
    keeps all of them open, which takes memory and saves opening them again after `reset`. Raises ManifestError,
    SessionError, and DetectionError for a threshold that is none.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        num_frames: int | None = None,
        kind: str | None = None,
        threshold: float | None = None,
        vocabulary: Path | None = None,
        keep_sessions: bool = False,
    ) -> None:
        if kind not in (None, "video", "images"):
            raise TrackerError(f"kind is {kind!r}; expected 'video' or 'images'")
        self.manifest = Manifest.load(folder)
        self.manifest.tracking()  # says what to do about an artifact that only detects
        self._wanted = num_frames, kind
        options = target, threads, providers, kind or "video", threshold, vocabulary
        self._finder = InstanceFinder(Path(folder), self.manifest, *options)
        self._shared = SharedInputs(self.manifest.seeing().size)
        open_session = partial(
            Session, folder, target=target, threads=threads, providers=providers, manifest=self.manifest
        )
        self._sessions = StepSessions(self.manifest, open_session, keep=keep_sessions)
        self._sessions.session()
        self._seating = self._new_seating()
        self.reset()

    def reset(self) -> None:
        """Forget all objects and frames; the next frame is frame 0."""
        self._sessions.start_again(self._seating.groups)
        self._seating = self._new_seating()
        self._next_frame = 0
        self._video_size: tuple[int, int] | None = None
        self._frame: npt.NDArray[np.uint8] | None = None
        self._image_of: int | None = None
        self._prompted: tuple[int, ...] = ()
        self._searches: tuple[Search, ...] = ()
        self._follow(0, "video")

    @property
    def open_programs(self) -> tuple[str, ...]:
        """The programs that are loaded now; the last one opened comes last."""
        return self._sessions.open

    @property
    def next_frame(self) -> int:
        """Index of the frame that the next `step` is for."""
        return self._next_frame

    @property
    def objects(self) -> tuple[int, ...]:
        """Numbers of the objects that are tracked, in the order in which they came."""
        return self._seating.numbers

    def step(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, Prompts] | None = None) -> FrameResult:
        """Track through the next frame, uint8 [H, W, 3] RGB; prompts by object number, new numbers are new objects.

        Words and exemplars become one object for each instance that is not tracked yet, by its mask: the best gets the
        number they were given under if it is free, the others the free numbers after it (`FrameResult.searches` lists
        them). Before there is any object the result is empty and `track` does not run. Raises FrameError, PromptError,
        ManifestError (words, and no detector), SessionError; after an error in a frame or a prompt the tracker is as
        before.
        """
        check_frame(frame)
        size = (frame.shape[1], frame.shape[0])
        if self._video_size is not None and size != self._video_size:
            raise FrameError(
                f"frame {self._next_frame} is {size[0]} x {size[1]} pixels, the frames before it "
                f"{self._video_size[0]} x {self._video_size[1]}; one clip has one size (reset() starts another)"
            )
        given = {n: self._row_inputs(n, p, size) for n, p in (prompts or {}).items() if not p.names_a_concept}
        found = self._finder.find_all(frame, prompts or {})
        for group in self._seating.groups:
            for row in range(len(group.objects)):
                group.set_row(row, RowInputs())
        self._frame, self._image_of = frame, None
        try:
            self._run(given, self._next_frame, self._seating.groups)
        except BaseException:
            self._frame = None  # neither this frame nor the one before it can be corrected now
            raise
        self._video_size = size
        self._next_frame += 1
        self._prompted, self._searches = tuple(given), ()
        self._add_instances(found)
        return self._result()

    def correct(self, prompts: Mapping[int, Prompts]) -> FrameResult:
        """Prompt objects on the frame that was stepped last, after having seen its masks; may be repeated.

        Give all clicks on the object so far, as the earlier ones on this frame are replaced. The frame is run again
        from the bank before it, so its earlier memory is gone; a number not seen before is a new object, and words add
        objects as in `step`. Raises TrackerError if no frame is held, PromptError and ManifestError (nothing has
        changed then), SessionError (of several groups of objects, some may be corrected).
        """
        if self._frame is None or self._video_size is None:
            raise TrackerError("there is no frame to correct: step a frame first (a saved bank does not hold one)")
        given = {}
        for number, prompt in prompts.items():
            if not prompt.names_a_concept:
                again = number in self.objects and prompt.mask is None
                logits = self._seating.read(number, "low_res_masks")[0] if again else None
                given[number] = self._row_inputs(number, prompt, self._video_size, logits)
        found = self._finder.find_all(self._frame, prompts)
        self._add(given)
        self._add_instances(found)
        return self._result()

    def track(
        self,
        video: str | os.PathLike[str] | Frames,
        prompts: PromptsByFrame | None = None,
        *,
        box: Sequence[float] | None = None,
    ) -> Iterator[FrameResult]:
        """Track through `video`, with prompts by frame index, then by object number; yields a result for each frame.

        `video` is the path of a video file, an image or a folder of images, what `open_frames` made of one, or frames
        as in `step`. Its first frame is the tracker's next one (frame 0, unless it has seen frames). `box` is x, y,
        width, height around object 1 on that frame, in pixels, instead of `prompts` or beside them.

        Clicks and boxes for an object that is already tracked are corrections: the frame is tracked first, then
        corrected, as when a user stops there and clicks. A number that words gave to an instance is that object on
        later frames. Between two results, objects may be removed and corrected. Raises what `step` and `correct` raise,
        VideoError, and PromptError for prompts that contradict each other, are missing, or (after the last frame) lie
        beyond it. After an error in a frame or a prompt the tracker is as it was after the frame before.
        """
        frames = frames_of(video)
        prompts_of(prompts, box, first=self._next_frame, objects=self.objects)  # said here, not at the first frame
        return self._track(frames, prompts, box)

    def _track(
        self, frames: FrameSource | Frames, given: PromptsByFrame | None, box: Sequence[float] | None
    ) -> Iterator[FrameResult]:
        first = self._next_frame
        prompts = prompts_of(given, box, first=first, objects=self.objects)
        if isinstance(frames, FrameSource):
            self._follow(0 if frames.count is None else first + frames.count, frames.kind)
        for frame in frames:
            here = prompts.get(self._next_frame, {})
            if box is not None and self._next_frame == first:
                check_box_on_frame(prompts, first, frame)
            later = {n: p for n, p in here.items() if n in self.objects and p.mask is None and not p.names_a_concept}
            if later:  # before the step, whose result would be lost
                check_frame(frame)
                self.check_prompts(later, width=frame.shape[1], height=frame.shape[0])
            result = self.step(frame, {n: p for n, p in here.items() if n not in later})
            yield self.correct(later) if later else result
        check_no_prompt_beyond(prompts, self._next_frame)

    def remove(self, number: int) -> None:
        """Stop tracking an object. The others go on as they would have; its row is free for a new one.

        Its number may come again, for an object that starts from nothing. Raises TrackerError if it is not tracked.
        """
        if number not in self._seating:
            there = ", ".join(map(str, self.objects)) or "none"
            raise TrackerError(f"object {number} cannot be removed, as it is not tracked; tracked objects: {there}")
        self._seating.unseat(number)
        self._prompted = tuple(prompted for prompted in self._prompted if prompted != number)

    def bank(self) -> Bank:
        """A copy of all that is remembered, to be saved or restored; not the frame itself, so no `correct` after it."""
        return bank_of(self._seating, self.manifest, self._next_frame)

    def restore(self, bank: Bank) -> None:
        """Go on from a bank: its objects, its next frame. Objects that hold nothing yet are left out.

        Raises BankError if the bank belongs to another recipe or other weights; the tracker is then as before.
        """
        bank.checked(self.manifest)
        self.reset()
        self._next_frame = bank.next_frame
        seat_objects(bank, self._seating)

    def check_prompts(self, prompts: Mapping[int, Prompts], *, width: int, height: int) -> None:
        """Raise PromptError or ManifestError for prompts that would be refused on frames of that size.

        Nothing is run, and nothing changes. Words and exemplars open the detector: raises what Segmenter raises.
        """
        for number, prompt in prompts.items():
            if prompt.names_a_concept:
                self._finder.check(number, prompt, width=width, height=height)
            else:
                self._row_inputs(number, prompt, (width, height))

    def _row_inputs(
        self,
        number: int,
        prompts: Prompts,
        video_size: tuple[int, int],
        earlier: npt.NDArray[np.float32] | None = None,
    ) -> RowInputs:
        width, height = video_size
        return row_inputs(self.manifest, number, prompts, width=width, height=height, earlier=earlier)

    def _add(self, given: Mapping[int, RowInputs]) -> None:
        """Prompt objects on the frame stepped last."""
        self._run(given, self._next_frame - 1, ())
        self._prompted = tuple(dict.fromkeys((*self._prompted, *given)))

    def _add_instances(self, found: Mapping[int, Detections]) -> None:
        """Make objects of what was found on the frame stepped last, unless they are objects already."""
        if not found or self._video_size is None:
            return
        masks, searches = new_objects(found, list(self._result().masks), self.objects)
        self._add({n: self._row_inputs(n, Prompts(mask=mask), self._video_size) for n, mask in masks.items()})
        self._searches += searches

    def _run(self, given: Mapping[int, RowInputs], frame_index: int, groups: Sequence[ObjectGroup]) -> None:
        """Run `groups` and those that `given` concerns on one frame, as `run_frame` does."""
        load_image = partial(self._load_image, frame_index)
        run_frame(self._seating, self._sessions, frame_index, given=given, groups=groups, load_image=load_image)

    def _load_image(self, frame_index: int) -> None:
        assert self._frame is not None
        if self._image_of != frame_index:
            self._shared.image.array[...] = network_image(self._frame, self.manifest.seeing(), kind=self._kind)
            self._image_of = frame_index
        self._shared.frame_index.array[...] = frame_index
        self._shared.num_frames.array[...] = self.num_frames

    def _new_seating(self) -> Seating:
        return Seating(lambda: ObjectGroup(self.manifest, self._shared))

    def _result(self) -> FrameResult:
        assert self._video_size is not None
        return read_result(
            self.manifest,
            self._seating,
            frame_index=self._next_frame - 1,
            video_size=self._video_size,
            prompted=self._prompted,
            searches=self._searches,
        )

    def _follow(self, num_frames: int, kind: str) -> None:
        """Take the clip's length and kind, unless the caller has said others."""
        wanted_frames, wanted_kind = self._wanted
        self.num_frames = num_frames if wanted_frames is None else wanted_frames
        self._kind = kind if wanted_kind is None else wanted_kind
        self._finder.take_frames_of(self._kind)
