"""The programs of SAM 2's image predictor: against a plain composition of the model's modules for each kind of prompt,
as upstream's predictor puts them together; places, objects and the models that have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import pytest
import torch
from torch import Tensor

from samonnx.build_model import build_model
from samonnx.eager_program import EagerRun
from samonnx.errors import SamonnxError
from samonnx.models.reference_tracker import ImageFeatures, encode_image
from samonnx.models.sam2 import Sam2
from samonnx.programs.predict import encode_frame_program, predict_program
from samonnx.programs.program import Program, example_tensors
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import Recipe, load_recipe
from samonnx.seeded import seeded_frame
from tests.tiny_model import ROOT

RECIPE = ROOT / "recipes" / "sam2_tiny.yaml"
SIZE, LOW, WIDTH = 128, 32, 32
PLACES = 4
MAPS = ("high_res_0", "high_res_1", "features")
NAMES = ("low_res_masks", "ious", "single_mask", "single_iou", "object_score")


@lru_cache(maxsize=4)
def model(*overrides: str) -> Sam2:
    return cast(Sam2, build_model(load_recipe(RECIPE, overrides)).module)


@lru_cache(maxsize=4)
def program(objects: int, points: int = PLACES, *overrides: str) -> Program:
    recipe = load_recipe(RECIPE, (f"programs.predict.objects={objects}", f"programs.predict.points={points}"))
    return predict_program(model(*overrides), recipe.programs["predict"])


@lru_cache(maxsize=8)
def image(*overrides: str) -> ImageFeatures:
    with torch.inference_mode():
        return encode_image(model(*overrides), torch.from_numpy(seeded_frame(0, SIZE))[None] * 4 - 2)


def earlier_logits(seed: int = 0) -> Tensor:
    """f32 [LOW, LOW] in -32 … 32, smooth."""
    coarse = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 12
    return torch.nn.functional.interpolate(coarse, size=(LOW, LOW), mode="bicubic")[0, 0].clamp(-32, 32)


@dataclass(frozen=True)
class Given:
    """One object's prompt: (x, y, label) of its points, earlier logits."""

    points: tuple[tuple[float, float, int], ...] = ()
    logits: Tensor | None = field(default=None, compare=False)


CLICK = Given(((38.4, 51.2, 1),))
CLICKS = Given(((38.4, 51.2, 1), (90.0, 20.0, 0), (44.0, 60.0, 1)))
BOX = Given(((20.0, 30.0, 2), (70.0, 75.0, 3)))
BOX_AND_CLICK = Given((*BOX.points, *CLICK.points))
MASK = Given(logits=earlier_logits())
MASK_AND_CLICK = Given(CLICK.points, earlier_logits(1))
MASK_AND_BOX = Given(BOX.points, earlier_logits(2))
PROMPTS = {
    "click": CLICK,
    "clicks": CLICKS,
    "box": BOX,
    "box and click": BOX_AND_CLICK,
    "mask": MASK,
    "mask and click": MASK_AND_CLICK,
    "mask and box": MASK_AND_BOX,
    "nothing": Given(),
}


def feeds(prompts: tuple[Given, ...], points: int = PLACES, *overrides: str) -> dict[str, Tensor]:
    values = example_tensors(program(len(prompts), points, *overrides).inputs)
    values |= {name: getattr(image(*overrides), name) for name in MAPS}
    values["point_labels"][:] = -1
    for row, given in enumerate(prompts):
        for place, (x, y, label) in enumerate(given.points):
            values["point_coords"][row, place] = torch.tensor([x, y])
            values["point_labels"][row, place] = label
        if given.logits is not None:
            values["mask_input"][row, 0] = given.logits
            values["mask_input_valid"][row] = True
    return values


def run(values: Mapping[str, Tensor], points: int = PLACES, *overrides: str) -> dict[str, Tensor]:
    made = program(len(values["point_labels"]), points, *overrides)
    found = EagerRun().values(made, values)
    for port in made.outputs:
        assert tuple(found[port.name].shape) == port.shape, port.name
    return {port.name: found[port.name] for port in made.outputs}


def plainly(given: Given, *overrides: str) -> dict[str, Tensor]:
    """One object with exactly its tokens, and branches: the points, then the empty point that pads them; without any
    point there are no tokens at all."""
    net, maps = model(*overrides), image(*overrides)
    encoder, decoder = net.sam_prompt_encoder, net.sam_mask_decoder
    sparse = torch.zeros(1, 0, WIDTH)
    if given.points:
        coords = torch.tensor([[[x, y] for x, y, _ in given.points] + [[0.0, 0.0]]])
        labels = torch.tensor([[label for _, _, label in given.points] + [-1]], dtype=torch.int32)
        sparse = encoder.point_tokens(coords, labels)
    if given.logits is None:
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    else:
        dense = encoder.mask_downscaling(given.logits[None, None])
    embedded = maps.features + net.no_mem_embed.reshape(1, -1, 1, 1)
    decoded = decoder(embedded, encoder.dense_position(), sparse, None, dense, maps.high_res_0, maps.high_res_1)
    logits, ious = decoded.logits, decoded.ious
    stable = (logits[0, 0] > 0.05).sum() >= 0.98 * (logits[0, 0] > -0.05).sum()
    single = 0 if stable else 1 + int(ious[0, 1:].argmax())
    return {
        "low_res_masks": logits[:, 1:],
        "ious": ious[:, 1:],
        "single_mask": logits[:, single : single + 1],
        "single_iou": ious[:, single : single + 1],
        "object_score": decoded.object_score,
    }


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: object) -> None:
    assert tuple(found) == tuple(expected) == NAMES
    for name in NAMES:
        largest = float(expected[name].abs().max())
        assert float((found[name] - expected[name]).abs().max()) < 1e-5 * largest, (what, name)


# Prompts


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_gives_the_masks_of_the_plain_composition(name: str) -> None:
    with torch.inference_mode():
        assert_close(run(feeds((PROMPTS[name],))), plainly(PROMPTS[name]), name)


def test_every_prompt_above_matters() -> None:
    masks = [plainly(given)["low_res_masks"] for given in PROMPTS.values()]
    for i, one in enumerate(masks):
        assert all(float((one - other).abs().max()) > 1e-3 * float(one.abs().max()) for other in masks[:i])


def test_without_points_not_even_the_padding_is_a_token() -> None:
    """The video's step has it there: the empty point beside earlier logits makes another mask."""
    net, maps = model(), image()
    encoder = net.sam_prompt_encoder
    none = torch.full((1, PLACES), -1, dtype=torch.int32)
    sparse, valid = encoder.padded_point_tokens(torch.zeros(1, PLACES, 2), none)
    assert bool(valid.any())
    assert MASK.logits is not None
    dense = encoder.mask_map(MASK.logits[None, None])
    embedded = net.without_memory(maps.features)
    position = encoder.dense_position()
    padded = net.sam_mask_decoder(embedded, position, sparse, valid, dense, maps.high_res_0, maps.high_res_1)
    found = run(feeds((MASK,)))["low_res_masks"]
    assert float((padded.logits[:, 1:] - found).abs().max()) > 1e-3 * float(found.abs().max())


@pytest.mark.parametrize("name", ["click", "mask", "mask and box"])
def test_what_stands_in_places_that_do_not_count_is_of_no_account(name: str) -> None:
    given = PROMPTS[name]
    values = feeds((given,))
    expected = run(values)
    values["point_coords"][values["point_labels"] < 0] = 77.0
    if given.logits is None:
        values["mask_input"][:] = torch.nan
    found = run(values)
    assert all(torch.equal(found[of], expected[of]) for of in NAMES)
    more = run(feeds((given,), 7), 7)
    assert_close(more, expected, "seven places")


def test_points_may_stand_in_any_places() -> None:
    values = feeds((CLICKS,))
    expected = run(values)
    order = [3, 1, 2, 0]
    values |= {name: values[name][:, order] for name in ("point_coords", "point_labels")}
    assert_close(run(values), expected, order)


# Objects


def test_several_objects_are_each_predicted_alone() -> None:
    together = run(feeds((CLICK, MASK, BOX_AND_CLICK, MASK_AND_CLICK, Given())))
    for row, given in enumerate((CLICK, MASK, BOX_AND_CLICK, MASK_AND_CLICK, Given())):
        assert_close({name: found[row : row + 1] for name, found in together.items()}, plainly(given), row)


ABSENT = "weights.seed=4"


def test_masks_of_an_absent_object_stay_as_the_decoder_gives_them() -> None:
    """The video's step would put them at -1024."""
    found = run(feeds((CLICK,), PLACES, ABSENT), PLACES, ABSENT)
    assert float(found["object_score"]) < 0
    assert_close(found, plainly(CLICK, ABSENT), ABSENT)
    assert float(found["low_res_masks"].min()) > -1000


# The single mask's logits a thousand times as large, so that next to none is near 0.
STABLE = tuple(
    f"weights.rescale.sam_mask_decoder.output_hypernetworks_mlps.0.layers.2.{of}=1000" for of in ("weight", "bias")
)


@pytest.mark.parametrize(("overrides", "stable"), [((), False), (STABLE, True)])
@pytest.mark.parametrize("name", ["box", "mask and click"])
def test_the_single_mask_is_the_decoders_own_where_it_is_stable_and_else_the_best_candidate(
    name: str, overrides: tuple[str, ...], stable: bool
) -> None:
    found = run(feeds((PROMPTS[name],), PLACES, *overrides), PLACES, *overrides)
    assert_close(found, plainly(PROMPTS[name], *overrides), overrides)
    best = int(found["ious"].argmax())
    assert torch.equal(found["single_mask"][0, 0], found["low_res_masks"][0, best]) is not stable
    assert torch.equal(found["single_iou"][0, 0], found["ious"][0, best]) is not stable


# Programs


def test_encode_image_gives_what_predict_takes() -> None:
    encode = encode_frame_program(model())
    pixels = torch.from_numpy(seeded_frame(0, SIZE))[None] * 4 - 2
    with torch.inference_mode():
        found = EagerRun().values(encode, {"image": pixels})
    assert [port.name for port in encode.outputs] == list(MAPS)
    taken = {port.name: port for port in program(1).inputs}
    for port in encode.outputs:
        assert (port.dtype, port.shape) == (taken[port.name].dtype, taken[port.name].shape)
        assert tuple(found[port.name].shape) == port.shape
        assert torch.equal(found[port.name], getattr(image(), port.name))


def test_the_ports_follow_the_recipes_objects_and_points() -> None:
    made = program(3, 2)
    shapes = {port.name: (port.dtype, port.shape) for port in (*made.inputs, *made.outputs)}
    assert shapes == {
        "high_res_0": ("float32", (1, 4, 32, 32)),
        "high_res_1": ("float32", (1, 8, 16, 16)),
        "features": ("float32", (1, 32, 8, 8)),
        "point_coords": ("float32", (3, 2, 2)),
        "point_labels": ("int32", (3, 2)),
        "mask_input": ("float32", (3, 1, 32, 32)),
        "mask_input_valid": ("bool", (3,)),
        "low_res_masks": ("float32", (3, 3, 32, 32)),
        "ious": ("float32", (3, 3)),
        "single_mask": ("float32", (3, 1, 32, 32)),
        "single_iou": ("float32", (3, 1)),
        "object_score": ("float32", (3, 1)),
    }
    assert all(port.meaning for port in (*made.inputs, *made.outputs))
    assert (made.bank, dict(made.pinned), made.specialisations) == ((), {}, ())


def asking(change: Callable[[dict[str, object]], object]) -> Recipe:
    tree = load_recipe(RECIPE).model_dump(mode="json")
    change(tree["programs"])
    return Recipe.model_validate_json(json.dumps(tree))


def test_a_sam_2_recipe_gets_the_programs_it_asks_for() -> None:
    names = [made.name for made in recipe_programs(model(), load_recipe(RECIPE))]
    assert names == ["encode_image", "track", "predict"]
    fewer = asking(lambda programs: programs.pop("predict"))
    assert [made.name for made in recipe_programs(model(), fewer)] == ["encode_image", "track"]


@pytest.mark.parametrize("name", ["segment", "encode_text", "ground", "step"])
def test_a_sam_2_recipe_that_asks_for_words_is_refused_with_the_programs_there_are(name: str) -> None:
    recipe = asking(lambda programs: programs.update({name: {}}))
    with pytest.raises(SamonnxError) as caught:
        recipe_programs(model(), recipe)
    assert str(caught.value) == (
        f"programs.{name}: the model of 'samonnx.models.sam2:build' has no such program; it has: "
        "encode_image, track, predict"
    )
