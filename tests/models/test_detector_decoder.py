"""The detector's decoder against a plain definition with PyTorch's own attention, its pins, and what is a set."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.models.detector_decoder import DecodedQueries, DetectorDecoder, DetectorDecoderLayer
from samonnx.models.packed_attention import PackedAttention
from samonnx.models.position_encoding import sine_map
from samonnx.pins import PinValue, UnpinnedBranchError, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTH, HEADS, HIDDEN, LAYERS, QUERIES, GRID, TOKENS = 16, 4, 24, 2, 7, 4, 6
CELLS = GRID * GRID
RELEASED: dict[str, PinValue] = {
    "box_bias": "log",
    "with_presence_token": True,
    "box_head_on_normed_queries": True,
    "layers.*.prompt_cross_attention": True,
}
CHANGES: list[dict[str, PinValue]] = [
    {},
    {"box_bias": "linear"},
    {"box_bias": "none"},
    {"with_presence_token": False},
    {"box_head_on_normed_queries": False},
    {"prompt_cross_attention": False},
]


def seeded() -> DetectorDecoder:
    decoder = DetectorDecoder(WIDTH, HIDDEN, HEADS, LAYERS, QUERIES, GRID).eval().requires_grad_(False)
    fill_seeded(decoder)
    # Queries and boxes that differ by more than seeded tables of this width, so that each stands out.
    decoder.query_embed.weight.mul_(4)
    decoder.reference_points.weight.mul_(4)
    return decoder


@cache
def pinned(**changed: PinValue) -> DetectorDecoder:
    decoder = seeded()
    apply_pins(decoder, {pattern: changed.get(pattern.rpartition(".")[2], v) for pattern, v in RELEASED.items()})
    return decoder


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Memory, prompt, and which of its tokens are real: all but one in the middle."""
    valid = torch.ones(batch, TOKENS, dtype=torch.bool)
    valid[:, 2] = False
    return noise(batch, CELLS, WIDTH), noise(batch, TOKENS, WIDTH, seed=1), valid


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def assert_close(found: DecodedQueries, expected: DecodedQueries, limit: float = 5e-6) -> None:
    for name, a, b in zip(DecodedQueries._fields, found, expected, strict=True):
        assert relative(a, b) < limit, name


# A plain definition: one image, sequence first, PyTorch's own attention; presence token and queries are kept apart.


class Plain(NamedTuple):
    queries: list[Tensor]
    """[Q, D] a layer."""
    boxes: list[Tensor]
    """[Q, 4]: as they enter each layer, then the last."""
    presence: list[Tensor]
    """[1] a layer; none without presence token."""
    token: Tensor


def attend(attention: PackedAttention, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    twin = nn.MultiheadAttention(WIDTH, HEADS).eval().requires_grad_(False)
    twin.load_state_dict(attention.state_dict())
    attended: Tensor = twin(q, k, v, attn_mask=bias)[0]
    return attended


def mlp(module: nn.Module, x: Tensor) -> Tensor:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    for layer in layers[:-1]:
        x = layer(x).clamp(min=0)
    out: Tensor = layers[-1](x)
    return out


def plain_position(decoder: DetectorDecoder, boxes: Tensor) -> Tensor:
    period = 10000.0 ** (torch.arange(0, WIDTH // 2, 2) / (WIDTH // 2))
    parts = []
    for axis in (1, 0, 2, 3):
        angle = boxes[:, axis, None] * 2 * torch.pi / period
        part = torch.zeros(len(boxes), WIDTH // 2)
        part[:, 0::2], part[:, 1::2] = angle.sin(), angle.cos()
        parts.append(part)
    return mlp(decoder.ref_point_head, torch.cat(parts, dim=1))


def plain_bias(decoder: DetectorDecoder, boxes: Tensor) -> Tensor:
    """[heads, Q, cells]."""
    bias = torch.zeros(HEADS, len(boxes), GRID, GRID)
    if decoder.box_bias == "none":
        return bias.flatten(2)
    for query, (x, y, width, height) in enumerate(boxes):
        for cell in range(GRID):
            far_x = torch.stack((cell / GRID - (x - width / 2), cell / GRID - (x + width / 2)))
            far_y = torch.stack((cell / GRID - (y - height / 2), cell / GRID - (y + height / 2)))
            if decoder.box_bias == "log":
                far_x, far_y = (far.sign() * (1 + 8 * far.abs()).log2() / 3 for far in (far_x, far_y))
            bias[:, query, :, cell] += mlp(decoder.boxRPB_embed_x, far_x)[:, None]
            bias[:, query, cell, :] += mlp(decoder.boxRPB_embed_y, far_y)[:, None]
    return bias.flatten(2)


def plain_layer(
    layer: DetectorDecoderLayer, tokens: Tensor, position: Tensor, bias: Tensor, memory: Tensor, prompt: Tensor
) -> Tensor:
    """tokens, position [n, D], bias [heads, n, cells], memory [cells, D], prompt [T, D], all of it real."""
    q = tokens + position
    tokens = layer.norm2(tokens + attend(layer.self_attn, q, q, tokens))
    if layer.prompt_cross_attention:
        tokens = layer.catext_norm(tokens + attend(layer.ca_text, tokens + position, prompt, prompt))
    key = memory + sine_map(WIDTH, GRID, GRID).flatten(1).T
    tokens = layer.norm1(tokens + attend(layer.cross_attn, tokens + position, key, memory, bias))
    hidden = layer.linear1(tokens).clamp(min=0)
    out: Tensor = layer.norm3(tokens + layer.linear2(hidden))
    return out


def plain(decoder: DetectorDecoder, memory: Tensor, prompt: Tensor) -> Plain:
    queries, token = decoder.query_embed.weight, decoder.presence_token.weight
    boxes = decoder.reference_points.weight.sigmoid()
    result = Plain([], [boxes], [], token)
    for layer in decoder.layers:
        assert isinstance(layer, DetectorDecoderLayer)
        position, bias = plain_position(decoder, boxes), plain_bias(decoder, boxes)
        if decoder.with_presence_token:
            position = torch.cat((torch.zeros(1, WIDTH), position))
            bias = torch.cat((torch.zeros(HEADS, 1, CELLS), bias), dim=1)
            together = plain_layer(layer, torch.cat((token, queries)), position, bias, memory, prompt)
            token, queries = together[:1], together[1:]
            logit = mlp(decoder.presence_token_head, decoder.presence_token_out_norm(token))
            result.presence.append(logit[0])
        else:
            queries = plain_layer(layer, queries, position, bias, memory, prompt)
        normed = decoder.norm(queries)
        result.queries.append(normed)
        logit = torch.maximum(boxes, torch.tensor(1e-3)).log() - torch.maximum(1 - boxes, torch.tensor(1e-3)).log()
        # the last boxes are made outside the decoder, from the normed queries
        last = len(result.queries) == LAYERS
        read = normed if decoder.box_head_on_normed_queries or last else queries
        boxes = (logit + mlp(decoder.bbox_embed, read)).sigmoid()
        result.boxes.append(boxes)
    return result._replace(token=token)


@pytest.mark.parametrize("changed", CHANGES, ids=str)
def test_it_equals_the_plain_definition(changed: dict[str, PinValue]) -> None:
    decoder, (memory, prompt, valid) = pinned(**changed), inputs()
    expected = plain(decoder, memory[0], prompt[0][valid[0]])
    found = decoder(memory, prompt, valid)
    assert relative(found.queries[:, 0], torch.stack(expected.queries)) < 5e-6
    assert relative(found.reference_boxes[:, 0], torch.stack(expected.boxes[:-1])) < 5e-6
    assert relative(found.boxes[0], expected.boxes[-1]) < 5e-6
    assert relative(found.presence_token[0], expected.token) < 5e-6
    assert found.presence_logits.shape == (LAYERS, 1, 1)
    if expected.presence:
        assert relative(found.presence_logits[:, 0], torch.stack(expected.presence)) < 5e-6


@pytest.mark.parametrize("changed", CHANGES[1:], ids=str)
def test_every_pin_makes_another_network(changed: dict[str, PinValue]) -> None:
    released, other = pinned()(*inputs()), pinned(**changed)(*inputs())
    assert relative(other.queries, released.queries) > 1e-4
    assert relative(other.boxes, released.boxes) > 1e-5


def test_without_presence_token_presence_is_certain_and_the_token_stays_as_it_was() -> None:
    decoder = pinned(with_presence_token=False)
    found = decoder(*inputs(batch=2))
    assert torch.equal(found.presence_logits.sigmoid(), torch.ones(LAYERS, 2, 1))
    assert torch.equal(found.presence_token, decoder.presence_token.weight.expand(2, 1, -1))


def test_an_unpinned_decoder_does_not_run() -> None:
    with pytest.raises(UnpinnedBranchError, match=r"DetectorDecoder\.with_presence_token"):
        seeded()(*inputs())


@given(seed=st.integers(0, 2**31), size=st.sampled_from([0.0, 1.0, 1e6]))
@settings(max_examples=10, deadline=None)
def test_what_lies_in_an_invalid_prompt_token_changes_nothing(seed: int, size: float) -> None:
    memory, prompt, valid = inputs()
    other = torch.where(valid[..., None], prompt, noise(1, TOKENS, WIDTH, seed=seed) * size)
    for found, expected in zip(pinned()(memory, other, valid), pinned()(memory, prompt, valid), strict=True):
        assert torch.equal(found, expected)


@given(order=st.permutations(range(TOKENS)))
@settings(max_examples=10, deadline=None)
def test_the_prompts_tokens_are_a_set(order: list[int]) -> None:
    memory, prompt, valid = inputs()
    assert_close(pinned()(memory, prompt[:, order], valid[:, order]), pinned()(memory, prompt, valid))


@given(order=st.permutations(range(QUERIES)))
@settings(max_examples=10, deadline=None)
def test_queries_are_a_set_and_the_presence_token_does_not_see_their_order(order: list[int]) -> None:
    moved = seeded()
    apply_pins(moved, RELEASED)
    for table in (moved.query_embed, moved.reference_points):
        table.weight.copy_(table.weight[order])
    expected = pinned()(*inputs())
    in_order = expected._replace(
        queries=expected.queries[:, :, order],
        boxes=expected.boxes[:, order],
        reference_boxes=expected.reference_boxes[:, :, order],
    )
    assert_close(moved(*inputs()), in_order)


@pytest.mark.parametrize("box_bias", ["log", "none"])
def test_the_memorys_cells_are_no_set(box_bias: str) -> None:
    memory, prompt, valid = inputs()
    moved = memory.unflatten(1, (GRID, GRID)).flip(2).flatten(1, 2)
    found, expected = (pinned(box_bias=box_bias)(m, prompt, valid) for m in (moved, memory))
    assert relative(found.queries, expected.queries) > 1e-3


def test_images_of_a_batch_do_not_see_one_another() -> None:
    memory, prompt, valid = inputs(batch=3)
    valid[1, 4:] = False
    together = pinned()(memory, prompt, valid)
    for row in range(3):
        one = slice(row, row + 1)
        alone = pinned()(memory[one], prompt[one], valid[one])
        assert_close(
            DecodedQueries(
                together.queries[:, one],
                together.boxes[one],
                together.reference_boxes[:, one],
                together.presence_logits[:, one],
                together.presence_token[one],
            ),
            alone,
        )


@pytest.mark.parametrize(
    "changed", [{}, {"box_bias": "linear", "with_presence_token": False}, {"box_bias": "none"}], ids=str
)
def test_onnx_runtime_gives_the_same_queries(changed: dict[str, PinValue]) -> None:
    decoder = pinned(**changed)
    ports = dict(zip(("memory", "prompt", "prompt_valid"), inputs(), strict=True))
    traced = trace(Component("decode", decoder, ports, DecodedQueries._fields))
    found = GraphSession(traced.model, threads=1).run({name: port.numpy() for name, port in ports.items()})
    arrays = DecodedQueries(*(torch.from_numpy(found[name]) for name in DecodedQueries._fields))
    assert_close(arrays, decoder(*ports.values()))
