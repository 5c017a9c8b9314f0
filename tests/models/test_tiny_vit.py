"""TinyViT: published sizes, how maps are cut into windows, attention and blocks by their formulas."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.tiny_vit import (
    TINYVIT_SIZES,
    FeedForward,
    MBConv,
    PatchMerging,
    TinyViT,
    TinyViTBlock,
    WindowAttention,
    from_windows,
    offset_index,
    to_windows,
)
from samonnx.weights import fill_seeded

WIDTH, HEADS, WINDOW = 12, 3, 4

M = TypeVar("M", bound=nn.Module)


def seeded(module: M) -> M:
    fill_seeded(module.eval().requires_grad_(False))
    return module


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """The formula of layer norm."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def attend_cell_by_cell(attention: WindowAttention, window: Tensor) -> Tensor:
    """[w², C] → [w², C] in float64: every pair of cells by itself."""
    state = {name: value.double() for name, value in attention.state_dict().items()}
    cells = norm(window.double(), attention.norm)
    packed = (cells @ state["qkv.weight"].T + state["qkv.bias"]).reshape(len(cells), HEADS, 3, -1)
    attended = torch.zeros(len(cells), HEADS, packed.shape[-1], dtype=torch.float64)
    for head in range(HEADS):
        q, k, v = packed[:, head].unbind(1)
        for cell in range(len(cells)):
            logits = torch.empty(len(cells), dtype=torch.float64)
            for other in range(len(cells)):
                rows, columns = abs(cell // WINDOW - other // WINDOW), abs(cell % WINDOW - other % WINDOW)
                bias = state["attention_biases"][head].reshape(WINDOW, WINDOW)[rows, columns]
                logits[other] = q[cell] @ k[other] / (WIDTH / HEADS) ** 0.5 + bias
            attended[cell, head] = torch.softmax(logits, 0) @ v
    projected: Tensor = attended.flatten(1) @ state["proj.weight"].T + state["proj.bias"]
    return projected


@pytest.mark.parametrize(
    ("name", "published"), [("tinyvit_5m", 5392764), ("tinyvit_11m", 10996972), ("tinyvit_21m", 21198568)]
)
def test_with_its_classifier_a_size_has_the_published_number_of_parameters(name: str, published: int) -> None:
    size = TINYVIT_SIZES[name]
    with torch.device("meta"):
        own = sum(parameter.numel() for parameter in TinyViT(size).parameters())
    width = size.widths[3]
    assert own + 2 * width + 1000 * (width + 1) == published  # layer norm, then 1000 classes


@pytest.mark.parametrize("side", [32, 33, 63, 64, 65, 112])
def test_the_map_is_a_thirty_second_of_the_image_rounded_up(side: int) -> None:
    model = seeded(TinyViT(TINYVIT_SIZES["tinyvit_tiny"]))
    assert model(noise(1, 3, side, side)).shape == (1, 32, -(-side // 32), -(-side // 32))


def test_the_tiny_size_meets_windows_that_cut_that_need_padding_and_that_hold_the_whole_map() -> None:
    size = TINYVIT_SIZES["tinyvit_tiny"]
    sides = [112 // 8, 112 // 16, 112 // 32 + 1]
    assert [(side % window, side > window) for side, window in zip(sides, size.windows, strict=True)] == [
        (0, True),
        (3, True),
        (0, False),
    ]


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_windows_hold_the_map_row_by_row_with_zeros_behind_its_edges(
    batch: int, height: int, width: int, window: int
) -> None:
    x = noise(batch, height, width, 2)
    windows = iter(to_windows(x, window))
    for image in x:
        for top in range(0, height, window):
            for left in range(0, width, window):
                expected = torch.zeros(window, window, 2)
                part = image[top : top + window, left : left + window]
                expected[: part.shape[0], : part.shape[1]] = part
                assert torch.equal(next(windows), expected.flatten(0, 1))
    assert next(windows, None) is None


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_a_map_comes_back_from_its_windows(batch: int, height: int, width: int, window: int) -> None:
    x = noise(batch, height, width, 2)
    assert torch.equal(from_windows(to_windows(x, window), window, height, width), x)


@settings(deadline=None)
@given(st.integers(1, 7))
def test_the_bias_of_a_pair_depends_on_its_distances_in_rows_and_columns(window: int) -> None:
    index = offset_index(window).tolist()
    cells = [(row, column) for row in range(window) for column in range(window)]
    assert index == [[abs(a - c) * window + abs(b - d) for c, d in cells] for a, b in cells]
    # Upstream numbers the distances as it meets them, going from the first cell to all others.
    assert index[0] == list(range(window * window))


def test_window_attention_is_softmax_attention_with_a_bias_for_each_distance() -> None:
    attention = seeded(WindowAttention(WIDTH, HEADS, WINDOW))
    windows = noise(2, WINDOW * WINDOW, WIDTH)
    windows[1, 5:] = 0  # cells of padding
    expected = torch.stack([attend_cell_by_cell(attention, window) for window in windows])
    assert torch.allclose(attention(windows).double(), expected, atol=2e-6)


def test_windows_do_not_see_each_other() -> None:
    attention = seeded(WindowAttention(WIDTH, HEADS, WINDOW))
    windows = noise(3, WINDOW * WINDOW, WIDTH)
    alone = torch.cat([attention(window[None]) for window in windows])
    assert torch.allclose(attention(windows), alone, atol=1e-6)


def test_turning_a_window_upside_down_or_left_to_right_turns_its_attention() -> None:
    attention = seeded(WindowAttention(WIDTH, HEADS, WINDOW))
    window = noise(1, WINDOW, WINDOW, WIDTH)
    for axis in (1, 2):
        turned = attention(window.flip(axis).flatten(1, 2)).unflatten(1, (WINDOW, WINDOW)).flip(axis)
        assert torch.allclose(turned.flatten(1, 2), attention(window.flatten(1, 2)), atol=1e-6)


def test_a_block_adds_attention_filters_and_adds_its_feed_forward() -> None:
    block = seeded(TinyViTBlock(WIDTH, HEADS, WINDOW))
    x = noise(2, WIDTH, 7, 6)
    cells = x.movedim(1, 3)
    padded = torch.zeros(2, 8, 8, WIDTH)
    padded[:, :7, :6] = cells
    attended = torch.empty_like(padded)
    for top in (0, 4):
        for left in (0, 4):
            here = (slice(None), slice(top, top + 4), slice(left, left + 4))
            attended[here] = block.attn(padded[here].flatten(1, 2)).unflatten(1, (4, 4))
    filtered = block.local_conv((cells + attended[:, :7, :6]).movedim(3, 1))
    expected = filtered + block.mlp(filtered.movedim(1, 3)).movedim(3, 1)
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_the_feed_forward_normalises_widens_and_narrows() -> None:
    layer = seeded(FeedForward(WIDTH))
    x = noise(5, WIDTH)
    state = layer.state_dict()
    wide = norm(x, layer.norm) @ state["fc1.weight"].T + state["fc1.bias"]
    active = wide * (1 + torch.erf(wide / 2**0.5)) / 2
    assert state["fc1.weight"].shape == (4 * WIDTH, WIDTH)
    assert torch.allclose(layer(x), active @ state["fc2.weight"].T + state["fc2.bias"], atol=1e-6)


def test_the_inverted_bottleneck_activates_after_the_sum() -> None:
    block = seeded(MBConv(WIDTH))
    x = noise(1, WIDTH, 5, 4)
    wide = F.gelu(block.conv2(F.gelu(block.conv1(x))))
    assert wide.shape == (1, 4 * WIDTH, 5, 4)
    assert torch.equal(block(x), F.gelu(block.conv3(wide) + x))


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9))
def test_merging_halves_the_sides_rounded_up(height: int, width: int) -> None:
    merging = seeded(PatchMerging(6, 10))
    x = noise(1, 6, height, width)
    halved = F.gelu(merging.conv2(F.gelu(merging.conv1(x))))
    assert merging(x).shape == (1, 10, (height + 1) // 2, (width + 1) // 2)
    assert torch.equal(merging(x), merging.conv3(halved))
