"""XMem's memory as a bank of fixed size: working slots, long-term elements, sensory state, counters.

Cheng and Schwing, "XMem" (2022), section 3; upstream `inference/memory_manager.py`, `inference/kv_memory_store.py`.
What upstream keeps in growing tensors and in Python is here, without branches, so that it traces. An *element* of
memory is one cell of the grid of one memory frame; T slots of h · w elements are the working memory, L elements the
long-term one.

- A memory frame takes a slot. When all are filled, `samonnx.models.xmem_consolidation` empties some. If nobody calls
  it, the oldest slot but the first gives way: the memory stays bounded, and forgets.
- The slot of the first frame, the lowest frame index, is never given up.
- Elements count how often they are used (`use`, sums of weights) and for how many readings they have lived (`life`).
  New ones start at 0 and 1e-7, so that usage = use / life is defined.
- An object that joins later has values only from its first frame on: it reads the elements of frames since then. Usage
  is counted by the reading of the object that was there first, which reads all.

Slots are told apart by their frame index, never by their place: a permutation of slots changes nothing but rounding and
which of exactly equal elements comes first.

Deliberate differences for objects that join later, where upstream aligns values with the last keys by count: it keeps
their own first frame's values under the key of the clip's first frame, and long-term values under whichever prototypes
came last. Here values stay with their keys, as for all others, and the removal of obsolete elements works for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.xmem import FrameFeatures, XMemWidths

__all__ = [
    "MemorySizes",
    "XMemBank",
    "empty_bank",
    "long_is_filled",
    "memory_due",
    "working_is_full",
    "write_memory",
]

NEW_LIFE = 1e-7
FAR = 2**30


@dataclass(frozen=True)
class MemorySizes:
    """Sizes of the memory; upstream's names in brackets.

    `working_frames` T, frames at which the working memory is consolidated (max_mid_term_frames), and
    `min_working_frames`, how many it then keeps, the first frame among them (min_mid_term_frames); `long_term` L, most
    elements (max_long_term_elements); `prototypes`, elements that a consolidation adds, all candidates if there are
    fewer (num_prototypes); `every`, frames from one memory frame to the next (mem_every); `top_k`, elements that a
    position reads, all if there are fewer (top_k).
    """

    working_frames: int = 10
    min_working_frames: int = 5
    long_term: int = 10000
    prototypes: int = 128
    every: int = 5
    top_k: int = 30

    def __post_init__(self) -> None:
        names = ("working_frames", "min_working_frames", "long_term", "prototypes", "every", "top_k")
        problems = [f"{name} {getattr(self, name)} (at least 1 expected)" for name in names if getattr(self, name) < 1]
        if self.working_frames <= self.min_working_frames:
            problems.append(
                f"working_frames {self.working_frames} with min_working_frames {self.min_working_frames} (more "
                "expected: a consolidation keeps min_working_frames, and must free a slot)"
            )
        if self.long_term < self.prototypes:
            problems.append(
                f"long_term {self.long_term} with prototypes {self.prototypes} (at least as many expected: a "
                "consolidation adds them at once)"
            )
        if problems:
            raise SamonnxError(f"memory: {'; '.join(problems)}")

    @property
    def consolidated_frames(self) -> int:
        """Frames that a consolidation turns into prototypes: all but the first and the latest min_working_frames - 1
        ones."""
        return self.working_frames - self.min_working_frames


class XMemBank(NamedTuple):
    """T slots, n = h · w cells of the grid (row by row), L long-term elements, O objects; K, V, C channels of key,
    value and sensory state. What stands in an empty place is never looked at (any finite value)."""

    working_key: Tensor
    """f32 [T, n, K]"""
    working_shrinkage: Tensor
    """f32 [T, n], at least 1"""
    working_selection: Tensor
    """f32 [T, n, K], 0 to 1; consolidation alone reads it"""
    working_value: Tensor
    """f32 [O, T, n, V]"""
    working_use: Tensor
    """f32 [T, n], sum of the weights with which the element was read"""
    working_life: Tensor
    """f32 [T, n], readings since it was written, + 1e-7"""
    working_frame: Tensor
    """i32 [T], frame index of the slot; -1 is an empty slot"""
    long_key: Tensor
    """f32 [L, K]"""
    long_shrinkage: Tensor
    """f32 [L], at least 1"""
    long_value: Tensor
    """f32 [O, L, V]"""
    long_use: Tensor
    """f32 [L]"""
    long_life: Tensor
    """f32 [L]"""
    long_frame: Tensor
    """i32 [L], frame that the element was chosen from"""
    long_count: Tensor
    """i32 [], elements in the first places; the others are empty"""
    sensory: Tensor
    """f32 [O, C, h, w]"""
    object_since: Tensor
    """i32 [O], frame at which the object was first given a mask; -1: no object"""
    frame_count: Tensor
    """i32 [], frames so far, which is the index of the next one"""
    last_memory: Tensor
    """i32 [], the latest memory frame; 0 before there is one"""


def empty_bank(
    sizes: MemorySizes,
    widths: XMemWidths,
    objects: int,
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
) -> XMemBank:
    """The bank before the first frame, zeros; `height`, `width`: of the grid, a sixteenth of the padded frame."""
    slots, cells, capacity = sizes.working_frames, height * width, sizes.long_term

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def integers(value: int, *shape: int) -> Tensor:
        return torch.full(shape, value, dtype=torch.int32)

    return XMemBank(
        working_key=zeros(slots, cells, widths.key),
        working_shrinkage=zeros(slots, cells),
        working_selection=zeros(slots, cells, widths.key),
        working_value=zeros(objects, slots, cells, widths.value),
        working_use=zeros(slots, cells),
        working_life=zeros(slots, cells),
        working_frame=integers(-1, slots),
        long_key=zeros(capacity, widths.key),
        long_shrinkage=zeros(capacity),
        long_value=zeros(objects, capacity, widths.value),
        long_use=zeros(capacity),
        long_life=zeros(capacity),
        long_frame=integers(-1, capacity),
        long_count=integers(0),
        sensory=zeros(objects, widths.sensory, height, width),
        object_since=integers(-1, objects),
        frame_count=integers(0),
        last_memory=integers(0),
    )


def memory_due(bank: XMemBank, every: int, is_given: Tensor, last_frame: Tensor) -> Tensor:
    """bool []: whether the next frame is a memory frame: a mask is given (is_given bool [O]) or `every` frames have
    passed since the last one, and it is not the clip's last (last_frame bool [])."""
    return (is_given.any() | (bank.frame_count - bank.last_memory >= every)) & ~last_frame


def working_is_full(bank: XMemBank) -> Tensor:
    """bool []: all slots are filled, so that consolidation is due before the next frame."""
    return (bank.working_frame >= 0).all()


def long_is_filled(bank: XMemBank, of_places: Tensor) -> Tensor:
    """bool [L]; `of_places` is any tensor of the bank with L as its first axis."""
    return torch.arange(of_places.shape[0], dtype=torch.int32) < bank.long_count


def _slot_to_write(frame: Tensor) -> Tensor:
    """i32 [T] → i64 [1], an empty slot, or that of the oldest frame but the first."""
    filled = frame >= 0
    first = filled & (frame == torch.where(filled, frame, FAR).amin(0, keepdim=True))
    badness = torch.where(filled, FAR // 2 - frame, FAR)
    badness = torch.where(first, -1, badness)
    return badness.argmax(0, keepdim=True)


def write_memory(bank: XMemBank, features: FrameFeatures, value: Tensor, written: Tensor) -> XMemBank:
    """Put frame `frame_count` into a slot, if `written` (bool []); value f32 [O, V, h, w].

    The slot is taken out, chosen and put back, so that the other slots are copied and not computed.
    """
    slot = _slot_to_write(bank.working_frame)
    key, shrinkage, selection = (
        x[0].flatten(1).T[None] for x in (features.key, features.shrinkage, features.selection)
    )
    rows = value.flatten(2).transpose(1, 2)
    objects = torch.arange(rows.shape[0])

    def put(new: Tensor, old: Tensor) -> Tensor:
        kept = old.index_select(0, slot)
        return old.index_put((slot,), torch.where(written, new, kept))

    unused = torch.zeros_like(shrinkage[:, :, 0])
    kept_values = bank.working_value.index_select(1, slot)[:, 0]
    return bank._replace(
        working_key=put(key, bank.working_key),
        working_shrinkage=put(shrinkage[:, :, 0], bank.working_shrinkage),
        working_selection=put(selection, bank.working_selection),
        working_value=bank.working_value.index_put(
            (objects, slot.expand(rows.shape[0])), torch.where(written, rows, kept_values)
        ),
        working_use=put(unused, bank.working_use),
        working_life=put(unused + NEW_LIFE, bank.working_life),
        working_frame=put(bank.frame_count[None], bank.working_frame),
        last_memory=torch.where(written, bank.frame_count, bank.last_memory),
    )
