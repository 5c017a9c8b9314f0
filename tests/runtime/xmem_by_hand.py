"""The hand-made artifact of XMem driven the long way: one graph, `track`, called with plain arrays, every decision from
the rules in the notes of the reference (golden/xmem/NOTES.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompts import MaskPrompt, Points, Prompts
from samonnx.runtime.session import Session
from samonnx.runtime.xmem_prompts import nearest_mask

Array = npt.NDArray[Any]


class ByHand:
    """Objects by row; consolidates right after the step that fills the working memory."""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.load(folder)
        self.info = self.manifest.following()
        self.track, self.consolidate = (Session(folder, name) for name in ("track", "consolidate"))
        self.bank: dict[str, Array] = {
            pair.input: np.full(pair.shape, pair.empty, dtype=pair.dtype) for pair in self.manifest.bank
        }

    def step(self, frame: Array, masks: dict[int, Array]) -> npt.NDArray[np.float32]:
        """Masks bool at the frame's size, by row → probabilities of all rows."""
        info, bank = self.info, self.bank
        given = np.zeros(info.objects, dtype=bool)
        painted = np.zeros((info.objects, info.height, info.width), dtype=np.float32)
        for row, mask in masks.items():
            given[row], painted[row] = True, nearest_mask(mask, info.height, info.width)
        due = bool(given.any()) or int(bank["bank.frame_count"]) - int(bank["bank.last_memory"]) >= info.every
        found = self._call(
            self.track,
            image=network_image(frame, self.manifest.seeing()),
            masks=painted,
            is_given=given,
            memory_frame=np.array(due),
            last_frame=np.array(False),
        )
        if (self.bank["bank.working_frame"] >= 0).all():
            self._call(self.consolidate)
        return np.asarray(found["probabilities"], dtype=np.float32)

    def _call(self, session: Session, **inputs: Array) -> dict[str, Array]:
        wanted = {port.name for port in session.program.inputs}
        found = session.run({name: value for name, value in (self.bank | inputs).items() if name in wanted})
        self.bank |= {name.removeprefix("next_"): value for name, value in found.items() if name.startswith("next_")}
        return found


def box_mask(top: int, left: int, rows: int, columns: int, size: tuple[int, int] = (30, 44)) -> npt.NDArray[np.bool_]:
    """bool [height, width], of the clip's size."""
    mask = np.zeros(size, dtype=bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


def by_mask(top: int, left: int, rows: int, columns: int) -> Prompts:
    """`box_mask` as a prompt."""
    return Prompts(mask=MaskPrompt(box_mask(top, left, rows, columns)))


def click(x: float, y: float, *more: tuple[float, float, int]) -> Prompts:
    """A positive point, and further ones with their labels."""
    points = ((x, y, 1), *more)
    return Prompts(points=Points(tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)))
