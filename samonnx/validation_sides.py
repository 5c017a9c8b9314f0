"""The two sides of a validation, each a frame at a time: the emitted graphs, driven as the runtime's Tracker drives
them, and the eager reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from samonnx.eager_tracker import eager_tracker
from samonnx.graph_session import Array
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures, encode_image
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Port
from samonnx.recipe import MemorySpec
from samonnx.reference_bank import bank_of_reference
from samonnx.runtime.frame_run import run_frame
from samonnx.runtime.manifest import Manifest, PortInfo
from samonnx.runtime.object_group import BoundArray, ObjectGroup, RowInputs, SharedInputs
from samonnx.runtime.seating import Seating
from samonnx.runtime.session import Session
from samonnx.runtime.step_sessions import StepSessions
from samonnx.validation import SideFrame, SideMotion

__all__ = ["OBJECT", "EagerSide", "GraphSide"]

OBJECT = 1
"""The one object's number: objects do not know of each other."""

PHASE = "phase"
"""The output of SAMURAI's graphs that says how the mask was chosen."""


class GraphSide:
    """The `track` graphs of an artifact with one object, opened by `open_session` as the bank fills, the first at once.

    `num_frames` of the clip, 0 if unknown. `probes`: outputs that the sessions have beside the manifest's, each by the
    name of the map that it gives.
    """

    def __init__(
        self,
        manifest: Manifest,
        open_session: Callable[[str], Session],
        num_frames: int,
        probes: Mapping[str, PortInfo] | None = None,
    ) -> None:
        self._manifest = manifest
        self._sessions = StepSessions(manifest, open_session)
        self._sessions.session()  # what is wrong with the files is said now
        self._shared = SharedInputs(manifest.seeing().size)
        self._num_frames = num_frames
        self._seating = Seating(self._new_group)
        self._probes = dict(probes or {})

    @property
    def graph(self) -> str:
        """The program that ran the last frame."""
        return self._sessions.open[-1]

    def step(
        self,
        frame_index: int,
        image: npt.NDArray[np.float32],
        given: RowInputs | None = None,
        bank: Mapping[str, Array] | None = None,
    ) -> SideFrame:
        """Track the next frame, image f32 [1, 3, S, S], from `bank` (all rows; by default its own). The object's first
        frame must have a prompt. Raises SessionError."""
        for group in self._seating.groups:
            for row in range(len(group.objects)):
                group.set_row(row, RowInputs())
        if bank is not None and OBJECT in self._seating:
            group, row = self._seating.place(OBJECT)
            group.fill(row, OBJECT, {name: rows[row] for name, rows in bank.items()})
        return self._run(frame_index, image, given, self._seating.groups)

    def correct(self, frame_index: int, image: npt.NDArray[np.float32], given: RowInputs) -> SideFrame:
        """Track the frame of the last step again, from the bank before it."""
        return self._run(frame_index, image, given, ())

    def _run(
        self,
        frame_index: int,
        image: npt.NDArray[np.float32],
        given: RowInputs | None,
        groups: list[ObjectGroup] | tuple[()],
    ) -> SideFrame:
        def load_image() -> None:
            self._shared.image.array[...] = image
            self._shared.frame_index.array[...] = frame_index
            self._shared.num_frames.array[...] = self._num_frames

        prompts = {} if given is None else {OBJECT: given}
        run_frame(self._seating, self._sessions, frame_index, given=prompts, groups=groups, load_image=load_image)
        return self._read()

    def _new_group(self) -> ObjectGroup:
        """With outputs that the tracker does not look at."""
        group = ObjectGroup(self._manifest, self._shared)
        more = [port for port in self._manifest.program("track").outputs if port.name == PHASE]
        for port in (*more, *self._probes.values()):
            group.outputs[port.name] = BoundArray(np.zeros(port.sides(), np.dtype(port.dtype)))
        return group

    def _read(self) -> SideFrame:
        group, row = self._seating.place(OBJECT)
        found = {name: bound.array for name, bound in group.outputs.items()}
        motion = None
        if PHASE in found:
            bank = group.bank_rows()
            motion = SideMotion(
                int(found[PHASE][row]),
                int(bank["bank.stable_frames"][row]),
                bank["bank.kalman_mean"][row].astype(np.float32),
                bank["bank.kalman_covariance"][row].astype(np.float32),
            )
        return SideFrame(
            low_res_masks=found["low_res_masks"][row, 0].astype(np.float32),
            ious=np.concatenate((found["ious"][row], found["iou"][row])).astype(np.float32),
            mask_choice=int(found["mask_choice"][row]),
            object_score=float(found["object_score"][row, 0]),
            motion=motion,
            maps={name: found[port.name].astype(np.float32) for name, port in self._probes.items()},
        )


class EagerSide:
    """The eager reference with one object, over a clip of `num_frames` frames (0: unknown)."""

    def __init__(self, model: TrackedModel, memory: MemorySpec, num_frames: int) -> None:
        self._model, self._memory = model, memory
        self._tracker = eager_tracker(model, memory, num_frames)

    def encode(self, image: npt.NDArray[np.float32]) -> ImageFeatures:
        """Image f32 [1, 3, S, S], normalised."""
        with torch.inference_mode():
            return encode_image(self._model, torch.from_numpy(image))

    def step(self, frame_index: int, maps: ImageFeatures, given: RowInputs | None = None) -> SideFrame:
        """Track the next frame, or the last one again (a correction)."""
        prompt = _frame_prompt(given)
        with torch.inference_mode():
            record = self._tracker.step(frame_index, maps, prompt, given is None or given.attend_memory)
            self._tracker.remember(frame_index, _remembered(record), prompt)
        return _side_frame(record)

    def bank(self, manifest: Manifest, frame_index: int) -> dict[str, Array]:
        """What the graph would hold before that frame, `bank.*` by name, all rows alike."""
        ports = {
            port.name: Port(port.name, port.dtype, port.shape, port.meaning)
            for port in manifest.program("track").inputs
        }
        return bank_of_reference(self._tracker, ports, frame_index, self._memory)


def _frame_prompt(given: RowInputs | None) -> FramePrompt:
    """A row of the graph as the reference takes it: without empty places."""
    if given is None:
        return FramePrompt()
    if given.mask is not None:
        return FramePrompt(mask=torch.from_numpy(given.mask))
    assert given.coordinates is not None
    assert given.labels is not None
    filled = given.labels >= 0
    earlier = None if given.previous_logits is None else torch.from_numpy(given.previous_logits[0])
    coordinates, labels = torch.from_numpy(given.coordinates[filled]), torch.from_numpy(given.labels[filled])
    return FramePrompt(coordinates, labels, None, earlier)


def _remembered(record: FrameRecord) -> FrameRecord:
    """Without what no later frame looks at: the masks are most of it, and a clip may be long."""
    nothing = torch.zeros(0)
    return replace(record, conditioned=None, output=replace(record.output, masks=nothing, low_res_masks=nothing))


def _side_frame(record: FrameRecord) -> SideFrame:
    output, motion = record.output, None
    if record.motion is not None:
        state = record.motion.state
        motion = SideMotion(
            int(record.motion.phase[0]),
            int(state.stable_frames[0]),
            state.mean[0].numpy().astype(np.float32),
            state.covariance[0].numpy().astype(np.float32),
        )
    return SideFrame(
        low_res_masks=output.low_res_masks[0, 0].numpy().astype(np.float32),
        ious=torch.cat((output.ious[0], output.iou[0])).numpy().astype(np.float32),
        mask_choice=int(output.mask_choice[0]),
        object_score=float(output.object_score[0, 0]),
        motion=motion,
    )
