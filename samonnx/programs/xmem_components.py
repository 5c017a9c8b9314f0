"""The components of XMem's programs: one step in parts, and consolidation, free of branches and of state.

Each is one module with tensors in and tensors out, so that it traces on its own; together they are
`samonnx.models.xmem_step.XMemStep`. O objects, H x W the frame, h x w cells of the grid, Q = h · w, k elements that a
position reads; tensors of the bank as in `samonnx.models.xmem_bank.XMemBank`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from samonnx.models.xmem import FrameFeatures, XMem
from samonnx.models.xmem_bank import MemorySizes, XMemBank
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_masks import crop, pad
from samonnx.models.xmem_reading import FoundElements, Reading, find_elements, read_elements
from samonnx.models.xmem_step import FrameFlags, merged_probabilities, next_bank, of_objects

__all__ = [
    "Consolidate",
    "Decode",
    "EncodeKey",
    "EncodeValue",
    "FindElements",
    "MergeMasks",
    "OfBank",
    "ReadElements",
    "WriteBank",
]

LONG = ("long_key", "long_shrinkage", "long_value", "long_use", "long_life", "long_frame", "long_count")
WORKING = (
    "working_key",
    "working_shrinkage",
    "working_selection",
    "working_value",
    "working_use",
    "working_life",
    "working_frame",
)


class OfBank(nn.Module):
    """A component that takes tensors of the bank: those of `fields`, in this order, behind its other inputs."""

    fields: ClassVar[tuple[str, ...]] = ()

    def bank(self, tensors: tuple[Tensor, ...]) -> XMemBank:
        """The bank with these tensors; the others are empty, and nothing reads them."""
        given = dict(zip(self.fields, tensors, strict=True))
        return XMemBank(**{name: given.get(name, torch.zeros(0)) for name in XMemBank._fields})


class EncodeKey(nn.Module):
    """image f32 [1, 3, H, W], normalised → key, shrinkage, selection, f16, f8, f4, see `FrameFeatures`."""

    def __init__(self, model: XMem) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode_key(pad(image)))


class FindElements(OfBank):
    """key, selection f32 [1, K, h, w] → weight f32 [O, Q, k], element i64 [O, Q, k], see `find_elements`."""

    fields = (
        "working_key",
        "working_shrinkage",
        "working_frame",
        "long_key",
        "long_shrinkage",
        "long_frame",
        "long_count",
        "object_since",
    )

    def __init__(self, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k

    def forward(self, key: Tensor, selection: Tensor, *bank: Tensor) -> tuple[Tensor, Tensor]:
        weight, element = find_elements(self.bank(bank), key, selection, self.top_k)
        return weight, element


class ReadElements(OfBank):
    """weight, element → readout f32 [O, V, h, w], working_usage f32 [T, Q], long_usage f32 [L]."""

    fields = ("working_value", "long_value", "object_since")

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, weight: Tensor, element: Tensor, *bank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reading = read_elements(self.bank(bank), FoundElements(weight, element), *self.grid)
        return reading.readout, reading.working_usage, reading.long_usage


class Decode(OfBank):
    """f16, f8, f4 of the frame, readout → logits f32 [O, 16h, 16w], carried f32 [O, C, h, w], the decoder's sensory
    state."""

    fields = ("sensory", "object_since")

    def __init__(self, model: XMem) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        bank = self.bank(tensors)
        logits, carried = self.decoder(f16, f8, f4, readout, of_objects(bank.object_since >= 0, bank.sensory))
        return logits, carried


class MergeMasks(OfBank):
    """logits, masks f32 [O, H, W], is_given bool [O] → probabilities f32 [1 + O, H, W], and padded, f32
    [1 + O, 16h, 16w]."""

    fields = ("object_since", "frame_count")

    def forward(self, logits: Tensor, masks: Tensor, is_given: Tensor, *bank: Tensor) -> tuple[Tensor, Tensor]:
        padded = merged_probabilities(logits, masks, is_given, self.bank(bank))
        # A copy, so that output and inner value are two tensors where nothing is cropped.
        return crop(padded, masks.shape[-2], masks.shape[-1]).clone(), padded


class EncodeValue(OfBank):
    """image, f16, padded probabilities → value f32 [O, V, h, w], encoded f32 [O, C, h, w], the value encoder's sensory
    state."""

    fields = ("sensory", "object_since")

    def __init__(self, model: XMem) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, f16: Tensor, padded: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        bank = self.bank(tensors)
        sensory = of_objects(bank.object_since >= 0, bank.sensory)
        value, encoded = self.model.encode_value(pad(image), f16, sensory, padded[1:])
        return value, encoded


class WriteBank(OfBank):
    """Flags, the frame's key, shrinkage, selection, usage of elements, value and both sensory states → the tensors of
    `changed` after the frame."""

    fields = (
        *WORKING,
        "long_use",
        "long_life",
        "long_count",
        "sensory",
        "object_since",
        "frame_count",
        "last_memory",
    )
    changed: ClassVar[tuple[str, ...]] = (
        *WORKING,
        "long_use",
        "long_life",
        "sensory",
        "object_since",
        "frame_count",
        "last_memory",
    )

    def forward(
        self,
        is_given: Tensor,
        memory_frame: Tensor,
        last_frame: Tensor,
        key: Tensor,
        shrinkage: Tensor,
        selection: Tensor,
        working_usage: Tensor,
        long_usage: Tensor,
        carried: Tensor,
        value: Tensor,
        encoded: Tensor,
        *bank: Tensor,
    ) -> tuple[Tensor, ...]:
        after = next_bank(
            self.bank(bank),
            FrameFlags(is_given, memory_frame, last_frame),
            Reading(value, working_usage, long_usage),
            FrameFeatures(key, shrinkage, selection, key, key, key),
            carried,
            value,
            encoded,
        )
        return tuple(getattr(after, name) for name in self.changed)


class Consolidate(OfBank):
    """The tensors of `changed` after consolidation, if the working memory is full; as they were otherwise."""

    fields = (*WORKING, *LONG, "object_since")
    changed: ClassVar[tuple[str, ...]] = ("working_frame", *LONG)

    def __init__(self, sizes: MemorySizes) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, *bank: Tensor) -> tuple[Tensor, ...]:
        after = consolidate(self.bank(bank), self.sizes)
        return tuple(getattr(after, name) for name in self.changed)
