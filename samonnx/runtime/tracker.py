"""Frames and prompts in, masks out: drives the `track` program over a clip.

Objects are rows of the graph, grouped as many at a time as the recipe says; each has a bank of its own, so an object
may join at any frame. Like the original's predictor: a prompted frame does not attend to memory; a click on a frame
that was tracked already (`correct`) gets that frame's earlier low-resolution logits, clamped to ±32, and replaces the
frame's memory; masks are shown at the size of the video, low-resolution logits resized bilinearly and cut at 0.

Unlike it: frames come in order, so a later prompted frame cannot help an earlier one, and objects are never made to
give way to each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.bank import Bank
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import READ_OUTPUTS, ObjectGroup, RowInputs, SharedInputs
from samonnx.runtime.preprocessing import FrameError, check_frame, network_image, resize_logits
from samonnx.runtime.prompts import ObjectPrompts, PromptError, point_places, prompt_mask
from samonnx.runtime.session import Session

__all__ = ["FrameResult", "Tracker", "TrackerError"]

PREVIOUS_LOGITS_LIMIT = 32.0
"""The original clamps earlier logits to ±32 before it shows them to the decoder again."""


class TrackerError(SamonnxError):
    """Something was asked of the tracker that it cannot do in its present state."""


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was found on one frame; the first axis of every array is the object, in the order of `objects`."""

    frame_index: int
    objects: tuple[int, ...]
    masks: npt.NDArray[np.bool_]
    """[O, H, W], at the size of the video."""
    low_res_logits: npt.NDArray[np.float32]
    """[O, 4h, 4w]; above 0 is the object, -1024 everywhere when it is absent."""
    object_scores: npt.NDArray[np.float32]
    """[O], logits: above 0 the object is present."""
    ious: npt.NDArray[np.float32]
    """[O, 3], predicted IoU of each candidate, 0…1."""
    mask_choice: npt.NDArray[np.int32]
    """[O], the candidate taken; -1 for the single-mask output."""
    prompted: tuple[int, ...]
    """The objects that had a prompt on this frame."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Mask logits at the size of the video, f32 [O, H, W] (computed anew)."""
        height, width = self.masks.shape[1:]
        return resize_logits(self.low_res_logits, width=width, height=height)


class Tracker:
    """Tracks objects through one clip, a frame at a time.

    `folder` is an artifact folder; `target`, `threads`, `providers` as in Session. `num_frames` is the length of the
    clip, which the network's encoding of time depends on below 16 frames; 0 if unknown. `kind` is where frames come
    from, "video" or "images": the original resizes the two differently. Raises ManifestError and SessionError.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        target: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        num_frames: int = 0,
        kind: str = "video",
    ) -> None:
        if kind not in ("video", "images"):
            raise TrackerError(f"kind is {kind!r}; expected 'video' or 'images'")
        self.manifest = Manifest.load(folder)
        self.num_frames = num_frames
        self._folder, self._kind = Path(folder), kind
        self._target, self._threads, self._providers = target, threads, providers
        self._sessions: dict[str, Session] = {}
        self._shared = SharedInputs(self.manifest.preprocessing.size)
        self._open_session("track@first" if self.manifest.has_program("track@first") else "track")
        self.reset()

    def reset(self) -> None:
        """Forget all objects and frames; the next frame is frame 0."""
        self._groups: list[ObjectGroup] = []
        self._places: dict[int, tuple[ObjectGroup, int]] = {}
        self._next_frame = 0
        self._video_size: tuple[int, int] | None = None
        self._frame: npt.NDArray[np.uint8] | None = None
        self._image_of: int | None = None
        self._prompted: tuple[int, ...] = ()

    @property
    def next_frame(self) -> int:
        """Index of the frame that the next `step` is for."""
        return self._next_frame

    @property
    def objects(self) -> tuple[int, ...]:
        """Numbers of the objects that are tracked, in the order in which they came."""
        return tuple(self._places)

    def step(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, ObjectPrompts] | None = None) -> FrameResult:
        """Track through the next frame, uint8 [H, W, 3] RGB; prompts by object number, new numbers are new objects.

        Before any object has been prompted the result is empty and the network does not run. Raises FrameError,
        PromptError, SessionError; after an error in a frame or a prompt the tracker is as before.
        """
        check_frame(frame)
        size = (frame.shape[1], frame.shape[0])
        if self._video_size is not None and size != self._video_size:
            raise FrameError(
                f"frame {self._next_frame} is {size[0]} x {size[1]} pixels, the frames before it "
                f"{self._video_size[0]} x {self._video_size[1]}; one clip has one size (reset() starts another)"
            )
        given = {n: self._row_inputs(n, prompt, size) for n, prompt in (prompts or {}).items()}
        for group in self._groups:
            for row in range(len(group.objects)):
                group.set_row(row, RowInputs())
        self._frame, self._image_of = frame, None
        try:
            self._run(given, self._next_frame, self._groups)
        except BaseException:
            self._frame = None  # neither this frame nor the one before it can be corrected now
            raise
        self._video_size = size
        self._next_frame += 1
        self._prompted = tuple(given)
        return self._result()

    def correct(self, prompts: Mapping[int, ObjectPrompts]) -> FrameResult:
        """Prompt objects on the frame that was stepped last, after having seen its masks; may be repeated.

        Give all clicks on the object so far, as the earlier ones on this frame are replaced. The frame is run again
        from the bank before it, so its earlier memory is gone; a number not seen before is a new object. Raises
        TrackerError if no frame is held, PromptError (nothing has changed then), SessionError (of several groups of
        objects, some may be corrected).
        """
        if self._frame is None or self._video_size is None:
            raise TrackerError("there is no frame to correct: step a frame first (a saved bank does not hold one)")
        given = {}
        for number, prompt in prompts.items():
            logits = self._read(number, "low_res_masks")[0] if number in self._places and prompt.mask is None else None
            given[number] = self._row_inputs(number, prompt, self._video_size, logits)
        self._run(given, self._next_frame - 1, ())
        self._prompted = tuple(dict.fromkeys((*self._prompted, *given)))
        return self._result()

    def track(
        self,
        frames: Iterable[npt.NDArray[np.uint8]],
        prompts: Mapping[int, Mapping[int, ObjectPrompts]],
    ) -> Iterator[FrameResult]:
        """Track through `frames`, with prompts by frame index, then by object number; yields a result for each frame.

        Clicks and boxes for an object that is already tracked are corrections: the frame is tracked first, then
        corrected, as when a user stops there and clicks. Raises what `step` and `correct` raise, and PromptError after
        the last frame if prompts lie beyond it.
        """
        for frame in frames:
            here = prompts.get(self._next_frame, {})
            later = {n: p for n, p in here.items() if n in self._places and p.mask is None}
            result = self.step(frame, {n: p for n, p in here.items() if n not in later})
            yield self.correct(later) if later else result
        beyond = sorted(index for index in prompts if index >= self._next_frame)
        if beyond:
            raise PromptError(f"there is a prompt on frame {beyond[0]}, but the clip has {self._next_frame} frames")

    def bank(self) -> Bank:
        """A copy of all that is remembered, to be saved or restored; not the frame itself, so no `correct` after it."""
        rows = [(group.bank_rows(), row) for group, row in self._places.values()]
        manifest = self.manifest
        tensors = {p.input: np.stack([bank[p.input][row] for bank, row in rows]) for p in manifest.bank if rows}
        empty = Bank.empty(manifest, self.objects)
        return Bank(tensors or empty.tensors, self.objects, self._next_frame, empty.recipe, empty.weights, empty.digest)

    def restore(self, bank: Bank) -> None:
        """Go on from a bank: its objects, its next frame. Objects that hold nothing yet are left out.

        Raises BankError if the bank belongs to another recipe or other weights; the tracker is then as before.
        """
        bank.checked(self.manifest)
        self.reset()
        self._next_frame = bank.next_frame
        for index, (number, held) in enumerate(zip(bank.objects, bank.frames(), strict=True)):
            if held:
                group, row = self._free_place()
                group.fill(row, number, {name: tensor[index] for name, tensor in bank.tensors.items()})
                self._places[number] = (group, row)

    def check_prompts(self, prompts: Mapping[int, ObjectPrompts], *, width: int, height: int) -> None:
        """Raise PromptError for prompts that would be refused on frames of that size; changes nothing."""
        for number, prompt in prompts.items():
            self._row_inputs(number, prompt, (width, height))

    def _row_inputs(
        self,
        number: int,
        prompts: ObjectPrompts,
        video_size: tuple[int, int],
        earlier: npt.NDArray[np.float32] | None = None,
    ) -> RowInputs:
        (width, height), size = video_size, self.manifest.preprocessing.size
        places = self.manifest.memory.points
        try:
            if prompts.mask is not None:
                if "mask_prompt" not in {port.name for port in self.manifest.program("track").inputs}:
                    raise PromptError(
                        f"recipe {self.manifest.recipe!r} was compiled without mask prompts; give points or a box, "
                        f"or compile with --set programs.track.mask_prompt=true"
                    )
                return RowInputs(mask=prompt_mask(prompts.mask, width=width, height=height, size=size))
            coordinates, labels = point_places(prompts, width=width, height=height, size=size, places=places)
        except PromptError as error:
            raise PromptError(f"object {number}: {error}") from error
        limit = PREVIOUS_LOGITS_LIMIT
        clamped = None if earlier is None else np.clip(earlier, -limit, limit)
        return RowInputs(coordinates, labels, None, clamped, attend_memory=prompts.use_memory)

    def _run(self, given: Mapping[int, RowInputs], frame_index: int, groups: Sequence[ObjectGroup]) -> None:
        """Run `groups` and those that `given` concerns on one frame; their banks move on when all have run.

        New objects get a row first. A group that has had this frame already goes back to its bank before it.
        """
        new = [number for number in given if number not in self._places]
        concerned, rewound = list(groups), []
        try:
            for number, inputs in given.items():
                group, row = self._places[number] if number in self._places else self._free_place()
                if group.rewind_to(frame_index):
                    rewound.append(group)
                if number not in self._places:
                    group.assign(row, number)
                    self._places[number] = (group, row)
                group.set_row(row, inputs)
                if group not in concerned:
                    concerned.append(group)
            if concerned:
                self._load_image(frame_index)
            for group in concerned:
                group.run()
        except BaseException:
            for group in rewound:
                group.accept(frame_index)
            for number in new:
                self._unseat(number)
            raise
        for group in concerned:
            group.accept(frame_index)

    def _load_image(self, frame_index: int) -> None:
        assert self._frame is not None
        if self._image_of != frame_index:
            self._shared.image.array[...] = network_image(self._frame, self.manifest.preprocessing, kind=self._kind)
            self._image_of = frame_index
        self._shared.frame_index.array[...] = frame_index
        self._shared.num_frames.array[...] = self.num_frames

    def _unseat(self, number: int) -> None:
        place = self._places.pop(number, None)
        if place is not None:
            place[0].objects[place[1]] = None
            self._groups = [group for group in self._groups if group.objects.count(None) < len(group.objects)]

    def _free_place(self) -> tuple[ObjectGroup, int]:
        for group in self._groups:
            row = group.free_row()
            if row is not None:
                return group, row
        group = ObjectGroup(self.manifest, self._shared, self._open_session)
        self._groups.append(group)
        return group, 0

    def _open_session(self, program: str) -> Session:
        """Opened when first needed: a clip of one frame never loads the general program."""
        if program not in self._sessions:
            self._sessions[program] = Session(
                self._folder,
                program,
                target=self._target,
                threads=self._threads,
                providers=self._providers,
                manifest=self.manifest,
            )
        return self._sessions[program]

    def _read(self, number: int, name: str) -> npt.NDArray[np.float32]:
        group, row = self._places[number]
        array: npt.NDArray[np.float32] = group.outputs[name].array[row]
        return array

    def _result(self) -> FrameResult:
        assert self._video_size is not None
        width, height = self._video_size
        ports = {port.name: port for port in self.manifest.program("track").outputs}
        found = {
            name: np.array([self._read(number, name) for number in self._places]).reshape(-1, *ports[name].shape[1:])
            for name in READ_OUTPUTS
        }
        logits = found["low_res_masks"][:, 0].astype(np.float32)
        masks = resize_logits(logits, width=width, height=height) > 0
        return FrameResult(
            frame_index=self._next_frame - 1,
            objects=self.objects,
            masks=masks,
            low_res_logits=logits,
            object_scores=found["object_score"][:, 0].astype(np.float32),
            ious=found["ious"].astype(np.float32),
            mask_choice=found["mask_choice"].astype(np.int32),
            prompted=self._prompted,
        )
