"""The layer over prompt tokens against PyTorch's own attention, what each pin changes, and the sine of a coordinate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from samonnx.models.geometry_layers import GeometryLayer, sine_of_coordinate
from samonnx.models.packed_attention import PackedAttention
from samonnx.pins import PinError, PinValue, apply_pins
from samonnx.weights import fill_seeded

WIDTH, HIDDEN, HEADS, TOKENS, CELLS = 16, 24, 4, 5, 9
RELEASED: dict[str, PinValue] = {
    "pre_norm": True,
    "position_at_self_attention": False,
    "position_at_cross_attention_queries": False,
    "position_at_cross_attention_keys": True,
}


def pinned(**changed: bool) -> GeometryLayer:
    layer = GeometryLayer(WIDTH, HIDDEN, HEADS).eval().requires_grad_(False)
    fill_seeded(layer)
    apply_pins(layer, RELEASED | changed)
    return layer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, of which the second and the fourth are not attended; cells and their position."""
    attended = torch.tensor([[True, False, True, False, True]])
    return noise(1, TOKENS, WIDTH), attended, noise(1, CELLS, WIDTH, seed=1), noise(1, CELLS, WIDTH, seed=2)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def by_torch(attention: PackedAttention, q: Tensor, k: Tensor, v: Tensor, ignored: Tensor | None = None) -> Tensor:
    original = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    original.load_state_dict(attention.state_dict())
    with torch.no_grad():
        attended: Tensor = original(q, k, v, key_padding_mask=ignored, need_weights=True)[0]
    return attended


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("position_at_keys", [True, False])
def test_tokens_attend_tokens_then_the_image_then_pass_the_feed_forward(pre_norm: bool, position_at_keys: bool) -> None:
    layer = pinned(pre_norm=pre_norm, position_at_cross_attention_keys=position_at_keys)
    tokens, attended, cells, position = inputs()
    keys = cells + position if position_at_keys else cells

    def normed(norm: nn.LayerNorm, y: Tensor, before: bool) -> Tensor:
        out: Tensor = norm(y) if before == pre_norm else y
        return out

    y = normed(layer.norm1, tokens, True)
    x = normed(layer.norm1, tokens + by_torch(layer.self_attn, y, y, y, ~attended), False)
    y = normed(layer.norm2, x, True)
    x = normed(layer.norm2, x + by_torch(layer.cross_attn_image, y, keys, cells), False)
    y = normed(layer.norm3, x, True)
    x = normed(layer.norm3, x + layer.linear2(torch.relu(layer.linear1(y))), False)
    assert relative(layer(tokens, attended, cells, position), x) < 1e-5


def test_each_pin_makes_another_network() -> None:
    expected = pinned()(*inputs())
    for pin in ("pre_norm", "position_at_cross_attention_keys"):
        assert relative(pinned(**{pin: False})(*inputs()), expected) > 1e-3


@pytest.mark.parametrize("pin", ["position_at_self_attention", "position_at_cross_attention_queries"])
def test_a_position_of_tokens_cannot_be_pinned_because_they_have_none(pin: str) -> None:
    with pytest.raises(PinError) as caught:
        pinned(**{pin: True})
    assert f"{pin}: found true (boolean) from `{pin}`, allowed: false" in str(caught.value)


def test_a_token_that_is_not_attended_changes_no_other() -> None:
    layer = pinned()
    tokens, attended, cells, position = inputs()
    changed = tokens.clone()
    changed[~attended] = 1e4
    found, expected = (layer(x, attended, cells, position) for x in (changed, tokens))
    assert torch.equal(found[attended], expected[attended])
    assert not torch.equal(found[~attended], expected[~attended])


def test_the_sine_of_a_coordinate_is_its_formula() -> None:
    coordinates = [[-0.25, 0.0, 0.3], [0.5, 1.0, 1.75]]
    found = sine_of_coordinate(torch.tensor(coordinates), 8)
    assert found.shape == (2, 3, 8)
    for row, column in ((i, j) for i in range(2) for j in range(3)):
        for feature in range(8):
            angle = 2 * math.pi * coordinates[row][column] / 10000 ** (2 * (feature // 2) / 8)
            expected = math.cos(angle) if feature % 2 else math.sin(angle)
            assert abs(float(found[row, column, feature]) - expected) < 1e-5
