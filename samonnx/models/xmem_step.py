"""One step of XMem over its bounded bank: frame, given masks and bank → probabilities and the next bank.

Upstream `inference/inference_core.py` (`step`), without its branches; they are flags, so that pinning one to a constant
leaves the exact specialisation (`memory_frame` false: nothing of the value encoder is needed).

1. The frame is padded to multiples of 16 and its key encoded.
2. It is read against memory, decoded and aggregated. It is not in memory yet itself. If every object has a mask given,
   upstream skips this, so that the usage counters stay as they are.
3. Given masks take the place of the prediction, and make new objects.
4. A memory frame's value is encoded from the aggregated probabilities (of a given mask too) and written.
5. The sensory state becomes that of the value encoder on a memory frame, else that of the decoder.

An object without a mask so far has probability 0, and a frame before the first mask is background and not memorised,
where upstream fails.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.xmem import STRIDE, FrameFeatures, XMem
from samonnx.models.xmem_bank import MemorySizes, XMemBank, write_memory
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_masks import aggregate, crop, merge_given, pad, padded_size
from samonnx.models.xmem_reading import Reading, count_usage, find_elements, read_elements

__all__ = ["FrameFlags", "XMemFrame", "XMemStep", "joined", "merged_probabilities", "next_bank", "of_objects"]


class XMemFrame(NamedTuple):
    """`probabilities` f32 [1 + O, H, W], background first, summing to 1; the next `bank`."""

    probabilities: Tensor
    bank: XMemBank


class FrameFlags(NamedTuple):
    """`is_given` bool [O], objects with a mask; `memory_frame`, `last_frame` bool []: upstream's are `memory_due`, and
    `end`, which leaves memory as it is."""

    is_given: Tensor
    memory_frame: Tensor
    last_frame: Tensor


class XMemStep(nn.Module):
    """`together`: all objects join on the same frame, see `find_elements`; `consolidates`: a step that fills the
    working memory consolidates it too (otherwise the caller does, before the next frame)."""

    def __init__(self, model: XMem, sizes: MemorySizes, together: bool = False, consolidates: bool = False) -> None:
        super().__init__()
        self.model = model
        self.sizes = sizes
        self.together = together
        self.consolidates = consolidates

    def forward(
        self,
        image: Tensor,
        masks: Tensor,
        is_given: Tensor,
        memory_frame: Tensor,
        last_frame: Tensor,
        bank: XMemBank,
    ) -> XMemFrame:
        """image f32 [1, 3, H, W], normalised; masks f32 [O, H, W] of 0 and 1, looked at where is_given; flags as in
        `FrameFlags`.

        Raises SamonnxError for masks of another size, another number of objects than the bank holds, a bank for frames
        of another size.
        """
        _check_shapes(image, masks, is_given, bank)
        flags, known_before = FrameFlags(is_given, memory_frame, last_frame), bank.object_since >= 0
        sensory = of_objects(known_before, bank.sensory)

        padded = pad(image)
        features = self.model.encode_key(padded)
        found = find_elements(bank, features.key, features.selection, self.sizes.top_k, self.together)
        reading = read_elements(bank, found, features.key.shape[-2], features.key.shape[-1])
        logits, carried = self.model.decode(features, reading.readout, sensory)
        probabilities = merged_probabilities(logits, masks, is_given, bank)
        value, encoded = self.model.encode_value(padded, features.f16, sensory, probabilities[1:])
        bank = next_bank(bank, flags, reading, features, carried, value, encoded)
        if self.consolidates:
            bank = consolidate(bank, self.sizes)
        return XMemFrame(crop(probabilities, image.shape[-2], image.shape[-1]), bank)


def joined(bank: XMemBank, is_given: Tensor) -> Tensor:
    """i32 [O], `object_since` with the objects whose first mask this frame gives."""
    return torch.where(is_given & (bank.object_since < 0), bank.frame_count, bank.object_since)


def merged_probabilities(logits: Tensor, masks: Tensor, is_given: Tensor, bank: XMemBank) -> Tensor:
    """Step 3: logits f32 [O, 16h, 16w], masks f32 [O, H, W] → f32 [1 + O, 16h, 16w]."""
    predicted = aggregate(logits.sigmoid(), bank.object_since >= 0)
    merged = aggregate(merge_given(predicted[1:], pad(masks), is_given), joined(bank, is_given) >= 0)
    return torch.where(is_given.any(), merged, predicted)


def next_bank(
    bank: XMemBank,
    flags: FrameFlags,
    reading: Reading,
    features: FrameFeatures,
    carried: Tensor,
    value: Tensor,
    encoded: Tensor,
) -> XMemBank:
    """Counters, memory and sensory state after the frame: `carried` is the decoder's, `encoded` the value encoder's,
    f32 [O, C, h, w]; value f32 [O, V, h, w]. Of `features` key, shrinkage and selection are read."""
    known_before, since = bank.object_since >= 0, joined(bank, flags.is_given)
    known = since >= 0
    predicts, writes = (known & ~flags.is_given).any(), flags.memory_frame & known.any()
    carries = predicts & ~flags.memory_frame & ~flags.last_frame
    kept = torch.where(carries, of_objects(known_before, carried), of_objects(known_before, bank.sensory))
    return write_memory(count_usage(bank, reading, predicts), features, value, writes)._replace(
        sensory=torch.where(writes, of_objects(known, encoded), kept),
        object_since=since,
        frame_count=bank.frame_count + 1,
    )


def _check_shapes(image: Tensor, masks: Tensor, is_given: Tensor, bank: XMemBank) -> None:
    objects, size = bank.object_since.shape[0], image.shape[-2:]
    if masks.shape[0] != objects or is_given.shape[0] != objects:
        raise SamonnxError(
            f"masks of {masks.shape[0]} objects (is_given: {is_given.shape[0]}) found, but the bank holds {objects}; "
            "fill up with rows that are not given, or make a bank for more objects"
        )
    if masks.shape[1:] != size:
        raise SamonnxError(f"masks of {list(masks.shape[1:])} pixels found, expected those of the frame, {list(size)}")
    grid = [padded_size(pixels) // STRIDE for pixels in size]
    kept = list(bank.sensory.shape[-2:])
    if kept != grid:
        raise SamonnxError(
            f"the bank is for a grid of {kept}, but a frame of {list(size)} pixels has {grid}; a clip keeps its size, "
            "make an empty bank for another"
        )


def of_objects(known: Tensor, state: Tensor) -> Tensor:
    """f32 [O, C, h, w], zeros for rows without an object."""
    return torch.where(known[:, None, None, None], state, 0.0)
