"""Memory attention against a plain definition with complex rotations, and what each pin changes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.memory_attention import MemoryAttention, MemoryAttentionLayer, RotaryAttention
from samonnx.models.position_encoding import sine_map
from samonnx.pins import PinValue, apply_pins
from samonnx.weights import fill_seeded

WIDTH, MEMORY, HIDDEN, GRID, DEPTH = 16, 4, 24, 3, 2
CELLS = GRID * GRID
RELEASED: dict[str, PinValue] = {
    "position_at_input": True,
    "layers.*.pre_norm": True,
    "layers.*.position_at_self_attention": False,
    "layers.*.position_at_cross_attention_queries": False,
    "layers.*.position_at_cross_attention_keys": True,
}


def pinned(**changed: bool) -> MemoryAttention:
    model = MemoryAttention(WIDTH, MEMORY, HIDDEN, GRID, depth=DEPTH).eval().requires_grad_(False)
    fill_seeded(model)
    pins = {pattern: changed.get(pattern.rpartition(".")[2], value) for pattern, value in RELEASED.items()}
    apply_pins(model, pins)
    return model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(objects: int = 1, slots: int = 2, tokens: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features, memory and its position, pointer tokens and theirs."""
    return (
        noise(1, WIDTH, GRID, GRID),
        noise(objects, slots, CELLS, MEMORY, seed=1),
        noise(objects, slots, CELLS, MEMORY, seed=2),
        noise(objects, tokens, MEMORY, seed=3),
        noise(objects, tokens, MEMORY, seed=4),
    )


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# A plain definition: one object, memory as one sequence, rotation by complex numbers.


def turned(x: Tensor, maps: int) -> Tensor:
    """Turn the cells of `maps` maps, one after the other; what follows them (pointers) is left."""
    angles = torch.zeros(len(x), WIDTH // 2)
    for index in range(maps * CELLS):
        column, row = index % CELLS % GRID, index % CELLS // GRID
        for pair in range(WIDTH // 4):
            frequency = 10000.0 ** (-4 * pair / WIDTH)
            angles[index, pair], angles[index, WIDTH // 4 + pair] = column * frequency, row * frequency
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def plain_attention(attention: RotaryAttention, query: Tensor, key: Tensor, value: Tensor, key_maps: int = 1) -> Tensor:
    q, k = turned(attention.q_proj(query), 1), turned(attention.k_proj(key), key_maps)
    attended: Tensor = attention.out_proj(torch.softmax(q @ k.T / math.sqrt(WIDTH), -1) @ attention.v_proj(value))
    return attended


def plain_layer(layer: MemoryAttentionLayer, x: Tensor, memory: Tensor, position: Tensor, maps: int) -> Tensor:
    """As released: norms first, position on the memory's keys alone."""
    y = layer.norm1(x)
    x = x + plain_attention(layer.self_attn, y, y, y)
    y = layer.norm2(x)
    x = x + plain_attention(layer.cross_attn_image, y, memory + position, memory, maps)
    hidden = torch.relu(layer.linear1(layer.norm3(x)))
    out: Tensor = x + layer.linear2(hidden)
    return out


def test_it_equals_the_plain_definition_with_complex_rotations() -> None:
    model = pinned()
    features, memory, position, pointer, pointer_position = inputs()
    x = features[0].flatten(1).T + 0.1 * sine_map(WIDTH, GRID, GRID).flatten(1).T
    sequence = torch.cat((memory[0].flatten(0, 1), pointer[0]))
    positions = torch.cat((position[0].flatten(0, 1), pointer_position[0]))
    for layer in model.layers:
        assert isinstance(layer, MemoryAttentionLayer)
        x = plain_layer(layer, x, sequence, positions, maps=2)
    expected = model.norm(x).T.unflatten(1, (GRID, GRID))[None]
    found = model(features, memory, position, pointer, pointer_position)
    assert found.shape == (1, WIDTH, GRID, GRID)
    assert relative(found, expected) < 1e-5


def parts_of(layer: MemoryAttentionLayer, model: MemoryAttention) -> list[tuple[nn.LayerNorm, object]]:
    """The three parts of a layer as functions of the frame's cells alone, each with its norm."""
    _, memory, position, pointer, pointer_position = inputs()
    table = (model.cosine, model.sine)

    def attend_memory(y: Tensor) -> Tensor:
        return layer.cross_attn_image.over_memory(
            y, memory + position, memory, pointer + pointer_position, pointer, table
        )

    def feed_forward(y: Tensor) -> Tensor:
        out: Tensor = layer.linear2(torch.relu(layer.linear1(y)))
        return out

    return [
        (layer.norm1, lambda y: layer.self_attn.over_itself(y, y, table)),
        (layer.norm2, attend_memory),
        (layer.norm3, feed_forward),
    ]


@pytest.mark.parametrize("pre_norm", [True, False])
def test_pre_norm_puts_the_norm_before_each_part_and_post_norm_after_the_sum(pre_norm: bool) -> None:
    model = pinned(pre_norm=pre_norm)
    (layer,) = list(model.layers)[:1]
    assert isinstance(layer, MemoryAttentionLayer)
    cells = inputs()[0].flatten(2).transpose(1, 2)
    x = cells
    for norm, part in parts_of(layer, model):
        assert callable(part)
        x = x + part(norm(x)) if pre_norm else norm(x + part(x))
    _, *memory = inputs()
    found = layer(cells, model.position, *memory, (model.cosine, model.sine))
    assert torch.equal(found, x)


def test_pre_norm_and_post_norm_are_different_networks() -> None:
    assert relative(pinned(pre_norm=False)(*inputs()), pinned()(*inputs())) > 1e-2


def test_a_tenth_of_the_sine_position_is_added_at_the_input() -> None:
    features, *memory = inputs()
    by_hand = features + 0.1 * sine_map(WIDTH, GRID, GRID)[None]
    found = pinned()(features, *memory)
    assert relative(pinned(position_at_input=False)(by_hand, *memory), found) < 1e-6
    assert relative(pinned(position_at_input=False)(features, *memory), found) > 1e-4


def test_the_memorys_positions_reach_the_keys_and_never_the_values() -> None:
    features, memory, position, pointer, pointer_position = inputs()
    with_positions = pinned()(features, memory, position, pointer, pointer_position)
    without = pinned(position_at_cross_attention_keys=False)
    zeros = pinned()(features, memory, 0 * position, pointer, 0 * pointer_position)
    assert torch.equal(without(features, memory, position, pointer, pointer_position), zeros)
    assert relative(with_positions, zeros) > 1e-4
    # keys alone: values that are all the same give the same sum whatever the positions
    same = torch.ones_like(memory), torch.ones_like(pointer)
    a = pinned()(features, same[0], position, same[1], pointer_position)
    b = pinned()(features, same[0], 0 * position, same[1], 0 * pointer_position)
    assert relative(a, b) < 1e-5


@pytest.mark.parametrize("pin", ["position_at_self_attention", "position_at_cross_attention_queries"])
def test_the_frames_position_enters_attention_only_where_it_is_pinned_to(pin: str) -> None:
    _, *memory = inputs()
    cells = inputs()[0].flatten(2).transpose(1, 2)
    for value in (False, True):
        model = pinned(**{pin: value})
        layer = model.layers[0]
        table = (model.cosine, model.sine)
        with_position, without = (
            layer(cells, position, *memory, table) for position in (model.position, 0 * model.position)
        )
        assert torch.equal(with_position, without) is not value


@given(order=st.permutations(range(3)), tokens=st.permutations(range(5)))
@settings(max_examples=15, deadline=None)
def test_memory_maps_and_pointer_tokens_are_sets(order: list[int], tokens: list[int]) -> None:
    features, memory, position, pointer, pointer_position = inputs(slots=3, tokens=5)
    model = pinned()
    expected = model(features, memory, position, pointer, pointer_position)
    found = model(features, memory[:, order], position[:, order], pointer[:, tokens], pointer_position[:, tokens])
    assert relative(found, expected) < 1e-5


def test_the_cells_of_a_memory_map_are_not_a_set() -> None:
    features, memory, position, pointer, pointer_position = inputs()
    model = pinned()
    expected = model(features, memory, position, pointer, pointer_position)
    found = model(features, memory.flip(2), position.flip(2), pointer, pointer_position)
    assert relative(found, expected) > 1e-4


@given(objects=st.integers(1, 3), slots=st.integers(1, 4), tokens=st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_objects_share_the_features_and_attend_each_their_own_memory(objects: int, slots: int, tokens: int) -> None:
    features, *memory = inputs(objects, slots, tokens)
    model = pinned()
    together = model(features, *memory)
    assert together.shape == (objects, WIDTH, GRID, GRID)
    for row in range(objects):
        alone = model(features, *(tensor[row : row + 1] for tensor in memory))
        assert relative(together[row : row + 1], alone) < 1e-5
