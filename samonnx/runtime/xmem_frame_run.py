"""One frame through XMem's graphs: which are called, with which inputs; the bank moves on when all went well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import BoundArray
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompts import EMPTY_PLACE, PromptError
from samonnx.runtime.session import Session
from samonnx.runtime.xmem_memory import XMemMemory
from samonnx.runtime.xmem_prompts import Clicks, GivenObject
from samonnx.runtime.xmem_sessions import XMemSessions

__all__ = ["FrameFound", "XMemFrameRun"]

PROBABILITIES, MASKS, IOUS = "probabilities", "prompt_masks", "prompt_ious"


@dataclass(frozen=True, eq=False)
class FrameFound:
    probabilities: npt.NDArray[np.float32]
    """f32 [1 + O, H, W] of all rows, background first; overwritten by the next call."""
    prompt_ious: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    """Of the objects with clicks or a box, by number."""


class XMemFrameRun:
    """Inputs and outputs beside the bank lie in buffers that never move."""

    def __init__(self, manifest: Manifest, memory: XMemMemory, sessions: XMemSessions) -> None:
        self._manifest, self._memory, self._sessions = manifest, memory, sessions
        ports = {port.name: port for program in manifest.programs for port in (*program.inputs, *program.outputs)}
        self._bound = {
            name: BoundArray(np.zeros(port.sides(), dtype=np.dtype(port.dtype)))
            for name, port in ports.items()
            if not name.startswith(("bank.", "next_bank."))
        }

    def run(
        self, frame: npt.NDArray[np.uint8], given: Mapping[int, GivenObject], seats: Mapping[int, int], *, kind: str
    ) -> FrameFound:
        """`given` by object number; `seats`: the row of each object, new ones included; `kind` as in `network_image`.

        Raises PromptError, with the number, where SAM finds no pixel; SessionError. The bank is as before then, up to a
        consolidation that was due.
        """
        memory, sessions = self._memory, self._sessions
        if not seats:
            memory.skip_frame()
            return FrameFound(self._background())
        if memory.is_full and sessions.consolidates_apart:
            memory.run(sessions.consolidate, {}, {})
            memory.accept(as_step=False)
        self._fill("image", network_image(frame, self._manifest.seeing(), kind=kind))
        self._fill("last_frame", False)
        masks = {seats[number]: one.mask for number, one in given.items() if one.mask is not None}
        clicks = {number: one.clicks for number, one in given.items() if one.clicks is not None}
        ious: dict[int, float] = {}
        if clicks:
            found, ious = self._ask_sam(frame, clicks, seats, kind)
            if not masks:
                return self._accepted(ious)
            masks |= found
        due = bool(masks) or memory.memory_is_due
        self._fill("memory_frame", due)
        self._fill("is_given", False)
        for row, mask in masks.items():
            self._bound["masks"].array[row] = mask
            self._bound["is_given"].array[row] = True
        self._call(sessions.step(due), PROBABILITIES)
        return self._accepted(ious)

    def _ask_sam(
        self, frame: npt.NDArray[np.uint8], clicks: Mapping[int, Clicks], seats: Mapping[int, int], kind: str
    ) -> tuple[dict[int, npt.NDArray[np.float32]], dict[int, float]]:
        """`start` for these objects: their masks f32 [H, W] of 0 and 1 by row, and predicted IoUs by number."""
        info = self._manifest.prompt_preprocessing
        assert info is not None  # or there would be no clicks
        self._fill("prompt_image", network_image(frame, info, kind=kind))
        self._fill("point_coords", 0)
        self._fill("point_labels", EMPTY_PLACE)
        for number, one in clicks.items():
            self._bound["point_coords"].array[seats[number]] = one.coordinates
            self._bound["point_labels"].array[seats[number]] = one.labels
        self._call(self._sessions.start, PROBABILITIES, MASKS, IOUS)
        logits, ious = self._bound[MASKS].array, self._bound[IOUS].array
        masks = {seats[number]: (logits[seats[number]] > 0).astype(np.float32) for number in clicks}
        for number in clicks:
            if not masks[seats[number]].any():
                raise PromptError(
                    f"object {number}: SAM found no pixel for its prompt; give other points, a box, or the mask itself"
                )
        return masks, {number: float(ious[seats[number]]) for number in clicks}

    def _accepted(self, ious: Mapping[int, float]) -> FrameFound:
        self._memory.accept()
        found: npt.NDArray[np.float32] = self._bound[PROBABILITIES].array.astype(np.float32, copy=False)
        return FrameFound(found, ious)

    def _call(self, session: Session, *outputs: str) -> None:
        self._memory.run(session, self._bound, {name: self._bound[name] for name in outputs})

    def _fill(self, name: str, value: npt.ArrayLike) -> None:
        if name in self._bound:
            self._bound[name].array[...] = value

    def _background(self) -> npt.NDArray[np.float32]:
        everywhere: npt.NDArray[np.float32] = np.zeros_like(self._bound[PROBABILITIES].array, dtype=np.float32)
        everywhere[0] = 1
        return everywhere
