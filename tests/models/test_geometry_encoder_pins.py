"""What each pin of the geometry encoder switches, mask prompts, and what it refuses."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.geometry_encoder import CORNER_LABEL_ROWS, GeometryEncoder
from samonnx.passes.lower import runnable
from samonnx.pins import PinValue, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTH, HIDDEN, HEADS, GRID = 16, 24, 4, 4
CELLS, SIDE = GRID * GRID, 4 * GRID
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
}
LAYER_PINS: dict[str, PinValue] = {
    "encode.*.pre_norm": True,
    "encode.*.position_at_self_attention": False,
    "encode.*.position_at_cross_attention_queries": False,
    "encode.*.position_at_cross_attention_keys": True,
}
MASK_PINS: dict[str, PinValue] = {"mask_encoder.mask_downsampler.resize_to_16x_grid": True}


def built(layers: int = 1, masks: bool = False, label_rows: int = 2, **changed: bool) -> GeometryEncoder:
    module = GeometryEncoder(WIDTH, HIDDEN, HEADS, layers, GRID, mask_prompts=masks, label_rows=label_rows)
    fill_seeded(module.eval().requires_grad_(False))
    apply_pins(module, RELEASED | changed | (LAYER_PINS if layers else {}) | (MASK_PINS if masks else {}))
    return module


@cache
def masked() -> GeometryEncoder:
    return built(masks=True)


def integers(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.int32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


FEATURES = random(1, WIDTH, GRID, GRID) * 4 - 2
BOXES, BOX_LABELS = random(1, 3, 4, seed=1), integers(1, 0, -1)
POINTS, POINT_LABELS = random(1, 4, 2, seed=2), integers(0, 1, 1, -1)
PLACES = (BOXES, BOX_LABELS, POINTS, POINT_LABELS)
EMPTY = (BOXES, integers(-1, -1, -1), POINTS, integers(-1, -1, -1, -1))
MASKS = random(1, 2, SIDE, SIDE, seed=3)
KINDS = 4 + 3  # places for points, then for boxes; CLS follows


# Pins


@pytest.mark.parametrize(
    ("pin", "layer"),
    [
        ("project_points", "points_direct_project"),
        ("pool_points", "points_pool_project"),
        ("encode_point_positions", "points_pos_enc_project"),
        ("project_boxes", "boxes_direct_project"),
        ("pool_boxes", "boxes_pool_project"),
        ("encode_box_positions", "boxes_pos_enc_project"),
    ],
)
def test_a_way_to_encode_that_is_pinned_false_adds_nothing(pin: str, layer: str) -> None:
    without, silenced = built(layers=0, **{pin: False}), built(layers=0)
    for parameter in silenced.get_submodule(layer).parameters():
        nn.init.zeros_(parameter)
    found = without(FEATURES, *PLACES)[0]
    assert relative(found, silenced(FEATURES, *PLACES)[0]) < 1e-6
    changed = (found - built(layers=0)(FEATURES, *PLACES)[0]).abs().amax(-1)[0] > 1e-2
    assert changed.tolist() == [kind in pin for kind in ["point"] * 4 + ["box"] * 3 + ["cls"]]


def test_without_the_final_projection_the_bare_tokens_reach_the_layers() -> None:
    bare, projected = built(layers=0, final_projection=False), built(layers=0)
    tokens = bare(FEATURES, *PLACES)[0]
    assert torch.equal(projected(FEATURES, *PLACES)[0], projected.norm(projected.final_proj(tokens)))
    assert torch.equal(tokens[0, -1], bare.cls_embed.weight[0])
    layered = built(final_projection=False)
    expected, valid = layered(FEATURES, *PLACES)
    cells = FEATURES.flatten(2).transpose(1, 2)
    assert torch.equal(expected, layered.encode_norm(layered.encode[0](tokens, valid, cells, layered.position)))


def test_without_a_cls_token_the_places_are_all_there_is() -> None:
    tokens, valid = built(layers=0)(FEATURES, *PLACES)
    module = built(layers=0, cls_token=False)
    found, found_valid = module(FEATURES, *PLACES)
    assert found.shape[1] == module.token_count(3, 4) == KINDS
    assert torch.equal(found_valid, valid[:, :-1])
    assert relative(found, tokens[:, :-1]) < 1e-6


@given(box_labels=st.tuples(*[st.integers(-1, 1)] * 3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_boxes_as_points_are_two_points_with_labels_of_their_own(box_labels: tuple[int, ...], seed: int) -> None:
    module = corners()
    boxes = random(1, 3, 4, seed=seed)
    found, valid = module(FEATURES, boxes, integers(*box_labels), POINTS, POINT_LABELS)
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    shifted = [[label + rows if label >= 0 else -1 for label in box_labels] for rows in (2, 4)]
    labels = torch.cat((POINT_LABELS, integers(*shifted[0]), integers(*shifted[1])), dim=1)
    points = torch.cat((POINTS, low, high), dim=1)
    expected, expected_valid = module(FEATURES, BOXES[:, :0], BOX_LABELS[:, :0], points, labels)
    assert found.shape[1] == module.token_count(3, 4) == 4 + 2 * 3 + 1
    assert torch.equal(valid, expected_valid)
    assert relative(found, expected) < 1e-5


@cache
def corners() -> GeometryEncoder:
    return built(label_rows=CORNER_LABEL_ROWS, boxes_as_points=True)


# Mask prompts


def test_masks_follow_after_the_layers_one_token_a_cell_with_their_label() -> None:
    module = masked()
    tokens, valid = module(FEATURES, *PLACES, MASKS, integers(1, 0))
    plain, plain_valid = module(FEATURES, *PLACES)
    assert tokens.shape[1] == module.token_count(3, 4, 2) == KINDS + 1 + 2 * CELLS
    assert torch.equal(tokens[:, : KINDS + 1], plain)
    assert torch.equal(valid, torch.cat((plain_valid, torch.ones(1, 2 * CELLS, dtype=torch.bool)), dim=1))
    assert module.mask_encoder is not None
    assert module.mask_label_embed is not None
    normed = module.img_pre_norm(FEATURES.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    encoded = module.mask_encoder(normed, MASKS)[0]
    for mask, label in ((0, 1), (1, 0)):
        expected = encoded[mask] + module.mask_label_embed.weight[label]
        found = tokens[0, KINDS + 1 + mask * CELLS : KINDS + 1 + (mask + 1) * CELLS]
        assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("value", [0.0, 1.0, -3e38, 3e38])
def test_an_empty_place_for_a_mask_is_inert(value: float) -> None:
    module = masked()
    expected, _ = module(FEATURES, *PLACES, MASKS, integers(1, -1))
    masks = torch.cat((MASKS[:, :1], torch.full((1, 1, SIDE, SIDE), value)), dim=1)
    tokens, valid = module(FEATURES, *PLACES, masks, integers(1, -1))
    assert valid[0, -2 * CELLS :].tolist() == [True] * CELLS + [False] * CELLS
    assert torch.equal(tokens, expected)
    assert bool(tokens.isfinite().all())


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize(
    ("places", "labels"), [(PLACES, (1, 0)), (PLACES, (-1, -1)), (EMPTY, (-1, -1)), (EMPTY, (1, -1))]
)
def test_cls_is_not_valid_in_a_prompt_of_masks_alone(
    places: tuple[Tensor, ...], labels: tuple[int, int], cls_token: bool
) -> None:
    module = masked() if cls_token else built(layers=0, masks=True, cls_token=False)
    tokens, valid = module(FEATURES, *places, MASKS, integers(*labels))
    of_places = [label >= 0 for label in (*places[3][0].tolist(), *places[1][0].tolist())]
    cls = [any(of_places) or max(labels) < 0] if cls_token else []
    assert valid[0].tolist() == of_places + cls + [labels[0] >= 0] * CELLS + [labels[1] >= 0] * CELLS
    assert bool(tokens.isfinite().all())


def test_onnx_runtime_gives_the_numbers_of_masks_too() -> None:
    module = masked()
    names = ("features", "boxes", "box_labels", "points", "point_labels", "masks", "mask_labels")
    first = (FEATURES, *PLACES, MASKS, integers(1, 0))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in zip(names, first, strict=True)}
    model = runnable(trace(Component("prompts", module, zeros, ("tokens", "valid"))).model)
    session = GraphSession(model, threads=1)
    for inputs in (first, (FEATURES, *EMPTY, MASKS, integers(-1, 1)), (FEATURES, *EMPTY, MASKS, integers(-1, -1))):
        expected, valid = module(*inputs)
        found = session.run({name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
        assert np.array_equal(found["valid"], valid.numpy())
        assert relative(torch.from_numpy(found["tokens"]), expected) < 1e-5


# Refusals


def refusal(module: GeometryEncoder, *given: Tensor) -> str:
    with pytest.raises(SamonnxError) as caught:
        module(FEATURES, *given)
    return str(caught.value)


def test_no_way_to_encode_points_or_boxes_is_refused() -> None:
    assert refusal(built(project_points=False, pool_points=False, encode_point_positions=False), *PLACES) == (
        "geometry encoder: no way to encode points; pin one of project_points, pool_points, encode_point_positions true"
    )
    assert refusal(built(project_boxes=False, pool_boxes=False, encode_box_positions=False), *PLACES) == (
        "geometry encoder: no way to encode boxes; pin one of boxes_as_points, project_boxes, pool_boxes, "
        "encode_box_positions true"
    )


def test_corner_points_need_a_label_table_with_rows_for_them() -> None:
    assert refusal(built(boxes_as_points=True), *PLACES) == (
        "geometry encoder: boxes_as_points is pinned true, but label_embed has 2 rows where corners need 6; "
        "pin it false, or build with label_rows=6"
    )


def test_layers_and_empty_prompts_need_the_cls_token() -> None:
    assert refusal(built(layers=1, cls_token=False), *PLACES) == (
        "geometry encoder: cls_token is pinned false, but with 1 layers and 7 places an empty prompt would leave "
        "nothing to attend; pin it true, or build without layers and with places"
    )
    without = (BOXES[:, :0], BOX_LABELS[:, :0], POINTS[:, :0], POINT_LABELS[:, :0])
    assert "with 0 layers and 0 places" in refusal(built(layers=0, cls_token=False), *without)


def test_masks_without_an_encoder_for_them_are_refused() -> None:
    assert refusal(built(), *PLACES, MASKS, integers(1, 0)) == (
        "geometry encoder: masks are given, but the model has no encoder for masks, as in every released checkpoint; "
        "leave them out, or build with mask_prompts=True"
    )
