"""Geometry encoder as released: a token-by-token definition, the laws of places, and the graph in two engines."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir
import openvino as ov
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.graph_session import GraphSession
from samonnx.models.geometry_encoder import ROI_SIZE, GeometryEncoder
from samonnx.models.geometry_layers import sine_of_coordinate
from samonnx.models.roi_align import roi_align
from samonnx.passes.lower import runnable
from samonnx.pins import PinValue, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTH, HIDDEN, HEADS, LAYERS, GRID = 16, 24, 4, 2, 4
RELEASED: dict[str, PinValue] = {
    "project_points": True,
    "pool_points": True,
    "encode_point_positions": True,
    "boxes_as_points": False,
    "project_boxes": True,
    "pool_boxes": True,
    "encode_box_positions": True,
    "cls_token": True,
    "final_projection": True,
    "encode.*.pre_norm": True,
    "encode.*.position_at_self_attention": False,
    "encode.*.position_at_cross_attention_queries": False,
    "encode.*.position_at_cross_attention_keys": True,
}


@cache
def encoder() -> GeometryEncoder:
    module = GeometryEncoder(WIDTH, HIDDEN, HEADS, LAYERS, GRID)
    fill_seeded(module.eval().requires_grad_(False))
    apply_pins(module, RELEASED)
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


FEATURES = noise(1, WIDTH, GRID, GRID)


class Prompt(NamedTuple):
    """In the order of `GeometryEncoder.forward`, after the features."""

    boxes: Tensor
    box_labels: Tensor
    points: Tensor
    point_labels: Tensor


def prompt(box_labels: list[int], point_labels: list[int], seed: int = 0) -> Prompt:
    random = torch.Generator().manual_seed(seed)
    boxes = torch.rand(1, len(box_labels), 4, generator=random)
    points = torch.rand(1, len(point_labels), 2, generator=random)
    return Prompt(boxes, torch.tensor([box_labels]).int(), points, torch.tensor([point_labels]).int())


NOTHING = prompt([], [])
MIXED = prompt([1, 0, -1], [0, -1, 1, 1])


# A plain definition of the tokens in front of the layers, each on its own.


def normed_map(module: GeometryEncoder) -> Tensor:
    """[D, g, g], normed over the channels of each cell."""
    normed: Tensor = module.img_pre_norm(FEATURES[0].permute(1, 2, 0))
    return normed.permute(2, 0, 1)


def feature_at(features: Tensor, x: float, y: float) -> Tensor:
    """Bilinear, x and y in 0…1, cell centres at half cells, zero beyond the map."""
    at = torch.zeros(len(features))
    for row in range(GRID):
        for column in range(GRID):
            near = max(0.0, 1 - abs(x * GRID - 0.5 - column)) * max(0.0, 1 - abs(y * GRID - 0.5 - row))
            at = at + near * features[:, row, column]
    return at


def sine(value: float) -> Tensor:
    return sine_of_coordinate(torch.tensor(value), WIDTH // 2)


def plain_point(module: GeometryEncoder, point: list[float], label: int) -> Tensor:
    x, y = point
    token: Tensor = module.points_direct_project(torch.tensor([x, y]))
    token = token + module.points_pool_project(feature_at(normed_map(module), x, y))
    token = token + module.points_pos_enc_project(torch.cat((sine(x), sine(y))))
    return token + module.label_embed.weight[label]


def plain_box(module: GeometryEncoder, box: list[float], label: int) -> Tensor:
    x, y, width, height = box
    corners = [[x - width / 2, y - height / 2, x + width / 2, y + height / 2]]
    bins = roi_align(normed_map(module)[None], GRID * torch.tensor([corners]), ROI_SIZE)[0, 0]
    token: Tensor = module.boxes_direct_project(torch.tensor(box))
    pooled: Tensor = module.boxes_pool_project(bins[None])
    token = token + pooled[0, :, 0, 0]
    encoded: Tensor = module.boxes_pos_enc_project(torch.cat((sine(y), sine(x), torch.tensor([height, width]))))
    return token + encoded + module.label_embed.weight[label]


def plain_tokens(module: GeometryEncoder, given: Prompt) -> Tensor:
    """Valid tokens alone, points before boxes before CLS, through projection and layers."""
    points = zip(given.points[0].tolist(), given.point_labels[0].tolist(), strict=True)
    boxes = zip(given.boxes[0].tolist(), given.box_labels[0].tolist(), strict=True)
    tokens = [plain_point(module, point, label) for point, label in points if label >= 0]
    tokens += [plain_box(module, box, label) for box, label in boxes if label >= 0]
    x = module.norm(module.final_proj(torch.stack([*tokens, module.cls_embed.weight[0]])))[None]
    cells = FEATURES.flatten(2).transpose(1, 2)
    for layer in module.encode:
        x = layer(x, torch.ones(x.shape[:2], dtype=torch.bool), cells, module.position)
    encoded: Tensor = module.encode_norm(x)[0]
    return encoded


def test_valid_tokens_are_those_of_the_plain_definition() -> None:
    tokens, valid = encoder()(FEATURES, *MIXED)
    assert valid.tolist() == [[True, False, True, True, True, True, False, True]]
    assert relative(tokens[valid], plain_tokens(encoder(), MIXED)) < 1e-5


@given(seed=st.integers(0, 1000), boxes=st.integers(0, 3), points=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_any_number_of_places_gives_points_boxes_and_cls(seed: int, boxes: int, points: int) -> None:
    given = prompt([1, 0, 1][:boxes], [0, 1, 1][:points], seed)
    tokens, valid = encoder()(FEATURES, *given)
    assert tokens.shape == (1, encoder().token_count(boxes, points), WIDTH) == (1, boxes + points + 1, WIDTH)
    assert bool(valid.all())
    assert relative(tokens[0], plain_tokens(encoder(), given)) < 1e-5


# Laws of places

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
labels = st.lists(st.integers(-1, 1), max_size=4)


@given(box_labels=labels, point_labels=labels, values=st.lists(finite, min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_whatever_finite_value_lies_in_an_empty_place_it_changes_nothing(
    box_labels: list[int], point_labels: list[int], values: list[float]
) -> None:
    clean = prompt(box_labels, point_labels)
    boxes = torch.where((clean.box_labels < 0)[..., None], torch.tensor(values[:4]), clean.boxes)
    points = torch.where((clean.point_labels < 0)[..., None], torch.tensor(values[4:]), clean.points)
    expected, expected_valid = encoder()(FEATURES, *clean)
    found, valid = encoder()(FEATURES, *clean._replace(boxes=boxes, points=points))
    assert torch.equal(valid, expected_valid)
    assert torch.equal(found, expected)
    assert bool(found.isfinite().all())


@given(box_labels=labels, point_labels=labels)
@settings(max_examples=30, deadline=None)
def test_empty_places_are_as_good_as_no_places(box_labels: list[int], point_labels: list[int]) -> None:
    given = prompt(box_labels, point_labels)
    has_box, has_point = given.box_labels[0] >= 0, given.point_labels[0] >= 0
    fewer = Prompt(
        given.boxes[:, has_box],
        given.box_labels[:, has_box],
        given.points[:, has_point],
        given.point_labels[:, has_point],
    )
    tokens, valid = encoder()(FEATURES, *given)
    expected, all_valid = encoder()(FEATURES, *fewer)
    assert bool(all_valid.all())
    assert relative(tokens[valid], expected[0]) < 1e-5


@given(boxes=st.permutations(range(3)), points=st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_boxes_and_of_points_is_the_order_of_tokens_and_nothing_else(
    boxes: list[int], points: list[int]
) -> None:
    moved = Prompt(
        MIXED.boxes[:, boxes], MIXED.box_labels[:, boxes], MIXED.points[:, points], MIXED.point_labels[:, points]
    )
    expected, expected_valid = encoder()(FEATURES, *MIXED)
    tokens, valid = encoder()(FEATURES, *moved)
    order = [*points, *(4 + box for box in boxes), 7]
    assert torch.equal(valid, expected_valid[:, order])
    assert relative(tokens, expected[:, order]) < 1e-5


def test_an_empty_prompt_is_the_cls_token_alone() -> None:
    tokens, valid = encoder()(FEATURES, *prompt([-1, -1], [-1, -1, -1]))
    alone, alone_valid = encoder()(FEATURES, *NOTHING)
    assert valid.tolist() == [[False] * 5 + [True]]
    assert alone_valid.tolist() == [[True]]
    assert relative(tokens[valid], alone[0]) < 1e-5
    assert relative(alone[0], plain_tokens(encoder(), NOTHING)) < 1e-5


def test_each_image_of_a_batch_has_a_prompt_of_its_own() -> None:
    other = prompt([0, -1, 1], [-1, -1, 0, -1], seed=1)
    features = torch.cat((FEATURES, noise(1, WIDTH, GRID, GRID, seed=1)))
    together, valid = encoder()(features, *(torch.cat(pair) for pair in zip(MIXED, other, strict=True)))
    for image, places in enumerate((MIXED, other)):
        expected, expected_valid = encoder()(features[image : image + 1], *places)
        assert torch.equal(valid[image], expected_valid[0])
        assert relative(together[image], expected[0]) < 1e-5


def test_the_names_of_the_parameters_are_those_of_released_checkpoints() -> None:
    linear = [f"{kind}_{part}_project" for kind in ("points", "boxes") for part in ("direct", "pool", "pos_enc")]
    layer = ["linear1", "linear2", "norm1", "norm2", "norm3", "self_attn.out_proj", "cross_attn_image.out_proj"]
    parts = [*linear, "final_proj", "norm", "img_pre_norm", "encode_norm"]
    parts += [f"encode.{i}.{part}" for i in range(LAYERS) for part in layer]
    expected = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    for attention in ("self_attn", "cross_attn_image"):
        expected |= {f"encode.{i}.{attention}.in_proj_{kind}" for i in range(LAYERS) for kind in ("weight", "bias")}
    assert set(encoder().state_dict()) == expected | {"label_embed.weight", "cls_embed.weight"}


def test_onnx_runtime_and_openvino_give_its_numbers(tmp_path: Path) -> None:
    names = ("features", *Prompt._fields)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in zip(names, (FEATURES, *MIXED), strict=True)}
    model = runnable(trace(Component("encode_prompts", encoder(), zeros, ("tokens", "valid"))).model)
    ir.save(model, tmp_path / "prompts.onnx")
    engine = ov.Core().compile_model(str(tmp_path / "prompts.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = GraphSession(model, threads=1)
    for places in (MIXED, prompt([0, 1, 1], [1, -1, -1, 0], seed=1), prompt([-1] * 3, [-1] * 4)):
        expected, valid = encoder()(FEATURES, *places)
        feeds = {name: tensor.numpy() for name, tensor in zip(names, (FEATURES, *places), strict=True)}
        by_onnx_runtime, by_openvino = session.run(feeds), engine(feeds)
        for found in (by_onnx_runtime, {name: by_openvino[name] for name in ("tokens", "valid")}):
            assert found["valid"].tolist() == valid.tolist()
            assert relative(torch.from_numpy(found["tokens"]), expected) < 1e-5
