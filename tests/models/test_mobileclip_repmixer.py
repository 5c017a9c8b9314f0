"""RepMixer blocks: the checkpoint's names, the one convolution that the branches add up to, how far a token reaches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.mobileclip_repmixer import KERNEL, ConvFeedForward, RepMixer, RepMixerBlock
from samonnx.weights import fill_seeded

WIDTH = 6

NORM = {"weight": (512,), "bias": (512,), "running_mean": (512,), "running_var": (512,), "num_batches_tracked": ()}
"""Entries of a batch norm of MobileCLIP-S0."""

RELEASED: dict[str, tuple[int, ...]] = {
    "layer_scale": (512, 1, 1),
    "token_mixer.layer_scale": (512, 1, 1),
    **{f"token_mixer.norm.rbr_skip.{name}": shape for name, shape in NORM.items()},
    **{f"token_mixer.mixer.rbr_skip.{name}": shape for name, shape in NORM.items()},
    "token_mixer.mixer.rbr_conv.0.conv.weight": (512, 1, 1, 11),
    **{f"token_mixer.mixer.rbr_conv.0.bn.{name}": shape for name, shape in NORM.items()},
    "convffn.conv.conv.weight": (512, 1, 1, 11),
    **{f"convffn.conv.bn.{name}": shape for name, shape in NORM.items()},
    "convffn.fc1.weight": (2048, 512, 1, 1),
    "convffn.fc1.bias": (2048,),
    "convffn.fc2.weight": (512, 2048, 1, 1),
    "convffn.fc2.bias": (512,),
}
"""State of a block of MobileCLIP-S0, as upstream's module lists it."""


def seeded(module: nn.Module) -> dict[str, Tensor]:
    """Fill the module; its state in float64."""
    fill_seeded(module.eval().requires_grad_(False))
    return {key: value.double() for key, value in module.state_dict().items()}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def affine(state: dict[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """A batch norm as slope and offset, f64 [width]."""
    slope = state[f"{prefix}.weight"] / (state[f"{prefix}.running_var"] + 1e-5).sqrt()
    return slope, state[f"{prefix}.bias"] - state[f"{prefix}.running_mean"] * slope


def convolved(x: Tensor, kernel: Tensor, offset: Tensor) -> Tensor:
    """x f32 [B, width, 1, L], kernel f64 [width, KERNEL]: the sum over neighbours, written out."""
    length = x.shape[-1]
    out = torch.zeros(x.shape, dtype=torch.float64)
    for place in range(length):
        for tap in range(KERNEL):
            neighbour = place + tap - KERNEL // 2
            if 0 <= neighbour < length:
                out[..., 0, place] += kernel[:, tap] * x[..., 0, neighbour].double()
    return out + offset[:, None, None]


def test_a_block_has_the_names_and_shapes_of_the_released_file() -> None:
    with torch.device("meta"):
        block = RepMixerBlock(512)
    assert {key: tuple(value.shape) for key, value in block.state_dict().items()} == RELEASED


@pytest.mark.parametrize("length", [1, 4, 16])
def test_the_token_mixer_is_one_depthwise_convolution(length: int) -> None:
    mixer = RepMixer(WIDTH)
    state = seeded(mixer)
    scale = state["layer_scale"].flatten()
    skip, skip_offset = affine(state, "mixer.rbr_skip")
    norm, norm_offset = affine(state, "norm.rbr_skip")
    slope, offset = affine(state, "mixer.rbr_conv.0.bn")
    kernel = (scale * slope)[:, None] * state["mixer.rbr_conv.0.conv.weight"].flatten(1)
    kernel[:, KERNEL // 2] += 1 + scale * (skip - norm)
    x = noise(2, WIDTH, 1, length)
    expected = convolved(x, kernel, scale * (skip_offset + offset - norm_offset))
    assert relative(mixer(x), expected) < 1e-6


def test_the_feed_forward_mixes_neighbours_then_channels_with_the_exact_gelu() -> None:
    feed = ConvFeedForward(WIDTH)
    state = seeded(feed)
    slope, offset = affine(state, "conv.bn")
    x = noise(2, WIDTH, 1, 9)
    y = convolved(x, slope[:, None] * state["conv.conv.weight"].flatten(1), offset)[:, :, 0].transpose(1, 2)
    hidden = y @ state["fc1.weight"][:, :, 0, 0].T + state["fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = hidden @ state["fc2.weight"][:, :, 0, 0].T + state["fc2.bias"]
    assert relative(feed(x)[:, :, 0].transpose(1, 2), expected) < 1e-6


def test_only_the_feed_forward_of_a_block_is_scaled_and_residual() -> None:
    block = RepMixerBlock(WIDTH)
    seeded(block)
    x = noise(2, 9, WIDTH)
    mixed = block.token_mixer(x.transpose(1, 2).unsqueeze(2))
    expected = mixed + block.layer_scale * block.convffn(mixed)
    assert torch.equal(block(x), expected.squeeze(2).transpose(1, 2))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_token_reaches_ten_tokens_to_either_side_and_no_further(length: int, data: st.DataObject) -> None:
    block = RepMixerBlock(WIDTH)
    seeded(block)
    place = data.draw(st.integers(0, length - 1))
    x = noise(1, length, WIDTH)
    other = x.clone()
    other[:, place] += 1
    changed = (block(x) != block(other)).any(2)[0]
    assert changed.tolist() == [abs(index - place) <= 2 * (KERNEL // 2) for index in range(length)]
