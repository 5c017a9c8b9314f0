"""The eager reference for XMem's memory: growing tensors and Python branches, as the original keeps them. The truth for
the law of equivalence of the bounded bank.

Upstream `inference/inference_core.py`, `inference/memory_manager.py`, `inference/kv_memory_store.py`,
`model/memory_util.py`. It runs the networks of `samonnx.models.xmem` and reads exactly the elements that exist;
padding, flags and fixed sizes do not occur. Always with long-term memory whose usage is counted, and with the deep
update on memory frames (upstream's deep_update_every -1).

Deliberate differences from the original: the softmax over the k best subtracts the maximum (no 0/0), and takes all
elements if there are fewer than k; removal starts above the size that is allowed, not at it (no IndexError);
min_working_frames may be 1; more prototypes than candidates are as many as candidates; values of objects that join
later stay with their keys, see `samonnx.models.xmem_bank`; among equally used candidates the older comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.xmem import FrameFeatures, XMem
from samonnx.models.xmem_bank import NEW_LIFE, MemorySizes
from samonnx.models.xmem_masks import aggregate, crop, pad

__all__ = ["Elements", "ReferenceConsolidation", "ReferenceFrame", "ReferenceXMem"]


@dataclass(frozen=True)
class Elements:
    """n elements of a memory: key, selection f32 [n, K] (long-term elements have no selection: zeros); shrinkage, use,
    life f32 [n]; frame i64 [n]; value f32 [o, n, V] for the o objects so far, zeros where an object had not joined."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    value: Tensor
    frame: Tensor
    use: Tensor
    life: Tensor

    @property
    def size(self) -> int:
        return len(self.frame)

    @property
    def usage(self) -> Tensor:
        return self.use / self.life

    @classmethod
    def new(cls, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor, frame: Tensor) -> Elements:
        unused = torch.zeros_like(shrinkage)
        return cls(key, shrinkage, selection, value, frame, unused, unused + NEW_LIFE)

    def and_then(self, more: Elements) -> Elements:
        return Elements(
            **{
                name: torch.cat([getattr(self, name), getattr(more, name)], 1 if name == "value" else 0)
                for name in self.__dataclass_fields__
            }
        )

    def only(self, which: Tensor | slice) -> Elements:
        """Those of a range, an index or a mask."""
        return Elements(
            **{
                name: getattr(self, name)[:, which] if name == "value" else getattr(self, name)[which]
                for name in self.__dataclass_fields__
            }
        )

    def with_objects(self, count: int) -> Elements:
        """The same for `count` objects, of which the last are new."""
        missing = count - len(self.value)
        return replace(self, value=torch.cat([self.value, self.value.new_zeros(missing, *self.value.shape[1:])]))

    def read(self, usage: Tensor) -> Elements:
        return replace(self, use=self.use + usage, life=self.life + 1)


@dataclass(frozen=True)
class ReferenceConsolidation:
    """`prototype_index` i64 [P] into the candidates; their usage f32 [M], the new elements' shrinkage f32 [P];
    `removed` obsolete elements."""

    prototype_index: Tensor
    candidate_usage: Tensor
    shrinkage: Tensor
    removed: int


@dataclass(frozen=True)
class ReferenceFrame:
    """`probabilities` f32 [1 + o, H, W]; `readout` f32 [o, V, h, w], None where nothing was read; `value` likewise,
    None but on memory frames."""

    probabilities: Tensor
    features: FrameFeatures
    readout: Tensor | None
    value: Tensor | None
    is_memory_frame: bool
    consolidation: ReferenceConsolidation | None


class ReferenceXMem:
    """`working` and `long_term` grow; `sensory` f32 [o, C, h, w]; `since`, the frame that each object joined on."""

    def __init__(self, model: XMem, sizes: MemorySizes) -> None:
        self.model = model
        self.sizes = sizes
        dtype = next(model.parameters()).dtype
        nothing, key = torch.zeros(0, dtype=dtype), torch.zeros(0, model.widths.key, dtype=dtype)
        value = torch.zeros(0, 0, model.widths.value, dtype=dtype)
        self.working = Elements.new(key, nothing, key, value, torch.zeros(0, dtype=torch.int64))
        self.long_term = self.working
        self.sensory = torch.zeros(0, model.widths.sensory, 0, 0, dtype=dtype)
        self.since: list[int] = []
        self.frame_count = 0
        self.last_memory = 0

    def step(
        self, image: Tensor, masks: Mapping[int, Tensor] | None = None, last_frame: bool = False
    ) -> ReferenceFrame:
        """image [3, H, W], normalised; `masks`: object → [H, W] of 0 and 1. Objects are numbered 0, 1, … in the order
        of joining.

        Raises SamonnxError for a first frame without a mask, a mask of another size, an object out of order.
        """
        masks = masks or {}
        self._check(image, masks)
        t = self.frame_count
        is_memory_frame = (t - self.last_memory >= self.sizes.every or bool(masks)) and not last_frame
        known = len(self.since)
        self.join(max(masks, default=-1) + 1)

        padded = pad(image)[None]
        features = self.model.encode_key(padded)
        readout, probabilities = None, None
        if t > 0 and len(masks) < len(self.since):
            readout = self.read(features)[:known]
            logits, carried = self.model.decode(features, readout, self.sensory)
            probabilities = aggregate(logits.sigmoid())
            if not (is_memory_frame or last_frame):
                self.sensory = carried
        if masks:
            probabilities = aggregate(self._merged(probabilities, {o: pad(mask) for o, mask in masks.items()}))
            fresh = torch.zeros(len(self.since) - known, self.model.widths.sensory, *features.key.shape[-2:])
            self.sensory = torch.cat([self.sensory, fresh.to(padded.dtype)]) if known else fresh.to(padded.dtype)
        assert probabilities is not None  # `_check`: the first frame has masks

        value, consolidation = None, None
        if is_memory_frame:
            value, self.sensory = self.model.encode_value(padded, features.f16, self.sensory, probabilities[1:])
            consolidation = self.add(features, value)
            self.last_memory = t
        self.frame_count += 1
        shown = crop(probabilities, *image.shape[-2:])
        return ReferenceFrame(shown, features, readout, value, is_memory_frame, consolidation)

    def _check(self, image: Tensor, masks: Mapping[int, Tensor]) -> None:
        if not self.since and not masks:
            raise SamonnxError("the first frame has no mask; give one for each object to be tracked")
        for o, mask in masks.items():
            if mask.shape != image.shape[-2:]:
                raise SamonnxError(
                    f"the mask of object {o} has shape {list(mask.shape)}, expected that of the frame, "
                    f"{list(image.shape[-2:])}"
                )
        new = sorted(o for o in masks if not 0 <= o < len(self.since))
        expected = list(range(len(self.since), len(self.since) + len(new)))
        if new != expected:
            raise SamonnxError(f"masks are given for new objects {new}; number new objects in order, here {expected}")

    def join(self, count: int) -> None:
        """From this frame on there are `count` objects, or as many as before."""
        count = max(count, len(self.since))
        self.since += [self.frame_count] * (count - len(self.since))
        self.working, self.long_term = self.working.with_objects(count), self.long_term.with_objects(count)

    def _merged(self, probabilities: Tensor | None, masks: Mapping[int, Tensor]) -> Tensor:
        """What is aggregated on a frame with masks: they, and predictions where they are not."""
        taken = sum(masks.values(), torch.zeros_like(next(iter(masks.values())))) > 0.5
        merged = []
        for o in range(len(self.since)):
            if o in masks:
                merged.append(masks[o])
            else:
                assert probabilities is not None  # known and not given: the frame was predicted
                merged.append(probabilities[1 + o].masked_fill(taken, 0.0))
        return torch.stack(merged)

    def read(self, features: FrameFeatures) -> Tensor:
        """Readout [o, V, h, w] of all objects; counts usage. Objects that joined together share their affinity."""
        elements = self.long_term.and_then(self.working)
        query, selection = features.key[0].flatten(1), features.selection[0].flatten(1)
        similarity = _similarity(elements.key, elements.shrinkage, query, selection)
        readout = elements.value.new_zeros(len(self.since), elements.value.shape[2], query.shape[1])
        for since in sorted(set(self.since)):
            there = elements.frame >= since
            if not there.any():
                continue
            affinity = _top_softmax(similarity[there], self.sizes.top_k)
            members = [o for o, joined in enumerate(self.since) if joined == since]
            readout[members] = elements.value[members][:, there].transpose(1, 2) @ affinity
            if since == min(self.since):
                usage = affinity.sum(1)
                self.long_term = self.long_term.read(usage[: self.long_term.size])
                self.working = self.working.read(usage[self.long_term.size :])
        maps: Tensor = readout.unflatten(2, features.key.shape[-2:])
        return maps

    def add(self, features: FrameFeatures, value: Tensor) -> ReferenceConsolidation | None:
        """A memory frame joins the working memory; if that is full, it is consolidated."""
        cells = features.key[0, 0].numel()
        key, shrinkage, selection = (x[0].flatten(1).T for x in (features.key, features.shrinkage, features.selection))
        frame = torch.full((cells,), self.frame_count)
        rows = value.flatten(2).transpose(1, 2)
        self.working = self.working.and_then(Elements.new(key, shrinkage[:, 0], selection, rows, frame))
        if self.working.size < self.sizes.working_frames * cells:
            return None
        removed = self.remove_obsolete(self.sizes.long_term - self.sizes.prototypes)
        return self.consolidate(cells, self.working.size - (self.sizes.min_working_frames - 1) * cells, removed)

    def remove_obsolete(self, target: int) -> int:
        """Down to `target` long-term elements or fewer; how many went."""
        surplus = self.long_term.size - target
        if surplus <= 0:
            return 0
        before, usage = self.long_term.size, self.long_term.usage
        self.long_term = self.long_term.only(usage > usage.sort().values[surplus - 1])
        return before - self.long_term.size

    def consolidate(self, start: int, end: int, removed: int) -> ReferenceConsolidation:
        """Working elements `start` … `end` - 1 become prototypes."""
        found = self.working.only(slice(start, end))
        index = found.usage.sort(descending=True, stable=True).indices[: self.sizes.prototypes]
        key, frame = found.key[index], found.frame[index]
        similarity = _similarity(found.key, found.shrinkage, key.T, found.selection[index].T)
        shrinkage = similarity.softmax(0).T @ found.shrinkage
        value = found.value.new_zeros(len(self.since), len(index), found.value.shape[2])
        for o, since in enumerate(self.since):
            there, theirs = found.frame >= since, frame >= since
            if theirs.any():
                value[o, theirs] = similarity[there][:, theirs].softmax(0).T @ found.value[o, there]
        kept = torch.cat([torch.arange(start), torch.arange(end, self.working.size)])
        self.working = self.working.only(kept)
        added = Elements.new(key, shrinkage, torch.zeros_like(key), value, frame)
        self.long_term = self.long_term.and_then(added)
        return ReferenceConsolidation(index, found.usage, shrinkage, removed)


def _similarity(key: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor) -> Tensor:
    """[n, K], [n], [K, Q], [K, Q] → [n, Q], with the square expanded as upstream has it."""
    squares, products = (key * key) @ selection, 2 * (key @ (query * selection))
    own = (selection * query * query).sum(0, keepdim=True)
    return (-squares + products - own) * shrinkage[:, None] / math.sqrt(key.shape[1])


def _top_softmax(similarity: Tensor, k: int) -> Tensor:
    """[n, Q] → [n, Q]: softmax over the k best elements of each position, the rest zero."""
    values, index = similarity.topk(min(k, len(similarity)), 0)
    return torch.zeros_like(similarity).scatter(0, index, values.softmax(0))
