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
from samonnx.models.xmem import STRIDE, XMem
from samonnx.models.xmem_bank import MemorySizes, XMemBank, count_usage, read_memory, write_memory
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_masks import aggregate, crop, merge_given, pad, padded_size

__all__ = ["XMemFrame", "XMemStep"]


class XMemFrame(NamedTuple):
    """`probabilities` f32 [1 + O, H, W], background first, summing to 1; the next `bank`."""

    probabilities: Tensor
    bank: XMemBank


class XMemStep(nn.Module):
    """`together`: all objects join on the same frame, see `read_memory`; `consolidates`: a step that fills the working
    memory consolidates it too (otherwise the caller does, before the next frame)."""

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
        """image f32 [1, 3, H, W], normalised; masks f32 [O, H, W] of 0 and 1, looked at where is_given, bool [O];
        memory_frame, last_frame bool []: upstream's are `memory_due`, and `end`, which leaves memory as it is.

        Raises SamonnxError for masks of another size, another number of objects than the bank holds, a bank for frames
        of another size.
        """
        _check_shapes(image, masks, is_given, bank)
        known_before = bank.object_since >= 0
        since = torch.where(is_given & ~known_before, bank.frame_count, bank.object_since)
        known = since >= 0
        predicts = (known & ~is_given).any()
        writes = memory_frame & known.any()
        sensory = _of(known_before, bank.sensory)

        padded = pad(image)
        features = self.model.encode_key(padded)
        reading = read_memory(bank, features.key, features.selection, self.sizes.top_k, self.together)
        logits, carried = self.model.decode(features, reading.readout, sensory)
        predicted = aggregate(logits.sigmoid(), known_before)
        merged = aggregate(merge_given(predicted[1:], pad(masks), is_given), known)
        probabilities = torch.where(is_given.any(), merged, predicted)

        value, encoded = self.model.encode_value(padded, features.f16, sensory, probabilities[1:])
        carries = predicts & ~memory_frame & ~last_frame
        carried = torch.where(carries, _of(known_before, carried), sensory)
        bank = write_memory(count_usage(bank, reading, predicts), features, value, writes)._replace(
            sensory=torch.where(writes, _of(known, encoded), carried),
            object_since=since,
            frame_count=bank.frame_count + 1,
        )
        if self.consolidates:
            bank = consolidate(bank, self.sizes)
        return XMemFrame(crop(probabilities, image.shape[-2], image.shape[-1]), bank)


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


def _of(known: Tensor, state: Tensor) -> Tensor:
    """f32 [O, C, h, w], zeros for rows without an object."""
    return torch.where(known[:, None, None, None], state, 0.0)
