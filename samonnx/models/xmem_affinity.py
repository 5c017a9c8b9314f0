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

__all__ = ["TopWeights", "similarity", "softmax_over", "top_weights"]


class TopWeights(NamedTuple):
    """`weight` [..., Q, k]: of the k elements most similar to each position, falling, summing to 1 (to 0 where no
    element is valid); `element` i64 [..., Q, k]: which elements."""

    weight: Tensor
    element: Tensor


def similarity(key: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor) -> Tensor:
    """key [N, K], shrinkage [N] of elements; query [Q, K], selection [Q, K] of positions → [Q, N], at most 0 but for
    rounding: -(shrinkage / √K) · Σ_c selection_c (key_c - query_c)².

    The square is expanded, as in the original: an element's similarity to itself is about 1e-6 beside 0.
    """
    squares = selection @ (key * key).T
    products = 2 * ((query * selection) @ key.T)
    own = (selection * query * query).sum(1, keepdim=True)
    return (-squares + products - own) * shrinkage / math.sqrt(key.shape[1])


def _lowest(x: Tensor) -> float:
    # Finite, so that differences of two of them are 0 and not NaN.
    return torch.finfo(x.dtype).min


def top_weights(similarities: Tensor, valid: Tensor, k: int) -> TopWeights:
    """Softmax over the `k` most similar valid elements of each position.

    similarities [..., Q, N]; valid bool, to be broadcast to it. With fewer than k valid elements all of them share;
    with N below k there are N places instead of k.
    """
    lowest = _lowest(similarities)
    values, index = torch.where(valid, similarities, lowest).topk(min(k, similarities.shape[-1]), -1)
    weight = torch.where(values > lowest, (values - values[..., :1]).exp(), 0.0)
    return TopWeights(weight / weight.sum(-1, keepdim=True).clamp(min=1.0), index)


def softmax_over(similarities: Tensor, valid: Tensor) -> Tensor:
    """Softmax over all valid elements: similarities [..., Q, N], valid bool, to be broadcast → [..., Q, N], zeros where
    nothing is valid."""
    lowest = _lowest(similarities)
    masked = torch.where(valid, similarities, lowest)
    weight = torch.where(valid, (masked - masked.amax(-1, keepdim=True)).exp(), 0.0)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1.0)
