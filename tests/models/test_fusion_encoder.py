"""The fusion encoder against a plain definition with PyTorch's own attention, what each pin changes, and its laws."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.fusion_encoder import FusionEncoder, FusionEncoderLayer
from samonnx.models.packed_attention import PackedAttention
from samonnx.models.position_encoding import sine_map
from samonnx.pins import PinValue, UnpinnedBranchError, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTH, HEADS, HIDDEN, LAYERS, GRID, TOKENS = 16, 4, 24, 2, 4, 6
CELLS = GRID * GRID
RELEASED: dict[str, PinValue] = {
    "layers.*.pre_norm": True,
    "layers.*.dac": False,
    "layers.*.position_at_self_attention": True,
    "layers.*.position_at_cross_attention_queries": False,
}


@cache
def pinned(grid: int = GRID, **changed: bool) -> FusionEncoder:
    encoder = FusionEncoder(WIDTH, HIDDEN, HEADS, LAYERS, grid).eval().requires_grad_(False)
    fill_seeded(encoder)
    apply_pins(encoder, {pattern: changed.get(pattern.rpartition(".")[2], v) for pattern, v in RELEASED.items()})
    return encoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int = 1, grid: int = GRID) -> tuple[Tensor, Tensor, Tensor]:
    """Features, prompt, and which of its tokens are real: all but one in the middle."""
    valid = torch.ones(batch, TOKENS, dtype=torch.bool)
    valid[:, 2] = False
    return noise(batch, WIDTH, grid, grid), noise(batch, TOKENS, WIDTH, seed=1), valid


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


# A plain definition: PyTorch's own attention module, sequence first, the parts written out.


def attend(attention: PackedAttention, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None = None) -> Tensor:
    twin = nn.MultiheadAttention(WIDTH, HEADS).eval().requires_grad_(False)
    twin.load_state_dict(attention.state_dict())
    attended: Tensor = twin(q, k, v, key_padding_mask=padding)[0]
    return attended


def plain_layer(layer: FusionEncoderLayer, x: Tensor, position: Tensor, prompt: Tensor, valid: Tensor) -> Tensor:
    """x, position [cells, 1, width], prompt [T, 1, width], valid [1, T]."""

    def to_itself(y: Tensor) -> Tensor:
        q = y + position if layer.position_at_self_attention else y
        return attend(layer.self_attn, q, q, y)

    def to_prompt(y: Tensor) -> Tensor:
        q = y + position if layer.position_at_cross_attention_queries else y
        return attend(layer.cross_attn_image, q, prompt, prompt, padding=~valid)

    def feed_forward(y: Tensor) -> Tensor:
        out: Tensor = layer.linear2(layer.linear1(y).clamp(min=0))
        return out

    if layer.pre_norm:
        x = x + to_itself(layer.norm1(x))
        x = x + to_prompt(layer.norm2(x))
        return x + feed_forward(layer.norm3(x))
    x = layer.norm1(x + to_itself(x))
    x = layer.norm2(x + to_prompt(x))
    out: Tensor = layer.norm3(x + feed_forward(x))
    return out


def first_layer(encoder: FusionEncoder) -> FusionEncoderLayer:
    layer = encoder.layers[0]
    assert isinstance(layer, FusionEncoderLayer)
    return layer


@pytest.mark.parametrize(("pre_norm", "at_self", "at_queries"), list(product([True, False], repeat=3)))
def test_it_equals_the_plain_definition(pre_norm: bool, at_self: bool, at_queries: bool) -> None:
    encoder = pinned(
        pre_norm=pre_norm, position_at_self_attention=at_self, position_at_cross_attention_queries=at_queries
    )
    features, prompt, valid = inputs()
    x, position = (cells.flatten(1).T[:, None] for cells in (features[0], sine_map(WIDTH, GRID, GRID)))
    for layer in encoder.layers:
        assert isinstance(layer, FusionEncoderLayer)
        x = plain_layer(layer, x, position, prompt.transpose(0, 1), valid)
    assert relative(encoder(features, prompt, valid), x.transpose(0, 1)) < 3e-6


@pytest.mark.parametrize(
    "pin", ["pre_norm", "position_at_self_attention", "position_at_cross_attention_queries", "dac"]
)
def test_every_pin_makes_another_network(pin: str) -> None:
    value = bool(RELEASED[f"layers.*.{pin}"])
    assert relative(pinned(**{pin: not value})(*inputs()), pinned()(*inputs())) > 1e-3


def test_divide_and_conquer_lets_the_first_half_attend_itself_and_the_second_nobody() -> None:
    layer, undivided = first_layer(pinned(dac=True)), first_layer(pinned())
    features, prompt, valid = inputs()
    x, position, half = features.flatten(2).transpose(1, 2), pinned().position, CELLS // 2
    found = layer(x, position, prompt, valid)
    assert relative(found[:, :half], undivided(x[:, :half], position[:, :half], prompt, valid)) < 1e-6
    alone = x[:, half:]
    alone = alone + undivided.cross_attn_image(undivided.norm2(alone), prompt, prompt, key_valid=valid)
    alone = alone + undivided.linear2(undivided.linear1(undivided.norm3(alone)).clamp(min=0))
    assert relative(found[:, half:], alone) < 1e-6


def test_divide_and_conquer_of_an_odd_number_of_cells_says_what_to_do() -> None:
    with pytest.raises(SamonnxError) as caught:
        pinned(grid=3, dac=True)(*inputs(grid=3))
    assert str(caught.value) == (
        "fusion encoder layer: `dac: true` needs an even number of cells to halve, 9 found; pin `dac: false`, or "
        "choose an image size whose grid is even"
    )


def test_post_norm_layers_refuse_to_divide_and_conquer() -> None:
    with pytest.raises(SamonnxError) as caught:
        pinned(dac=True, pre_norm=False)(*inputs())
    assert str(caught.value) == (
        "fusion encoder layer: `dac: true` with `pre_norm: false` found, but only pre-norm layers divide and conquer; "
        "pin `dac: false` or `pre_norm: true`"
    )


def test_an_unpinned_encoder_does_not_run() -> None:
    with pytest.raises(UnpinnedBranchError, match=r"FusionEncoderLayer\.dac"):
        FusionEncoder(WIDTH, HIDDEN, HEADS, LAYERS, GRID)(*inputs())


@given(seed=st.integers(0, 2**31), size=st.sampled_from([0.0, 1.0, 1e6]))
@settings(max_examples=15, deadline=None)
def test_what_lies_in_an_invalid_prompt_token_changes_nothing(seed: int, size: float) -> None:
    features, prompt, valid = inputs()
    other = torch.where(valid[..., None], prompt, noise(1, TOKENS, WIDTH, seed=seed) * size)
    assert torch.equal(pinned()(features, other, valid), pinned()(features, prompt, valid))


@given(places=st.lists(st.booleans(), min_size=TOKENS + 1, max_size=12).filter(lambda v: sum(v) == TOKENS))
@settings(max_examples=15, deadline=None)
def test_invalid_tokens_may_stand_anywhere_in_the_prompt(places: list[bool]) -> None:
    features, prompt, _ = inputs()
    valid = torch.tensor([places])
    padded = noise(1, len(places), WIDTH, seed=9)
    padded[valid] = prompt[0]
    unpadded = pinned()(features, prompt, torch.ones(1, TOKENS, dtype=torch.bool))
    assert relative(pinned()(features, padded, valid), unpadded) < 3e-6


@given(order=st.permutations(range(TOKENS)))
@settings(max_examples=15, deadline=None)
def test_the_prompts_tokens_are_a_set(order: list[int]) -> None:
    features, prompt, valid = inputs()
    found = pinned()(features, prompt[:, order], valid[:, order])
    assert relative(found, pinned()(features, prompt, valid)) < 3e-6


@given(order=st.permutations(range(CELLS)))
@settings(max_examples=10, deadline=None)
def test_without_positions_the_cells_are_a_set_too(order: list[int]) -> None:
    features, prompt, valid = inputs()
    moved = features.flatten(2)[..., order].unflatten(2, (GRID, GRID))
    bare = pinned(position_at_self_attention=False)
    assert relative(bare(moved, prompt, valid), bare(features, prompt, valid)[:, order]) < 3e-6


def test_with_positions_the_cells_are_no_set() -> None:
    features, prompt, valid = inputs()
    assert relative(pinned()(features.flip(3), prompt, valid), pinned()(features, prompt, valid)) > 1e-2


def test_images_of_a_batch_do_not_see_one_another() -> None:
    features, prompt, valid = inputs(batch=3)
    valid[1, 4:] = False
    together = pinned()(features, prompt, valid)
    for row in range(3):
        alone = pinned()(features[row : row + 1], prompt[row : row + 1], valid[row : row + 1])
        assert relative(together[row : row + 1], alone) < 3e-6


@pytest.mark.parametrize("changed", [{}, {"pre_norm": False}, {"dac": True}])
def test_onnx_runtime_gives_the_same_memory(changed: dict[str, bool]) -> None:
    encoder = pinned(**changed)
    ports = dict(zip(("features", "prompt", "prompt_valid"), inputs(), strict=True))
    traced = trace(Component("fuse", encoder, ports, ("memory",)))
    found = GraphSession(traced.model, threads=1).run({name: port.numpy() for name, port in ports.items()})["memory"]
    assert relative(torch.from_numpy(found), encoder(*ports.values())) < 3e-6
