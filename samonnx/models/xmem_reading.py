"""Reading XMem's memory: which elements each position of a frame is drawn to, their values, how often they are used.

Cheng and Schwing, "XMem" (2022), section 3.2; upstream `inference/memory_manager.py` (`match_memory`). Long-term
elements come first, then those of the slots; one softmax over both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from samonnx.models.xmem_affinity import masked, similarity, top_weights
from samonnx.models.xmem_bank import FAR, XMemBank, long_is_filled

__all__ = [
    "FoundElements",
    "Reading",
    "count_usage",
    "find_elements",
    "memory_similarities",
    "read_elements",
    "read_memory",
]


class FoundElements(NamedTuple):
    """For each object and position, or with one row for all objects (see `find_elements`): `weight` f32 [O, Q, k] and
    `element` i64 [O, Q, k], places among long-term elements and then those of the slots."""

    weight: Tensor
    element: Tensor


class Reading(NamedTuple):
    """`readout` f32 [O, V, h, w], zeros for an object that has nothing to read; `working_usage` f32 [T, n] and
    `long_usage` f32 [L]: sums of the weights over all positions."""

    readout: Tensor
    working_usage: Tensor
    long_usage: Tensor


def memory_similarities(bank: XMemBank, key: Tensor, selection: Tensor, together: bool = False) -> Tensor:
    """f32 [O, Q, N], [1, Q, N] for one object or `together`: of all places of memory, long-term ones first, to the
    positions of a frame; key, selection f32 [1, K, h, w]. The lowest finite number where nothing is that the object
    has."""
    frame = torch.cat(
        [
            torch.where(long_is_filled(bank, bank.long_frame), bank.long_frame, -1),
            bank.working_frame[:, None].expand(-1, bank.working_key.shape[1]).flatten(),
        ]
    )
    since = bank.object_since[:, None]
    valid = (frame >= 0)[None] if together else (since >= 0) & (frame >= 0) & (frame >= since)
    alike = valid.shape[0] == 1
    similarities = similarity(
        torch.cat([bank.long_key, bank.working_key.flatten(0, 1)]),
        torch.cat([bank.long_shrinkage, bank.working_shrinkage.flatten()]),
        key[0].flatten(1).T,
        selection[0].flatten(1).T,
        valid[0] if alike else None,
    )
    return similarities[None] if alike else masked(similarities[None], valid[:, None])


def find_elements(bank: XMemBank, key: Tensor, selection: Tensor, top_k: int, together: bool = False) -> FoundElements:
    """Which elements each position of the frame reads; key, selection f32 [1, K, h, w].

    `together` promises that all objects joined on the same frame, and saves a top-k for each (the general form gives
    the same then).
    """
    return FoundElements(*top_weights(memory_similarities(bank, key, selection, together), None, top_k))


def read_elements(bank: XMemBank, found: FoundElements, height: int, width: int) -> Reading:
    """Their values, on a grid of height x width; gathered for the k elements of a position, instead of a product with
    all of them."""
    weight, index = found
    values = torch.cat([bank.long_value, bank.working_value.flatten(1, 2)], 1)
    objects, elements = values.shape[:2]
    rows = index + (torch.arange(objects) * elements)[:, None, None]
    gathered = values.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)
    readout = (weight[:, :, None] @ gathered)[:, :, 0]

    first = torch.where(bank.object_since >= 0, bank.object_since, FAR).argmin(0, keepdim=True)
    row = torch.zeros_like(first) if len(weight) == 1 else first
    counted, counted_index = weight.index_select(0, row).flatten(), index.index_select(0, row).flatten()
    usage = torch.zeros_like(values[0, :, 0]).scatter_add(0, counted_index, counted)
    capacity = bank.long_value.shape[1]
    slots = bank.working_value.shape[1:3]
    return Reading(
        readout.transpose(1, 2).unflatten(2, (height, width)), usage[capacity:].unflatten(0, slots), usage[:capacity]
    )


def read_memory(bank: XMemBank, key: Tensor, selection: Tensor, top_k: int, together: bool = False) -> Reading:
    """`find_elements`, then `read_elements`."""
    found = find_elements(bank, key, selection, top_k, together)
    return read_elements(bank, found, key.shape[-2], key.shape[-1])


def count_usage(bank: XMemBank, reading: Reading, counted: Tensor) -> XMemBank:
    """Add the reading to the counters, if `counted` (bool [])."""
    working = (counted & (bank.working_frame >= 0))[:, None]
    long = counted & long_is_filled(bank, bank.long_use)
    return bank._replace(
        working_use=torch.where(working, bank.working_use + reading.working_usage, bank.working_use),
        working_life=torch.where(working, bank.working_life + 1, bank.working_life),
        long_use=torch.where(long, bank.long_use + reading.long_usage, bank.long_use),
        long_life=torch.where(long, bank.long_life + 1, bank.long_life),
    )
