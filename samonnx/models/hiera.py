"""Hiera, the image trunk of SAM 2: a hierarchical vision transformer of plain blocks, most of them within windows.

Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles" (ICML 2023), with absolute
positions as in Bolya et al., "Window Attention is Bugged" (ICLR 2024); upstream `sam2/modeling/backbones/hieradet.py`
and the figures of `sam2/configs/sam2.1`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.hiera_windows import WindowLayout, pool_cells, row_major

__all__ = ["HIERA_SIZES", "Hiera", "HieraBlock", "HieraSizes", "bicubic_matrix"]

_STAGES = 4


@dataclass(frozen=True)
class HieraSizes:
    """`embed_dim`, `heads`: width and attention heads of the first stage; both double from stage to stage.

    `stages`: blocks of each stage. `windows`: cells a side of its attention windows; the first block of a stage, which
    pools its queries 2x2, still has those of the stage before. The blocks in `global_blocks` (counted through all
    stages) attend over the whole map instead. `position_size`: cells a side of the learned position table.

    Raises SamonnxError for figures that contradict each other.
    """

    embed_dim: int
    heads: int
    stages: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    position_size: int

    def __post_init__(self) -> None:
        if self.embed_dim % self.heads:
            raise SamonnxError(f"Hiera: {self.heads} heads do not divide a width of {self.embed_dim}")
        if odd := [window for window in self.windows[:-1] if window % 2]:
            raise SamonnxError(
                f"Hiera: windows of {odd[0]} cells a side cannot be pooled 2x2; those of all stages but the last must "
                "be even"
            )
        depth = sum(self.stages)
        refused = [index for index in self.global_blocks if index in self.pooling_blocks or not 0 <= index < depth]
        if refused:
            raise SamonnxError(
                f"Hiera: block {refused[0]} cannot be global; there are blocks 0 to {depth - 1}, and "
                f"{', '.join(map(str, self.pooling_blocks))} pool their queries within windows"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's map, fine to coarse."""
        return tuple(self.embed_dim << stage for stage in range(_STAGES))

    @property
    def pooling_blocks(self) -> tuple[int, ...]:
        """The first block of each stage but the first."""
        return tuple(sum(self.stages[:stage]) for stage in range(1, _STAGES))

    def poolings(self, stage: int) -> int:
        """The number of poolings in a row that happen within the same windows, from a stage's windows on."""
        if stage == _STAGES - 1:
            return 0
        goes_on = self.windows[stage] == 2 * self.windows[stage + 1]
        return 1 + (self.poolings(stage + 1) if goes_on else 0)


HIERA_SIZES: Mapping[str, HieraSizes] = MappingProxyType(
    {
        "t": HieraSizes(96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9), 7),
        "s": HieraSizes(96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13), 7),
        "b+": HieraSizes(112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), 14),
        "l": HieraSizes(144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43), 7),
    }
)


def bicubic_matrix(inputs: int, outputs: int) -> Tensor:
    """f32 [outputs, inputs]: row i holds the weights of output i in a bicubic resize along one axis.

    Keys' cubic convolution with a = -3/4 at half-pixel centres, the edge repeated: what PyTorch's
    `interpolate(mode="bicubic", align_corners=False)` computes.
    """
    weights = torch.zeros(outputs, inputs, dtype=torch.float64)
    for i in range(outputs):
        place = (i + 0.5) * inputs / outputs - 0.5
        left = math.floor(place)
        for j in range(left - 1, left + 3):
            weights[i, min(max(j, 0), inputs - 1)] += _cubic(abs(place - j))
    return weights.to(torch.float32)


def _cubic(d: float) -> float:
    a = -0.75
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return a * (((d - 5) * d + 8) * d - 4) if d < 2 else 0.0


class HieraAttention(nn.Module):
    """Multi-head self-attention with the three projections in one matrix (`qkv`, rows in the order q, k, v).

    With `pools` the queries are pooled 2x2 first, so that there is one result for four cells.
    """

    def __init__(self, inputs: int, width: int, heads: int, pools: bool) -> None:
        super().__init__()
        self.heads, self.pools = heads, pools
        self.qkv = nn.Linear(inputs, 3 * width)
        self.proj = nn.Linear(width, width)

    def attend(self, x: Tensor) -> Tensor:
        """f32 [windows, cells, inputs] → [windows, cells or cells / 4, width], to be projected by `proj`."""
        # Three products instead of one: to cut the matrix costs nothing in a graph, to cut what it gives does.
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q, k, v = (F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        if self.pools:
            q = pool_cells(q)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class _FeedForward(nn.Module):
    """Four times as wide inside, with the exact GELU; `layers` in the checkpoint's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(width, 4 * width), nn.Linear(4 * width, width)))

    def forward(self, x: Tensor) -> Tensor:
        widen, narrow = self.layers
        fed: Tensor = narrow(F.gelu(widen(x)))
        return fed


class HieraBlock(nn.Module):
    """x + attention(norm1(x)), then + feed-forward(norm2); cells in the layout `arrives`, f32 [windows, cells, C].

    `window`: cells a side of the attention windows, None: all cells attend to all. Windows that reach over the edge of
    the map are filled up with zeros after norm1; those cells are not masked: they have the bias of `qkv` for query, key
    and value, and are attended like others. Then `arrives` is row-major.

    A block that pools gives the next stage's `width` in the layout `leaves`; its shortcut is projected from the normed
    cells and pooled like the queries.
    """

    def __init__(self, inputs: int, width: int, heads: int, arrives: WindowLayout, window: int | None) -> None:
        super().__init__()
        pools = inputs != width
        self.arrives = arrives
        self.attends: WindowLayout | None = None
        self.leaves = arrives
        if window is not None:
            resident = arrives.window == window and arrives.fits
            self.attends = arrives if resident else WindowLayout(arrives.side, window, int(pools))
            if pools:
                self.leaves = arrives.pooled() if resident else row_major(arrives.side // 2)
        self.norm1 = nn.LayerNorm(inputs, eps=1e-6)
        self.attn = HieraAttention(inputs, width, heads, pools)
        self.proj = nn.Linear(inputs, width) if pools else None
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        windows = self._enter(self.norm1(x))
        shortcut = x if self.proj is None else self._leave(pool_cells(self.proj(windows)))
        x = shortcut + self.attn.proj(self._leave(self.attn.attend(windows)))
        fed: Tensor = x + self.mlp(self.norm2(x))
        return fed

    def _enter(self, x: Tensor) -> Tensor:
        """Cells in the layout `arrives` → those that attend to each other together."""
        if self.attends is None:
            together: Tensor = x.unflatten(0, (-1, self.arrives.across**2)).flatten(1, 2)
            return together
        return self.arrives.move(x, self.attends)

    def _leave(self, x: Tensor) -> Tensor:
        """What attention gives for `_enter`'s cells → the layout `leaves`."""
        if self.attends is None:
            apart: Tensor = x.unflatten(1, (self.leaves.across**2, -1)).flatten(0, 1)
            return apart
        left = self.attends if self.proj is None else self.attends.pooled()
        return left.move(x, self.leaves)


class _PatchEmbedding(nn.Module):
    """The level `patch_embed.proj` in the checkpoint's names: cells of 4x4 pixels, seen with their surroundings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=7, stride=4, padding=3)


class Hiera(nn.Module):
    """Image f32 [1, 3, S, S], normalised → the maps of the four stages, fine to coarse: f32 [1, embed_dim · 2^i,
    S/4 / 2^i, S/4 / 2^i].

    Cells stay in their windows from block to block as long as the windows cover the map without a rest.

    S is `image_size`. Raises SamonnxError if it is not a multiple of 32 or the first stage's windows do not cover the
    map without a rest (their positions repeat from window to window), and for an image of another size.
    """

    cubic: Tensor
    """Weights of the position table's resize along one axis, f32 [S/4, position_size]."""

    def __init__(self, sizes: HieraSizes, image_size: int = 1024) -> None:
        super().__init__()
        self.sizes, self.image_size, self.side = sizes, image_size, image_size // 4
        multiple = math.lcm(32, 4 * sizes.windows[0])
        if image_size <= 0 or image_size % multiple:
            raise SamonnxError(
                f"model.args.image_size: {image_size} pixels; Hiera takes multiples of {multiple} (32, for its four "
                f"stages, and {4 * sizes.windows[0]}, for its first windows)"
            )
        width, window = sizes.embed_dim, sizes.windows[0]
        self.pos_embed = nn.Parameter(torch.zeros(1, width, sizes.position_size, sizes.position_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, width, window, window))
        self.patch_embed = _PatchEmbedding(width)
        self.blocks = nn.ModuleList(_blocks(sizes, self.side))
        self.register_buffer("cubic", bicubic_matrix(sizes.position_size, self.side), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if tuple(image.shape[1:]) != (3, self.image_size, self.image_size):
            raise SamonnxError(
                f"the image is {list(image.shape)}; this trunk was built for [1, 3, {self.image_size}, "
                f"{self.image_size}] (model.args.image_size)"
            )
        cells = self.patch_embed.proj(image).permute(0, 2, 3, 1) + self.positions()
        blocks = [block for block in self.blocks if isinstance(block, HieraBlock)]
        layout = blocks[0].arrives
        x = layout.split(cells)
        ends = {index - 1 for index in (*self.sizes.pooling_blocks, len(blocks))}
        maps = []
        for index, block in enumerate(blocks):
            x = block(layout.move(x, block.arrives))
            layout = block.leaves
            if index in ends:
                maps.append(layout.join(x).permute(0, 3, 1, 2))
        first, second, third, fourth = maps
        return first, second, third, fourth

    def positions(self) -> Tensor:
        """Positions of the first stage's cells, f32 [1, side, side, embed_dim]: the table resized bicubically, plus
        that of a window's cells, repeated from window to window. They depend on weights alone."""
        table, of_window = (part[0].permute(1, 2, 0) for part in (self.pos_embed, self.pos_embed_window))
        rows = (self.cubic @ table.flatten(1)).unflatten(1, table.shape[1:])
        cells = self.cubic @ rows
        split = (-1, self.sizes.windows[0])
        positions = cells.unflatten(1, split).unflatten(0, split) + of_window[None, :, None]
        whole: Tensor = positions.flatten(2, 3).flatten(0, 1)[None]
        return whole


def _blocks(sizes: HieraSizes, side: int) -> list[HieraBlock]:
    """All blocks, each with the layout in which its cells arrive; a global block takes them as they are."""
    blocks: list[HieraBlock] = []
    for stage, width in enumerate(sizes.widths):
        for place in range(sizes.stages[stage]):
            pools = stage > 0 and place == 0
            of_windows = stage - 1 if pools else stage
            inputs, window = sizes.widths[of_windows], sizes.windows[of_windows]
            before = blocks[-1].leaves if blocks else row_major(side)
            everywhere = len(blocks) in sizes.global_blocks
            arrives = before
            if not everywhere:
                windowed = WindowLayout(before.side, window, sizes.poolings(of_windows))
                arrives = windowed if windowed.fits else row_major(before.side)
            blocks.append(HieraBlock(inputs, width, sizes.heads << stage, arrives, None if everywhere else window))
    return blocks
