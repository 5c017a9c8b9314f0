"""The programs of the original SAM: their ports, which recipes have them, and what their components compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import cast

import pytest
import torch
from torch import Tensor

from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.models.sam import Sam
from samonnx.models.sam_geometry import network_masks
from samonnx.programs.program import Program, example_tensors
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import PredictSpec, Recipe, RecipeError, load_recipe
from tests.tiny_model import ROOT

RECIPE = ROOT / "recipes" / "sam_tiny.yaml"
SIZE, LOW, WIDTH, GRID, PLACES = 128, 32, 32, 8, 4


@cache
def model() -> Sam:
    return cast(Sam, build_model(load_recipe(RECIPE)).module)


@cache
def programs(*overrides: str) -> dict[str, Program]:
    return {program.name: program for program in recipe_programs(model(), load_recipe(RECIPE, overrides))}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompts(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates, labels, masks and which of these count, of `rows` prompts of several kinds."""
    coords = torch.rand(rows, PLACES, 2, generator=torch.Generator().manual_seed(1)) * SIZE
    labels = torch.tensor([[1, -1, -1, -1], [2, 3, 1, -1], [-1, -1, -1, -1]], dtype=torch.int32)
    return coords, labels[torch.arange(rows) % 3], noise(rows, 1, LOW, LOW, seed=2), torch.arange(rows) % 2 == 1


# Ports


PROMPT_PORTS = {
    "point_coords": ("float32", ("prompts", 4, 2)),
    "point_labels": ("int32", ("prompts", 4)),
    "mask_input": ("float32", ("prompts", 1, 32, 32)),
    "mask_input_valid": ("bool", ("prompts",)),
}
PORTS = {
    "encode_image": {"image": ("float32", (1, 3, 128, 128)), "features": ("float32", (1, 32, 8, 8))},
    "predict": {
        "features": ("float32", (1, 32, 8, 8)),
        **PROMPT_PORTS,
        "low_res_masks": ("float32", ("prompts", 3, 32, 32)),
        "ious": ("float32", ("prompts", 3)),
        "single_mask": ("float32", ("prompts", 1, 32, 32)),
        "single_iou": ("float32", ("prompts", 1)),
    },
    "segment_prompt": {
        "image": ("float32", (1, 3, 128, 128)),
        **PROMPT_PORTS,
        "masks": ("float32", ("prompts", 3, 128, 128)),
        "ious": ("float32", ("prompts", 3)),
        "single_mask": ("float32", ("prompts", 1, 128, 128)),
        "single_iou": ("float32", ("prompts", 1)),
    },
}


@pytest.mark.parametrize("name", PORTS)
def test_the_ports_are_those_of_the_contract_and_each_says_what_it_means(name: str) -> None:
    made = programs()[name]
    ports = (*made.inputs, *made.outputs)
    assert {port.name: (port.dtype, port.shape) for port in ports} == PORTS[name]
    assert all(port.meaning for port in ports)
    assert (made.bank, dict(made.pinned)) == ((), {})


def test_a_recipe_that_gives_a_number_of_prompts_and_of_places_has_no_symbol() -> None:
    sized = programs("programs.predict.objects=3", "programs.predict.points=2")
    for name in ("predict", "segment_prompt"):
        ports = {port.name: port.shape for port in (*sized[name].inputs, *sized[name].outputs)}
        assert ports["point_coords"] == (3, 2, 2)
        assert ports["ious"] == (3, 3)
        assert all(isinstance(side, int) for shape in ports.values() for side in shape)
        assert not any(component.symbolic for component in sized[name].components)


def test_predict_has_a_specialisation_for_prompts_without_masks() -> None:
    (special,) = programs()["predict"].specialisations
    assert (special.name, dict(special.pinned)) == ("predict@points", {"mask_input_valid": False})


# Recipes


@pytest.mark.parametrize("name", ["sam_tiny", "sam_vit_b", "sam_vit_l", "sam_vit_h"])
def test_the_recipes_ask_for_all_programs_and_any_number_of_prompts_and_pin_nothing(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert recipe.name == name
    assert recipe.pins == {}
    assert list(recipe.programs) == ["encode_image", "predict", "segment_prompt"]
    assert recipe.programs["predict"] == PredictSpec(points=4, objects=None)
    assert recipe.model.args["model_type"] == name.removeprefix("sam_")


def asking(change: Callable[[dict[str, object]], object], recipe: str = "sam_tiny") -> Recipe:
    tree = load_recipe(ROOT / "recipes" / f"{recipe}.yaml").model_dump(mode="json")
    change(tree["programs"])
    return Recipe.model_validate_json(json.dumps(tree))


def test_a_recipe_gets_the_programs_it_asks_for() -> None:
    fewer = asking(lambda programs: programs.pop("segment_prompt"))
    assert [program.name for program in recipe_programs(model(), fewer)] == ["encode_image", "predict"]


@pytest.mark.parametrize("name", ["track", "segment", "encode_text"])
def test_other_programs_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(SamonnxError) as caught:
        recipe_programs(model(), asking(lambda programs: programs.update({name: {}})))
    assert str(caught.value) == (
        f"programs.{name}: the model of 'samonnx.models.sam:build' has no such program; it has: "
        "encode_image, predict, segment_prompt"
    )


def test_segment_prompt_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="`segment_prompt` needs `predict` beside it, whose objects and points"):
        asking(lambda programs: programs.pop("predict"))


def test_sam_2_refuses_a_symbolic_number_of_objects() -> None:
    recipe = load_recipe(ROOT / "recipes" / "sam2_tiny.yaml", ("programs.predict.objects=null",))
    with pytest.raises(SamonnxError) as caught:
        recipe_programs(build_model(recipe).module, recipe)
    assert str(caught.value) == (
        "programs.predict.objects: null found, a number of at least 1 expected: only the original SAM's predict takes "
        "any number of prompts (samonnx.models.sam:build)"
    )


@pytest.mark.parametrize("value", ["0", "-1", "any"])
def test_a_number_of_objects_that_is_none_is_refused_with_what_is_allowed(value: str) -> None:
    with pytest.raises(RecipeError, match=r"programs.predict.objects.*allowed: a whole number, at least 1 or null"):
        load_recipe(RECIPE, (f"programs.predict.objects={value}",))


# Components


def test_the_specialisation_computes_what_predict_does_for_prompts_without_masks() -> None:
    predict = programs()["predict"]
    general, special = predict.components[0].module, predict.specialisations[0].components["predict"].module
    coords, labels, mask, _ = prompts(5)
    with torch.inference_mode():
        features = model().encode_image(noise(1, 3, SIZE, SIZE))
        expected = general(features, coords, labels, mask, torch.zeros(5, dtype=torch.bool))
        found = special(features, coords, labels, mask, torch.ones(5, dtype=torch.bool))
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) < 1e-5 * float(other.abs().max())


def test_both_modes_are_given_and_enlarged_to_the_frame() -> None:
    predict, segment = programs()["predict"], programs()["segment_prompt"]
    coords, labels, mask, valid = prompts(4)
    with torch.inference_mode():
        features = model().encode_image(noise(1, 3, SIZE, SIZE))
        masks = model().predict(features, coords, labels, mask, valid)
        found = predict.components[0].module(features, coords, labels, mask, valid)
        enlarged = segment.components[2].module(found[0], found[2])
    assert torch.equal(torch.cat((found[2], found[0]), dim=1), masks.logits)
    assert torch.equal(torch.cat((found[3], found[1]), dim=1), masks.ious)
    for one, low in zip(enlarged, (found[0], found[2]), strict=True):
        assert torch.equal(one, network_masks(low, SIZE))


def test_predict_and_segment_prompt_share_the_decoder_by_name() -> None:
    shared = {component.name for component in programs()["segment_prompt"].components}
    assert {component.name for component in programs()["predict"].components} <= shared
    assert {component.name for component in programs()["encode_image"].components} <= shared


def test_examples_of_symbolic_ports_have_two_rows() -> None:
    """torch.export takes a dimension of one for a fixed one."""
    for component in programs()["predict"].components:
        assert {axes[0] for axes in component.symbolic.values()} == {"prompts"}
        assert all(component.inputs[name].shape[0] == 2 for name in component.symbolic)
    with pytest.raises(KeyError):
        example_tensors(programs()["predict"].inputs)
