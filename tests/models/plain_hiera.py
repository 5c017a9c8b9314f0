"""Hiera's plain definition: maps f64 [side, side, C] row by row, each window by itself, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from samonnx.models.hiera import Hiera, HieraSizes

__all__ = ["plain_positions", "plain_trunk"]

Array = npt.NDArray[np.float64]


def plain_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    normed: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias
    return normed


def plain_pool(x: Array) -> Array:
    """The largest of the four cells of each square."""
    half = x.shape[0] // 2
    pooled = np.empty((half, half, x.shape[2]))
    for row in range(half):
        for column in range(half):
            pooled[row, column] = x[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max((0, 1))
    return pooled


def plain_attention(window: Array, state: dict[str, Array], heads: int, pools: bool, valid: npt.NDArray[Any]) -> Array:
    """[w, w, C] → [w, w, width], or half the sides; `valid` bool [w, w]: the cells that are attended."""
    w = window.shape[0]
    q, k, v = np.split(window @ state["attn.qkv.weight"].T + state["attn.qkv.bias"], 3, axis=2)
    if pools:
        q = plain_pool(q)
    width = q.shape[2]
    result = np.empty_like(q)
    keys, values = k.reshape(w * w, width)[valid.flatten()], v.reshape(w * w, width)[valid.flatten()]
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        for row in range(q.shape[0]):
            for column in range(q.shape[1]):
                logits = keys[:, part] @ q[row, column, part] / math.sqrt(width // heads)
                weights = np.exp(logits - logits.max())
                result[row, column, part] = weights / weights.sum() @ values[:, part]
    projected: Array = result @ state["attn.proj.weight"].T + state["attn.proj.bias"]
    return projected


def plain_windows(x: Array, state: dict[str, Array], window: int, heads: int, pools: bool, masked: bool) -> Array:
    """Attention window by window over a map; zeros fill up the windows at its lower and right edge."""
    side, stride = x.shape[0], 2 if pools else 1
    width = state["attn.proj.bias"].size
    result = np.empty((side // stride, side // stride, width))
    for top in range(0, side, window):
        for left in range(0, side, window):
            part = x[top : top + window, left : left + window]
            filled, valid = np.zeros((window, window, x.shape[2])), np.zeros((window, window), bool)
            filled[: part.shape[0], : part.shape[1]] = part
            valid[: part.shape[0], : part.shape[1]] = True
            attended = plain_attention(filled, state, heads, pools, valid if masked else np.ones_like(valid))
            place = result[top // stride :, left // stride :][: attended.shape[0], : attended.shape[1]]
            place[:] = attended[: place.shape[0], : place.shape[1]]
    return result


def plain_gelu(x: Array) -> Array:
    activated: Array = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return activated


def plain_blocks(sizes: HieraSizes) -> Iterator[tuple[int, int, bool]]:
    """Each block's stage, window (0: global), and whether it pools."""
    index = 0
    for stage, blocks in enumerate(sizes.stages):
        for place in range(blocks):
            pools = stage > 0 and place == 0
            window = sizes.windows[stage - 1 if pools else stage]
            yield stage, 0 if index in sizes.global_blocks else window, pools
            index += 1


def plain_positions(trunk: Hiera) -> Array:
    """PyTorch's own resize, and the window's table cell by cell."""
    side, window = trunk.side, trunk.sizes.windows[0]
    resized = F.interpolate(trunk.pos_embed.double(), size=(side, side), mode="bicubic", align_corners=False)
    place = torch.arange(side) % window
    tiled = trunk.pos_embed_window.double()[:, :, place[:, None], place[None, :]]
    return np.asarray((resized + tiled)[0].permute(1, 2, 0))


def plain_trunk(trunk: Hiera, image: Tensor, masked: bool = False) -> list[Array]:
    sizes = trunk.sizes
    state = {key: np.asarray(value.double()) for key, value in trunk.state_dict().items()}
    kernel = torch.from_numpy(state["patch_embed.proj.weight"])
    patches = F.unfold(image.double(), 7, padding=3, stride=4)[0].T @ kernel.flatten(1).T
    x = np.asarray(patches).reshape(trunk.side, trunk.side, -1) + state["patch_embed.proj.bias"]
    x = x + plain_positions(trunk)
    maps: list[Array] = []
    for index, (stage, window, pools) in enumerate(plain_blocks(sizes)):
        if pools:
            maps.append(x)
        block = {k.removeprefix(f"blocks.{index}."): v for k, v in state.items() if k.startswith(f"blocks.{index}.")}
        y = plain_norm(x, block["norm1.weight"], block["norm1.bias"])
        if pools:
            x = plain_pool(y @ block["proj.weight"].T + block["proj.bias"])
        x = x + plain_windows(y, block, window or y.shape[0], sizes.heads << stage, pools, masked)
        y = plain_norm(x, block["norm2.weight"], block["norm2.bias"])
        hidden = plain_gelu(y @ block["mlp.layers.0.weight"].T + block["mlp.layers.0.bias"])
        x = x + hidden @ block["mlp.layers.1.weight"].T + block["mlp.layers.1.bias"]
    return [each.transpose(2, 0, 1)[None] for each in (*maps, x)]
