"""How strongly a query position of a frame is drawn to an element of memory: XMem's similarity and its two softmaxes.

Cheng and Schwing, "XMem" (2022), equations 2 and 3; upstream `model/memory_util.py`. Elements and positions are rows.
All of it is without branches and keeps the dtype.

**Where this differs from the original.** Its top-k softmax exponentiates without subtracting the maximum and is 0/0
when all k similarities are below about -103; here the maximum is subtracted, which changes nothing else. It fails when
k is larger than the number of elements; here all elements then share the softmax. Elements that are not valid have
weight 0 whatever they hold, and a position with no valid element at all has weights of 0, so that it reads zeros.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TopWeights", "masked", "similarity", "softmax_over", "top_weights", "weights_of"]


class TopWeights(NamedTuple):
    """`weight` [..., Q, k]: of the k elements most similar to each position, falling, summing to 1 (to 0 where no
    element is valid); `element` i64 [..., Q, k]: which elements."""

    weight: Tensor
    element: Tensor


def similarity(key: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor, valid: Tensor | None = None) -> Tensor:
    """key [N, K], shrinkage [N] of elements; query [Q, K], selection [Q, K] of positions → [Q, N], at most 0 but for
    rounding: -(shrinkage / √K) · Σ_c selection_c (key_c - query_c)². `valid` bool [N]: where it is false, the lowest
    finite number, whatever the element holds.

    The square is expanded, as in the original: an element's similarity to itself is about 1e-6 beside 0. All of it is
    one matrix product, since the result is large (Q · N numbers) and each pass over it costs as much:

        selection · (-s key²)  +  selection query · (2 s key)  +  Σ selection query² · (-s)  (+  1 · lowest)
    """
    scale = shrinkage[:, None] / math.sqrt(key.shape[1])
    elements = torch.cat([-scale * key * key, 2 * scale * key, -scale], 1)
    weighted = selection * query
    positions = torch.cat([selection, weighted, (weighted * query).sum(1, keepdim=True)], 1)
    if valid is not None:
        elements = torch.where(valid[:, None], elements, 0.0)
        elements = torch.cat([elements, masked(torch.zeros_like(key[:, :1]), valid[:, None])], 1)
        positions = torch.cat([positions, torch.ones_like(positions[:, :1])], 1)
    return positions @ elements.T


def _lowest(x: Tensor) -> float:
    # Finite, so that differences of two of them are 0 and not NaN.
    return torch.finfo(x.dtype).min


def masked(similarities: Tensor, valid: Tensor) -> Tensor:
    """similarities [..., Q, N] with the lowest finite number where not valid (bool, to be broadcast)."""
    return torch.where(valid, similarities, _lowest(similarities))


def top_weights(similarities: Tensor, valid: Tensor | None, k: int) -> TopWeights:
    """Softmax over the `k` most similar valid elements of each position.

    similarities [..., Q, N]; valid bool, to be broadcast to it, or None: those that are not valid have the lowest
    finite number already. With fewer than k valid elements all of them share; with N below k there are N places
    instead of k.
    """
    shown = similarities if valid is None else masked(similarities, valid)
    values, index = shown.topk(min(k, shown.shape[-1]), -1)
    return TopWeights(weights_of(values), index)


def weights_of(values: Tensor) -> Tensor:
    """Softmax over similarities [..., k], the largest first: those with the lowest finite number have weight 0."""
    weight = torch.where(values > _lowest(values), (values - values[..., :1]).exp(), 0.0)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1.0)


def softmax_over(similarities: Tensor, valid: Tensor) -> Tensor:
    """Softmax over all valid elements: similarities [..., Q, N], valid bool, to be broadcast → [..., Q, N], zeros where
    nothing is valid."""
    shown = masked(similarities, valid)
    weight = torch.where(valid, (shown - shown.amax(-1, keepdim=True)).exp(), 0.0)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1.0)
