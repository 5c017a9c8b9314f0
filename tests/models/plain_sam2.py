"""SAM 2.1's tracker once more, from the weights alone: one object, plain PyTorch functions, nothing of samonnx.

Written from the description of the released network; the shapes of its tensors are the released ones, whatever the
widths. The image encoder is left out: a frame comes as its three maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Maps", "PlainFrame", "PlainSam2"]

Maps = tuple[Tensor, Tensor, Tensor]
"""f32 [1, D/8, 4g, 4g], [1, D/4, 2g, 2g], [1, D, g, g]."""


@dataclass(frozen=True)
class PlainFrame:
    """Low-resolution logits [1, 1, 4g, 4g], IoUs [3], score [1, 1], pointer [1, D], memory [1, C, g, g]."""

    low_res: Tensor
    ious: Tensor
    score: Tensor
    pointer: Tensor
    memory: Tensor


@dataclass
class PlainSam2:
    """`step` tracks a frame and remembers it. `presence`: the score above which an object is present."""

    weights: Mapping[str, Tensor]
    grid: int
    num_frames: int
    presence: float = 0.0
    prompted: dict[int, PlainFrame] = field(default_factory=dict)
    tracked: dict[int, PlainFrame] = field(default_factory=dict)

    # Layers by name

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding, 1, groups)

    def enlarge(self, name: str, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride=2)

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def norm_of_map(self, name: str, x: Tensor) -> Tensor:
        return self.norm(name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    def mlp(self, name: str, x: Tensor, depth: int) -> Tensor:
        for i in range(depth):
            x = self.linear(f"{name}.layers.{i}", x if i == 0 else x.relu())
        return x

    # Positions

    def sine(self, channels: int) -> Tensor:
        """[g·g, channels], row-major; the first half by row, the second by column, sines and cosines by turns."""
        half = channels // 2
        place = (torch.arange(self.grid) + 1) / (self.grid + 1e-6) * 2 * math.pi
        i = torch.arange(half)
        angle = place[:, None] / 10000 ** (2 * (i // 2) / half)
        table = torch.where(i % 2 == 1, angle.cos(), angle.sin())
        rows = table[:, None].expand(-1, self.grid, -1)
        return torch.cat((rows, rows.transpose(0, 1)), dim=-1).flatten(0, 1)

    def fourier(self, point: Tensor) -> Tensor:
        """Points in 0…1, [n, 2] (x, y) → [n, D]."""
        angle = (
            2
            * math.pi
            * (2 * point - 1)
            @ self.weights["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
        )
        return torch.cat((angle.sin(), angle.cos()), dim=1)

    def dense_position(self) -> Tensor:
        places = [[(x + 0.5) / self.grid, (y + 0.5) / self.grid] for y in range(self.grid) for x in range(self.grid)]
        return self.fourier(torch.tensor(places))

    def turned(self, x: Tensor, maps: int) -> Tensor:
        """Rotary position of the cells of `maps` maps in a row; the tokens behind them stay."""
        width, cells = x.shape[1], self.grid**2
        place = torch.arange(maps * cells) % cells
        frequency = 10000 ** (-4 * torch.arange(width // 4) / width)
        angle = torch.zeros(len(x), width // 2)
        angle[: len(place), : width // 4] = place[:, None] % self.grid * frequency
        angle[: len(place), width // 4 :] = place[:, None] // self.grid * frequency
        pairs = torch.view_as_complex(x.unflatten(1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(1)

    # Memory attention

    def attention(self, name: str, q: Tensor, k: Tensor, v: Tensor, heads: int = 8, maps: int = 0) -> Tensor:
        q, k, v = (self.linear(f"{name}.{part}_proj", x) for part, x in (("q", q), ("k", k), ("v", v)))
        if maps:
            q, k = self.turned(q, 1), self.turned(k, maps)
        q, k, v = (x.unflatten(1, (heads, -1)).transpose(0, 1) for x in (q, k, v))
        share = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(-1)
        return self.linear(f"{name}.out_proj", (share @ v).transpose(0, 1).flatten(1))

    def conditioned(self, index: int, features: Tensor) -> Tensor:
        """[1, D, g, g]: prompted frames in the order of their prompts, six frames back (oldest first), pointers."""
        width, depth = features.shape[1], 4
        row = self.weights["maskmem_tpos_enc"][:, 0, 0]
        back = [t for t in range(index - 6, index) if t in self.tracked]
        memory, position = [], []
        for frame, age in [
            *((f, 6) for f in self.prompted.values()),
            *((self.tracked[t], index - t - 1) for t in back),
        ]:
            memory.append(frame.memory[0].flatten(1).T)
            position.append(self.sine(memory[-1].shape[1]) + row[age])
        maps, window = len(memory), min(self.num_frames, 16) - 1
        past = [(index - t, f.pointer) for t, f in self.prompted.items() if t <= index]
        past += [(d, self.tracked[index - d].pointer) for d in range(1, window + 1) if index - d in self.tracked]
        for distance, pointer in past:
            angle = [distance / window / 10000 ** (2 * (i // 2) / (width // 2)) for i in range(width // 2)]
            sine = torch.tensor([*map(math.sin, angle), *map(math.cos, angle)])
            tokens = pointer[0].reshape(-1, row.shape[1])
            memory.append(tokens)
            position.append(self.linear("obj_ptr_tpos_proj", sine).expand_as(tokens))
        values = torch.cat(memory)
        keys = values + torch.cat(position)
        x = features[0].flatten(1).T + 0.1 * self.sine(width)
        for layer in (f"memory_attention.layers.{i}" for i in range(depth)):
            y = self.norm(f"{layer}.norm1", x)
            x = x + self.attention(f"{layer}.self_attn", y, y, y, heads=1, maps=1)
            y = self.norm(f"{layer}.norm2", x)
            x = x + self.attention(f"{layer}.cross_attn_image", y, keys, values, heads=1, maps=maps)
            y = self.linear(f"{layer}.linear1", self.norm(f"{layer}.norm3", x)).relu()
            x = x + self.linear(f"{layer}.linear2", y)
        return self.norm("memory_attention.norm", x).T.reshape(features.shape)

    # Prompts and masks

    def tokens_of(self, points: list[tuple[float, float, int]]) -> Tensor:
        """The points, or an empty one in their place, and an empty one behind them."""
        name, size = "sam_prompt_encoder", 16 * self.grid
        empty = self.weights[f"{name}.not_a_point_embed.weight"]
        tokens = [
            self.fourier((torch.tensor([[x, y]]) + 0.5) / size)
            + self.weights[f"{name}.point_embeddings.{label}.weight"]
            for x, y, label in points
        ]
        return torch.cat([*(tokens or [empty]), empty])

    def map_of_mask(self, mask: Tensor) -> Tensor:
        name = "sam_prompt_encoder.mask_downscaling"
        x = F.gelu(self.norm_of_map(f"{name}.1", self.conv(f"{name}.0", mask, stride=2)))
        x = F.gelu(self.norm_of_map(f"{name}.4", self.conv(f"{name}.3", x, stride=2)))
        return self.conv(f"{name}.6", x)

    def decode(self, maps: Maps, features: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, ...]:
        """Four masks [4, 4g, 4g], four IoUs, four tokens, the score [1, 1]."""
        name = "sam_mask_decoder"
        own = [self.weights[f"{name}.{kind}.weight"] for kind in ("obj_score_token", "iou_token", "mask_tokens")]
        start = tokens = torch.cat([*own, sparse])
        cells, position = (features + dense)[0].flatten(1).T, self.dense_position()
        for i, layer in ((i, f"{name}.transformer.layers.{i}") for i in range(2)):
            q = tokens + start if i else tokens
            attended = self.attention(f"{layer}.self_attn", q, q, tokens)
            tokens = self.norm(f"{layer}.norm1", tokens + attended if i else attended)
            attended = self.attention(f"{layer}.cross_attn_token_to_image", tokens + start, cells + position, cells)
            tokens = self.norm(f"{layer}.norm2", tokens + attended)
            tokens = self.norm(f"{layer}.norm3", tokens + self.mlp(f"{layer}.mlp", tokens, 2))
            attended = self.attention(f"{layer}.cross_attn_image_to_token", cells + position, tokens + start, tokens)
            cells = self.norm(f"{layer}.norm4", cells + attended)
        last = f"{name}.transformer.final_attn_token_to_image"
        tokens = tokens + self.attention(last, tokens + start, cells + position, cells)
        tokens = self.norm(f"{name}.transformer.norm_final_attn", tokens)
        x = self.enlarge(f"{name}.output_upscaling.0", cells.T.reshape(features.shape)) + maps[1]
        x = F.gelu(self.norm_of_map(f"{name}.output_upscaling.1", x))
        x = F.gelu(self.enlarge(f"{name}.output_upscaling.3", x) + maps[0])
        heads = [self.mlp(f"{name}.output_hypernetworks_mlps.{i}", tokens[2 + i], 3) for i in range(4)]
        masks = torch.einsum("mc,chw->mhw", torch.stack(heads), x[0])
        ious = self.mlp(f"{name}.iou_prediction_head", tokens[1], 3).sigmoid()
        return masks, ious, tokens[2:6], self.mlp(f"{name}.pred_obj_score_head", tokens[:1], 3)

    def encoded(self, features: Tensor, mask: Tensor, score: Tensor) -> Tensor:
        """Mask in 0…1, [1, 1, S, S] → memory [1, C, g, g]; the memory's threshold of presence is always 0."""
        x, name = mask * 20 - 10, "memory_encoder.mask_downsampler.encoder"
        for i in (0, 3, 6, 9):
            x = F.gelu(self.norm_of_map(f"{name}.{i + 1}", self.conv(f"{name}.{i}", x, stride=2, padding=1)))
        x = self.conv(f"{name}.12", x) + self.conv("memory_encoder.pix_feat_proj", features)
        for block in (f"memory_encoder.fuser.layers.{i}" for i in range(2)):
            y = self.conv(f"{block}.dwconv", x, padding=3, groups=x.shape[1])
            y = self.linear(f"{block}.pwconv1", self.norm_of_map(f"{block}.norm", y).permute(0, 2, 3, 1))
            y = self.weights[f"{block}.gamma"] * self.linear(f"{block}.pwconv2", F.gelu(y))
            x = x + y.permute(0, 3, 1, 2)
        x = self.conv("memory_encoder.out_proj", x)
        return x if score > 0 else x + self.weights["no_obj_embed_spatial"][..., None, None]

    # A frame

    def full(self, low_res: Tensor) -> Tensor:
        return F.interpolate(low_res, scale_factor=4.0, mode="bilinear", align_corners=False)

    def step(
        self, index: int, maps: Maps, points: list[tuple[float, float, int]] | None = None, mask: Tensor | None = None
    ) -> PlainFrame:
        """A prompted frame attends no memory. `mask` [S, S] of 0 and 1."""
        points, features = points or [], maps[2]
        if mask is not None:
            frame = self.given(maps, mask[None, None])
        else:
            prompted = bool(points)
            attended = features + self.weights["no_mem_embed"][0, 0, :, None, None]
            if not prompted:
                attended = self.conditioned(index, features)
            dense = self.weights["sam_prompt_encoder.no_mask_embed.weight"][..., None, None]
            masks, ious, tokens, score = self.decode(maps, attended, self.tokens_of(points), dense)
            inner, outer = int((masks[0] > 0.05).sum()), int((masks[0] > -0.05).sum())
            best = 1 + int(ious[1:].argmax())
            several = len(points) <= 1
            chosen = best if several or (outer and inner / outer < 0.98) else 0
            present = bool(score > self.presence)
            low_res = masks[chosen][None, None] if present else torch.full_like(masks[:1, None], -1024)
            token = tokens[best if several else 0][None]
            pointer = self.mlp("obj_ptr_proj", token, 3) if present else self.weights["no_obj_ptr"]
            full = self.full(low_res)
            memory = self.encoded(features, (full > 0).float() if prompted else full.sigmoid(), score)
            frame = PlainFrame(low_res, ious[1:], score, pointer, memory)
        (self.prompted if points or mask is not None else self.tracked)[index] = frame
        return frame

    def given(self, maps: Maps, mask: Tensor) -> PlainFrame:
        """A mask prompt, [1, 1, S, S]: output and memory go by its low-resolution logits."""
        features, logits = maps[2], mask * 20 - 10
        low_res = F.interpolate(logits, scale_factor=0.25, mode="bilinear", align_corners=False, antialias=True)
        dense = self.map_of_mask(self.conv("mask_downsample", mask, stride=4))
        _, ious, tokens, score = self.decode(maps, features, self.tokens_of([]), dense)
        some = bool(mask.any())
        pointer = (
            self.mlp("obj_ptr_proj", tokens[:1], 3) if some and score > self.presence else self.weights["no_obj_ptr"]
        )
        score = torch.tensor([[10.0 if some else -10.0]])
        return PlainFrame(
            low_res, ious[1:], score, pointer, self.encoded(features, (self.full(low_res) > 0).float(), score)
        )
