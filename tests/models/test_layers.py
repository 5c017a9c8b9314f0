"""Shared layers against their formulas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.layers import MLP, LayerNorm2d, ProjectedAttention
from samonnx.weights import fill_seeded


def seeded(module: nn.Module) -> None:
    fill_seeded(module.eval().requires_grad_(False))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(
    channels=st.integers(1, 9), height=st.integers(1, 5), width=st.integers(1, 5), scale=st.sampled_from([1e-3, 1, 1e3])
)
@settings(max_examples=30, deadline=None)
def test_layer_norm_2d_is_the_layer_norm_of_each_cells_channels(
    channels: int, height: int, width: int, scale: float
) -> None:
    norm = LayerNorm2d(channels)
    seeded(norm)
    x = noise(2, channels, height, width) * scale
    last = F.layer_norm(x.permute(0, 2, 3, 1), (channels,), norm.weight, norm.bias, eps=1e-6)
    assert torch.allclose(norm(x), last.permute(0, 3, 1, 2), atol=2e-5)


def test_an_mlp_has_relu_between_its_layers_and_none_at_the_end() -> None:
    mlp, squashed = MLP(5, 7, 3, 3), MLP(5, 7, 3, 3, sigmoid=True)
    seeded(mlp)
    seeded(squashed)
    x = noise(4, 5)
    state = mlp.state_dict()
    y = x @ state["layers.0.weight"].T + state["layers.0.bias"]
    for i in (1, 2):
        y = torch.relu(y) @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"]
    assert (y < 0).any()
    assert torch.allclose(mlp(x), y, atol=1e-6)
    assert torch.allclose(squashed(x), torch.sigmoid(y), atol=1e-6)


def plain_attention(layer: ProjectedAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head after the other, softmax written out."""
    width = layer.q_proj.out_features // layer.heads
    heads = []
    for h in range(layer.heads):
        part = slice(h * width, (h + 1) * width)
        scores = layer.q_proj(q)[..., part] @ layer.k_proj(k)[..., part].transpose(1, 2) / width**0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ layer.v_proj(v)[..., part])
    projected: Tensor = layer.out_proj(torch.cat(heads, -1))
    return projected


def test_attention_is_softmax_of_scaled_products_head_by_head() -> None:
    layer = ProjectedAttention(12, heads=3, inner=6, key_width=5)
    seeded(layer)
    q, k, v = noise(2, 4, 12), noise(2, 7, 5, seed=1), noise(2, 7, 5, seed=2)
    assert torch.allclose(layer(q, k, v), plain_attention(layer, q, k, v), atol=1e-6)


@given(valid=st.lists(st.booleans(), min_size=1, max_size=8).filter(any), fill=st.sampled_from([0.0, 1e6, -1e6]))
@settings(max_examples=30, deadline=None)
def test_a_masked_key_is_a_key_that_is_not_there(valid: list[bool], fill: float) -> None:
    layer = ProjectedAttention(8, heads=2)
    seeded(layer)
    keep = torch.tensor(valid)
    q, k = noise(1, 3, 8), noise(1, len(valid), 8, seed=1)
    filled = torch.where(keep[None, :, None], k, fill)
    masked = layer(q, filled, filled, keep[None, None, None])
    assert torch.allclose(masked, layer(q, k[:, keep], k[:, keep]), atol=1e-6)
