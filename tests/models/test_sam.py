"""SAM: the released names, prompts in padded places, its graph, and what it refuses."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models import sam2
from samonnx.models.sam import IMAGE_MEAN, IMAGE_STD, MODEL_TYPES, Sam, SamSizes, build, corner_places
from samonnx.models.sam_mask_decoder import SamMasks
from samonnx.pins import apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

GOLDEN = Path(__file__).parents[2] / "golden" / "sam1"
SIZE, GRID, LOW, WIDTH = 128, 8, 32, 32
PIXELS = st.floats(0, SIZE - 1, width=32)


@cache
def tiny() -> Sam:
    model = build("tiny", SIZE, WIDTH, 64).requires_grad_(False)
    apply_pins(model, {})
    fill_seeded(model, components=model.components)
    return model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def features() -> Tensor:
    return tiny().encode_image(noise(1, 3, SIZE, SIZE))


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


# Names


@pytest.mark.parametrize(("model_type", "entries"), [("vit_b", 314), ("vit_l", 482), ("vit_h", 594)])
def test_every_weight_has_the_name_shape_and_dtype_of_the_released_file_and_no_other_is_there(
    model_type: str, entries: int
) -> None:
    released = json.loads((GOLDEN / f"state_dict_{model_type}.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        state = build(model_type).state_dict()
    found = {key: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")} for key, t in state.items()}
    assert len(released) == entries
    assert found.keys() - released.keys() == set()
    assert released.keys() - found.keys() == set()
    assert found == released


def test_the_components_of_the_report_own_every_weight_and_each_has_some() -> None:
    model = tiny()
    prefixes = [prefix for given_ in model.components.values() for prefix in given_]
    owners = {max((p for p in prefixes if key.startswith(p)), key=len) for key in model.state_dict()}
    assert owners == set(prefixes)


def test_the_model_comes_in_eval_mode_with_no_branch_left_to_a_pin() -> None:
    model = build("tiny", SIZE, WIDTH, 64)
    assert not any(module.training for module in model.modules())
    assert apply_pins(model, {}).rows == ()


def test_images_are_normalised_as_for_sam_2() -> None:
    assert (Sam.image_mean, Sam.image_std) == (IMAGE_MEAN, IMAGE_STD) == (sam2.IMAGE_MEAN, sam2.IMAGE_STD)
    in_255 = [[round(255 * value, 3) for value in of_rgb] for of_rgb in (IMAGE_MEAN, IMAGE_STD)]
    assert in_255 == [[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]]


# Prompts


def predicted(coords: Tensor, labels: Tensor, mask: Tensor | None = None, valid: Tensor | None = None) -> SamMasks:
    """`mask` counts for every prompt unless `valid` says otherwise."""
    prompts = len(labels)
    if valid is None:
        valid = torch.full((prompts,), mask is not None)
    if mask is None:
        mask = torch.zeros(prompts, 1, LOW, LOW)
    with torch.inference_mode():
        return tiny().predict(features(), coords, labels, mask, valid)


def decoded(coords: list[tuple[float, float]], labels: list[int], mask: Tensor | None = None) -> SamMasks:
    """One prompt of these tokens alone: nothing is padded and nothing masked."""
    model = tiny()
    encoder = model.prompt_encoder
    sparse = torch.zeros(1, 0, WIDTH)
    if labels:
        sparse = encoder.point_tokens(torch.tensor([coords]), torch.tensor([labels], dtype=torch.int32))
    dense = encoder.no_mask_map() if mask is None else encoder.mask_downscaling(mask)
    with torch.inference_mode():
        masks: SamMasks = model.mask_decoder(features(), encoder.dense_position(), sparse, None, dense)
    return masks


def same(found: SamMasks, expected: SamMasks) -> bool:
    return relative(found.logits, expected.logits) < 1e-5 and relative(found.ious, expected.ious) < 1e-5


def test_each_kind_of_prompt_has_the_tokens_of_the_original() -> None:
    mask = 4 * noise(1, 1, LOW, LOW)
    click, other, first, second, pad = (38.0, 51.0), (90.0, 80.0), (20.0, 30.0), (70.0, 75.0), (0.0, 0.0)
    box = torch.tensor([[*first, *second]])
    corners = corner_places(box, torch.tensor([True]))
    point, several = torch.tensor([[click]]), torch.tensor([[click, other]])
    label, labels = torch.ones(1, 1, dtype=torch.int32), torch.tensor([[1, 0]], dtype=torch.int32)
    assert same(predicted(point, label), decoded([click, pad], [1, -1]))
    assert same(predicted(several, labels), decoded([click, other, pad], [1, 0, -1]))
    assert same(predicted(*corners), decoded([first, second], [2, 3]))
    both = torch.cat((point, corners[0]), dim=1), torch.cat((label, corners[1]), dim=1)
    assert same(predicted(*both), decoded([click, first, second], [1, 2, 3]))
    assert same(predicted(point, label, mask), decoded([click, pad], [1, -1], mask))
    nothing = torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int32)
    assert same(predicted(*nothing, mask), decoded([], [], mask))
    assert same(predicted(*nothing), decoded([], []))


@given(
    points=st.lists(st.tuples(st.integers(-1, 1), PIXELS, PIXELS), max_size=4),
    box=st.none() | st.tuples(PIXELS, PIXELS, PIXELS, PIXELS),
    masked=st.booleans(),
    garbage=st.sampled_from([0.0, -40.0, 1e4, 3e38]),
)
@settings(max_examples=30, deadline=None)
def test_empty_places_and_masks_that_are_not_valid_do_not_matter(
    points: list[tuple[int, float, float]], box: tuple[float, ...] | None, masked: bool, garbage: float
) -> None:
    labels = torch.tensor([[p[0] for p in points]], dtype=torch.int32)
    coords = torch.tensor([p[1:] for p in points], dtype=torch.float32).reshape(1, -1, 2)
    coords = torch.where((labels >= 0)[..., None], coords, garbage)
    corners = corner_places(torch.tensor([box or (garbage,) * 4]), torch.tensor([box is not None]))
    mask = noise(1, 1, LOW, LOW)
    found = predicted(
        torch.cat((coords, corners[0]), dim=1),
        torch.cat((labels, corners[1]), dim=1),
        mask if masked else torch.full_like(mask, garbage),
        torch.tensor([masked]),
    )
    used = [((p[1], p[2]), p[0]) for p in points if p[0] >= 0]
    if box is not None:
        used += [((box[0], box[1]), 2), ((box[2], box[3]), 3)]
    elif used:
        used.append(((0.0, 0.0), -1))
    assert same(found, decoded([of for of, _ in used], [label for _, label in used], mask if masked else None))
    assert torch.isfinite(found.logits).all()
    assert torch.isfinite(found.ious).all()


@given(order=st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_places_does_not_matter(order: list[int]) -> None:
    coords = torch.tensor([[[38.0, 51.0], [0.0, 0.0], [20.0, 30.0], [70.0, 75.0]]])
    labels = torch.tensor([[1, -1, 2, 3]], dtype=torch.int32)
    assert same(predicted(coords[:, order], labels[:, order]), predicted(coords, labels))


def test_prompts_without_masks_are_answered_alike_by_the_way_that_uses_the_image_once() -> None:
    coords = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(3)) * SIZE
    labels = torch.tensor([[1, 0, -1, -1], [2, 3, 1, -1], [-1, -1, -1, -1]], dtype=torch.int32)
    with torch.inference_mode():
        found = tiny().predict_points(features(), coords, labels)
    assert same(found, predicted(coords, labels))
    with pytest.raises(SamonnxError, match=r"point_coords: \[2, 4, 2\] found, \[3, 4, 2\] expected for point_labels"):
        tiny().predict_points(features(), coords[:2], labels)


def test_prompts_of_a_batch_are_answered_as_each_alone() -> None:
    coords = SIZE * torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, -1, -1], [2, 3, -1], [2, 3, 1], [-1, -1, -1], [0, 1, 1]], dtype=torch.int32)
    mask, valid = 4 * noise(5, 1, LOW, LOW), torch.tensor([False, True, False, True, True])
    together = predicted(coords, labels, mask, valid)
    for row in range(5):
        of = slice(row, row + 1)
        alone = predicted(coords[of], labels[of], mask[of], valid[of])
        assert same(SamMasks(together.logits[of], together.ious[of]), alone)


# Graph


class Prediction(nn.Module):
    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features: Tensor, coords: Tensor, labels: Tensor, mask: Tensor, valid: Tensor
    ) -> tuple[Tensor, ...]:
        masks = self.model.predict(features, coords, labels, mask, valid)
        return masks.logits, masks.ious


def test_onnx_runtime_gives_the_same_masks_for_any_number_of_prompts() -> None:
    inputs = {
        "features": features(),
        "coords": SIZE * torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)),
        "labels": torch.tensor([[1, -1, -1, -1], [1, 0, 2, 3], [-1, -1, -1, -1]], dtype=torch.int32),
        "mask": noise(3, 1, LOW, LOW),
        "valid": torch.tensor([True, False, False]),
    }
    axes = {name: {0: "prompts"} for name in inputs if name != "features"}
    traced = trace(Component("predict", Prediction(tiny()), inputs, ("logits", "ious"), symbolic=axes))
    session = GraphSession(traced.model, threads=1)
    for rows in (3, 1, 5):
        fed = {
            name: value if name == "features" else torch.cat((value, value))[:rows] for name, value in inputs.items()
        }
        found = session.run({name: value.numpy() for name, value in fed.items()})
        expected = tiny().predict(*fed.values())
        assert relative(torch.from_numpy(found["logits"]), expected.logits) < 1e-5
        assert relative(torch.from_numpy(found["ious"]), expected.ious) < 1e-5


# Errors


def test_an_unknown_model_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(SamonnxError, match=r"model\.args\.model_type: 'vit_t' found, one of vit_b, vit_l, vit_h, tiny"):
        build("vit_t")
    assert list(MODEL_TYPES) == ["vit_b", "vit_l", "vit_h", "tiny"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 1000}, r"model\.args\.image_size: 1000 pixels found, a multiple of 16 expected"),
        ({"image_size": 0}, r"model\.args\.image_size: 0 found, a whole number of at least 1 expected"),
        ({"hidden_dim": 48}, r"model\.args\.hidden_dim: 48 found, a multiple of 32 expected \(8 heads"),
        ({"ffn_dim": -1}, r"model\.args\.ffn_dim: -1 found, a whole number of at least 1 expected"),
    ],
)
def test_sizes_that_the_network_cannot_have_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(SamonnxError, match=message):
        build("tiny", **sizes)


def test_the_grid_and_the_low_resolution_follow_the_image_size() -> None:
    assert (SamSizes().grid, SamSizes().low_res) == (64, 256)
    assert (tiny().sizes.grid, tiny().sizes.low_res) == (GRID, LOW)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("features", (1, WIDTH, GRID, GRID + 1), [1, WIDTH, GRID, GRID]),
        ("features", (2, WIDTH, GRID, GRID), [1, WIDTH, GRID, GRID]),
        ("point_coords", (2, 4, 2), [2, 3, 2]),
        ("point_coords", (1, 3, 2), [2, 3, 2]),
        ("point_coords", (2, 3), [2, 3, 2]),
        ("mask_input", (2, 1, SIZE, SIZE), [2, 1, LOW, LOW]),
        ("mask_input", (2, LOW, LOW), [2, 1, LOW, LOW]),
        ("mask_input_valid", (1,), [2]),
    ],
)
def test_a_tensor_of_another_shape_is_refused_by_name(name: str, shape: tuple[int, ...], expected: list[int]) -> None:
    inputs = {
        "features": features(),
        "point_coords": torch.zeros(2, 3, 2),
        "point_labels": torch.zeros(2, 3, dtype=torch.int32),
        "mask_input": torch.zeros(2, 1, LOW, LOW),
        "mask_input_valid": torch.zeros(2, dtype=torch.bool),
    }
    with pytest.raises(SamonnxError) as caught:
        tiny().predict(**(inputs | {name: torch.zeros(shape)}))
    assert str(caught.value) == (
        f"{name}: {list(shape)} found, {expected} expected for point_labels [2, 3] and an image of {SIZE} pixels a side"
    )


def test_labels_without_a_place_for_each_point_are_refused() -> None:
    mask, valid = torch.zeros(2, 1, LOW, LOW), torch.zeros(2, dtype=torch.bool)
    with pytest.raises(SamonnxError, match=r"point_labels: \[2\] found, \[2, 2\] expected"):
        tiny().predict(features(), torch.zeros(2, 1, 2), torch.zeros(2, dtype=torch.int32), mask, valid)
