"""From a recipe's `programs:` to programs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from samonnx.errors import SamonnxError
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import Recipe
from tests.tiny_model import tiny_model, tiny_recipe

NAMES = ("encode_text", "encode_image", "ground", "segment", "track", "step")


def asking_for(*names: str) -> Recipe:
    """The tiny recipe with these of its programs, in this order."""
    tree = tiny_recipe().model_dump(mode="json")
    tree["programs"] = {name: tree["programs"][name] for name in names}
    return Recipe.model_validate_json(json.dumps(tree))


def names_of(recipe: Recipe) -> tuple[str, ...]:
    return tuple(program.name for program in recipe_programs(tiny_model(), recipe))


def test_the_tiny_recipe_asks_for_every_program() -> None:
    assert names_of(tiny_recipe()) == NAMES


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(NAMES), unique=True, min_size=1).filter(lambda names: "step" not in names))
def test_a_recipe_gets_the_programs_it_asks_for_whatever_the_order_it_names_them_in(names: list[str]) -> None:
    assert names_of(asking_for(*names)) == tuple(name for name in NAMES if name in names)


def test_step_takes_objects_and_points_of_track_and_is_not_made_without_it() -> None:
    recipe = tiny_recipe("programs.track.objects=3", "programs.track.points=2")
    *_, track, step = recipe_programs(tiny_model(), recipe)
    shapes = {port.name: port.shape for port in step.inputs}
    assert shapes["point_coords"] == (3, 2, 2)
    assert {port.name: port.shape for port in track.inputs}.items() <= shapes.items()
    with pytest.raises(ValidationError, match="`step` needs `track` beside it, whose objects and points it takes"):
        asking_for("segment", "step")


def test_places_for_examples_are_those_of_the_recipe_in_every_program_that_detects() -> None:
    recipe = tiny_recipe("detection.boxes=7", "detection.points=2")
    for program in recipe_programs(tiny_model(), recipe):
        shapes = {port.name: port.shape for port in program.inputs}
        if program.name in ("ground", "segment", "step"):
            assert (shapes["prompt_boxes"], shapes["prompt_points"]) == ((1, 7, 4), (1, 2, 2))
        else:
            assert not [name for name in shapes if name.startswith("prompt_")]


def test_sizes_that_do_not_fit_stop_only_the_programs_that_have_them() -> None:
    model = tiny_model()
    masks = asking_for("encode_text", "encode_image", "track").model_copy(
        update={"detection": tiny_recipe("detection.masks=1").detection}
    )
    assert [program.name for program in recipe_programs(model, masks)] == ["encode_text", "encode_image", "track"]
    with pytest.raises(SamonnxError, match=r"detection\.masks: 1 found"):
        recipe_programs(model, tiny_recipe("detection.masks=1"))
    with pytest.raises(SamonnxError, match=r"memory\.recent_slots: 7 found, at most 6 allowed"):
        recipe_programs(model, tiny_recipe("memory.recent_slots=7"))


def test_components_of_one_name_are_the_same_in_every_program() -> None:
    """They are traced once: the same example inputs, and modules over the same weights."""
    found: dict[str, tuple[object, ...]] = {}
    for program in recipe_programs(tiny_model(), tiny_recipe()):
        for part in program.components:
            shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in part.inputs.items()}
            weights = {name: id(weight) for name, weight in part.module.named_parameters()}
            described = (type(part.module), shapes, part.outputs, weights, dict(part.integers), dict(part.bindings))
            assert found.setdefault(part.name, described) == described, part.name
    assert len(found) > 10
