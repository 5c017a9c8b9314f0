"""Consolidation: a full working memory becomes long-term memory, bank to bank of the same shape, without branches.

Cheng and Schwing, "XMem" (2022), section 3.3; upstream `inference/memory_manager.py` (`compress_features`,
`consolidation`), `inference/kv_memory_store.py` (`remove_obsolete_features`). In this order:

1. removal of obsolete elements, where fewer than `prototypes` long-term places are free: with s elements, of which
   m = long_term - prototypes may stay, those whose usage is strictly above the (s - m)-th smallest survive, in their
   order. Elements as little used as that one all go, so that fewer than m may be left.
2. candidates are the elements of all slots but the first frame's and the latest min_working_frames - 1.
3. prototypes are the candidates of the highest usage, falling; of equal ones the older frame's first, then by cell.
   Their keys are taken over as they are.
4. potentiation: values and shrinkages of the prototypes are means over all candidates, weighted by the softmax of their
   similarity to the prototype (with the prototype's own selection); an object's over the candidates that it has.
5. the candidates' slots become empty, the prototypes follow the long-term elements, their counters start anew.

A bank that is not full comes out as it went in. Where upstream stops with an IndexError, because exactly m elements are
there, nothing needs to go and nothing goes; `min_working_frames` 1, which it cannot do, keeps the first frame alone;
and more prototypes than candidates are as many as there are candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from samonnx.models.xmem_affinity import similarity, softmax_over
from samonnx.models.xmem_bank import FAR, NEW_LIFE, MemorySizes, XMemBank, long_is_filled, working_is_full

__all__ = ["Candidates", "Prototypes", "candidates", "choose_prototypes", "consolidate", "survivors"]


class Candidates(NamedTuple):
    """M elements, from the oldest frame to the latest. `slots` i64, those they are from; key, selection f32 [M, K];
    shrinkage, usage f32 [M]; value f32 [O, M, V]; frame i32 [M]."""

    slots: Tensor
    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    value: Tensor
    usage: Tensor
    frame: Tensor


class Prototypes(NamedTuple):
    """P elements, the most used first. `chosen` i64 [P], which candidates; key f32 [P, K]; shrinkage f32 [P]; value f32
    [O, P, V]; frame i32 [P]."""

    chosen: Tensor
    key: Tensor
    shrinkage: Tensor
    value: Tensor
    frame: Tensor


def _usage(use: Tensor, life: Tensor) -> Tensor:
    # An empty place may hold a life of 0; its usage is masked wherever it matters, but must not be NaN.
    return use / life.clamp(min=NEW_LIFE)


def candidates(bank: XMemBank, sizes: MemorySizes) -> Candidates:
    """What is consolidated, if the working memory is full (otherwise without meaning)."""
    frame = bank.working_frame
    in_time = torch.where(frame >= 0, frame, FAR).argsort()
    slots = in_time[1 : 1 + sizes.consolidated_frames]

    def elements(of_slots: Tensor) -> Tensor:
        return of_slots.index_select(0, slots).flatten(0, 1)

    cells = bank.working_key.shape[1]
    return Candidates(
        slots,
        elements(bank.working_key),
        elements(bank.working_shrinkage),
        elements(bank.working_selection),
        bank.working_value.index_select(1, slots).flatten(1, 2),
        _usage(elements(bank.working_use), elements(bank.working_life)),
        elements(frame[:, None].expand(-1, cells)),
    )


def _most_used(usage: Tensor, count: int) -> Tensor:
    """i64 [count]: places of the largest of [M], falling, of equal ones the lower place first.

    What a stable sort gives, which ONNX's TopK is and torch's is not, and torch's stable sort has no translation.
    """
    place = torch.arange(usage.shape[0])
    least = usage.topk(count).values[-1]
    above, equal = usage > least, usage == least
    chosen = above | (equal & (equal.cumsum(0) <= count - above.sum()))
    in_order = (place + torch.where(chosen, 0, usage.shape[0])).argsort()[:count]
    found = usage.index_select(0, in_order)
    earlier = place[:count] < place[:count, None]
    ahead = (found > found[:, None]) | ((found == found[:, None]) & earlier)
    return in_order.index_select(0, ahead.sum(1).argsort())


def choose_prototypes(found: Candidates, object_since: Tensor, count: int) -> Prototypes:
    """Steps 3 and 4; object_since i32 [O] as in the bank; at most `count`."""
    index = _most_used(found.usage, min(count, found.usage.shape[0]))
    key, selection = found.key.index_select(0, index), found.selection.index_select(0, index)
    similarities = similarity(found.key, found.shrinkage, key, selection)
    since = object_since[:, None, None]
    weight = softmax_over(similarities[None], (since >= 0) & (found.frame >= since))
    shared = softmax_over(similarities, torch.ones_like(similarities, dtype=torch.bool))
    return Prototypes(index, key, shared @ found.shrinkage, weight @ found.value, found.frame.index_select(0, index))


def survivors(bank: XMemBank, sizes: MemorySizes) -> Tensor:
    """Step 1: bool [L], the long-term elements that stay."""
    filled = long_is_filled(bank, bank.long_use)
    usage = torch.where(filled, _usage(bank.long_use, bank.long_life), torch.finfo(bank.long_use.dtype).max)
    surplus = bank.long_count - (sizes.long_term - sizes.prototypes)
    threshold = usage.sort().values.index_select(0, (surplus - 1).clamp(min=0).to(torch.int64)[None])
    return filled & ((surplus <= 0) | (usage > threshold))


def consolidate(bank: XMemBank, sizes: MemorySizes) -> XMemBank:
    """The bank after steps 1 to 5 if the working memory is full, else the bank."""
    full = working_is_full(bank)
    found = candidates(bank, sizes)
    new = choose_prototypes(found, bank.object_since, sizes.prototypes)

    # Removal and appending are one gather from [long-term elements, prototypes].
    place = torch.arange(sizes.long_term)
    stay = survivors(bank, sizes)
    in_order = (place + torch.where(stay, 0, sizes.long_term)).argsort()
    kept, added = stay.to(torch.int32).sum(dtype=torch.int32), new.chosen.shape[0]
    source = torch.where(place < kept + added, sizes.long_term + place - kept, place)
    source = torch.where(place < kept, in_order, source)
    source = torch.where(full, source, place)

    def gathered(old: Tensor, appended: Tensor, axis: int = 0) -> Tensor:
        return torch.cat([old, appended], axis).index_select(axis, source)

    emptied = full & (torch.arange(sizes.working_frames)[:, None] == found.slots).any(1)
    unused = torch.zeros_like(new.shrinkage)
    return bank._replace(
        working_frame=torch.where(emptied, -1, bank.working_frame),
        long_key=gathered(bank.long_key, new.key),
        long_shrinkage=gathered(bank.long_shrinkage, new.shrinkage),
        long_value=gathered(bank.long_value, new.value, axis=1),
        long_use=gathered(bank.long_use, unused),
        long_life=gathered(bank.long_life, unused + NEW_LIFE),
        long_frame=gathered(bank.long_frame, new.frame),
        long_count=torch.where(full, kept + added, bank.long_count),
    )
