"""TinyViT: convolutions at stride 4, then stages of attention inside windows.

Architecture: Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (ECCV 2022); the figures
of each size are those of upstream's `backbones/tiny_vit.py`. Maps are [B, C, H, W] between blocks and [B, H, W, C]
inside attention and feed-forward, where a *cell* is one place of the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.repvit import ConvBatchNorm

__all__ = ["TINYVIT_SIZES", "TinyViT", "TinyViTSize"]


@dataclass(frozen=True)
class TinyViTSize:
    """Widths and depths of the four stages; attention heads and window sides (cells) of the last three."""

    widths: tuple[int, int, int, int]
    heads: tuple[int, int, int]
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    windows: tuple[int, int, int] = (7, 14, 7)


TINYVIT_SIZES: Mapping[str, TinyViTSize] = MappingProxyType(
    {
        "tinyvit_5m": TinyViTSize((64, 128, 160, 320), (4, 5, 10)),
        "tinyvit_11m": TinyViTSize((64, 128, 256, 448), (4, 8, 14)),
        "tinyvit_21m": TinyViTSize((96, 192, 384, 576), (6, 12, 18)),
        # At an image of 112 its windows of 7, 4 and 4 meet maps of 14, 7 and 4: cut in four, padded, and whole.
        "tinyvit_tiny": TinyViTSize((8, 16, 24, 32), (2, 3, 4), depths=(1, 1, 2, 1), windows=(7, 4, 4)),
    }
)


class MBConv(nn.Module):
    """GELU(x + narrow(depthwise 3x3(widen(x)))), each with batch norm, GELU between; four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvBatchNorm(width, 4 * width)
        self.conv2 = ConvBatchNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvBatchNorm(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """Half the side, rounded up: 1x1, depthwise 3x3 of stride 2, 1x1, each with batch norm, GELU between."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBatchNorm(inputs, outputs)
        self.conv2 = ConvBatchNorm(outputs, outputs, 3, stride=2, groups=outputs)
        self.conv3 = ConvBatchNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


def offset_index(window: int) -> Tensor:
    """i64 [w², w²]: for each pair of a window's cells |Δrow|·w + |Δcolumn|, the place of their bias in the table."""
    distance = (torch.arange(window)[:, None] - torch.arange(window)).abs()
    rows, columns = distance[:, None, :, None], distance[None, :, None, :]
    return (rows * window + columns).flatten(2).flatten(0, 1)


def to_windows(x: Tensor, window: int) -> Tensor:
    """[B, H, W, C] → [B·n, w², C]: padded with zeros below and on the right to whole windows, cut row by row."""
    height, width, channels = x.shape[1:]
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return x.reshape(-1, window * window, channels)


def from_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`: [B·n, w², C] → [B, height, width, C], without the padding."""
    down, across = -(-height // window), -(-width // window)
    x = windows.reshape(-1, down, across, window, window, windows.shape[-1]).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class WindowAttention(nn.Module):
    """Attention among the cells of each window, f32 [windows, w², C] → the same: softmax(q·kᵀ/√d + bias)·v after a
    layer norm, with one learned bias for each head and each distance (|Δrow|, |Δcolumn|).

    Cells of padding are not masked: they enter as zeros, leave the norm as its bias, and are attended like others.
    """

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("offsets", offset_index(window).flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Each head's channels are its q, its k and its v, one after the other.
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        cells = x.shape[1]
        bias = self.attention_biases.index_select(1, self.offsets).unflatten(1, (cells, cells))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class FeedForward(nn.Module):
    """Layer norm, then two linear layers, four times as wide between them, with GELU; over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyViTBlock(nn.Module):
    """[B, C, H, W] → the same: residual window attention, a depthwise 3x3 with batch norm (not residual, no
    activation), residual feed-forward."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvBatchNorm(width, width, 3, groups=width)
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        cells = x.permute(0, 2, 3, 1)
        attended = self.attn(to_windows(cells, self.window))
        cells = cells + from_windows(attended, self.window, *x.shape[2:])
        cells = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        mixed: Tensor = (cells + self.mlp(cells)).permute(0, 3, 1, 2)
        return mixed


class _PatchEmbed(nn.Module):
    """The level `patch_embed.seq` in the checkpoint's names: the stem, of stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvBatchNorm(3, width // 2, 3, stride=2), nn.GELU(), ConvBatchNorm(width // 2, width, 3, stride=2)
        )


class _Stage(nn.Module):
    """The level `layers.<stage>` in the checkpoint's names: its blocks, then the way to the next stage's width and
    half the side; the last stage has none."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """f32 [B, 3, S, S] → f32 [B, widths[3], ceil(S/32), ceil(S/32)]: stem, four stages, no classifier."""

    def __init__(self, size: TinyViTSize) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(size.widths[0])
        self.layers = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
            blocks: list[nn.Module]
            if stage == 0:
                blocks = [MBConv(width) for _ in range(depth)]
            else:
                heads, window = size.heads[stage - 1], size.windows[stage - 1]
                blocks = [TinyViTBlock(width, heads, window) for _ in range(depth)]
            following = size.widths[stage + 1 : stage + 2]
            self.layers.append(_Stage(blocks, PatchMerging(width, *following) if following else None))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.seq(x)
        for stage in self.layers:
            x = stage(x)
        return x
