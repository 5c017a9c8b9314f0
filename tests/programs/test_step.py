"""The `step` program: the ports and components of `segment` and `track`, what both have once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samonnx.eager_program import EagerRun
from samonnx.errors import SamonnxError
from samonnx.programs.program import Program, example_tensors
from samonnx.programs.segment import segment_program
from samonnx.programs.step import DETECTION_PREFIX, step_program
from samonnx.programs.track import track_program
from samonnx.programs.track_bank import BANK
from samonnx.recipe import Recipe
from samonnx.seeded import seeded_frame
from tests.tiny_model import tiny_model, tiny_recipe


def step_of(recipe: Recipe) -> Program:
    return step_program(tiny_model(), recipe.memory, recipe.programs["track"], recipe.detection)


def parts_of(recipe: Recipe) -> tuple[Program, Program]:
    """`track`, and `segment` with the names that it has in `step`."""
    model = tiny_model()
    return (
        track_program(model, recipe.memory, recipe.programs["track"]),
        segment_program(model, recipe.detection, DETECTION_PREFIX),
    )


def feeds_of(program: Program) -> dict[str, Tensor]:
    """A frame, a click on every object, words, a box; an empty bank."""
    feeds = example_tensors(program.inputs)
    feeds |= {t.input: torch.full_like(feeds[t.input], t.empty) for t in BANK}
    feeds |= {name: torch.full_like(feeds[name], -1) for name in feeds if name.endswith("_labels")}
    feeds["image"] = (torch.from_numpy(seeded_frame(0, 112))[None] - 0.5) / 0.5
    feeds["token_ids"][0, :4] = torch.tensor((49406, 320, 1929, 49407))
    feeds["prompt_boxes"][0, 0] = torch.tensor((0.3, 0.4, 0.24, 0.18))
    feeds["prompt_box_labels"][0, 0] = 1
    feeds["point_coords"][:, 0] = torch.tensor((33.6, 44.8))
    feeds["point_labels"][:, 0] = 1
    return feeds


RECIPES = pytest.mark.parametrize(
    "overrides",
    [(), ("programs.track.objects=2", "detection.boxes=2"), ("programs.track.mask_prompt=false",)],
    ids=["as it is", "two objects", "no mask prompt"],
)


@RECIPES
def test_step_has_the_ports_of_segment_and_track_and_the_image_once(overrides: tuple[str, ...]) -> None:
    recipe = tiny_recipe(*overrides)
    step, (track, segment) = step_of(recipe), parts_of(recipe)
    names = [port.name for port in step.inputs]
    assert names.count("image") == 1
    assert len(names) == len(track.inputs) + len(segment.inputs) - 1
    assert set(step.inputs) == {*track.inputs, *segment.inputs}
    assert step.outputs == (*track.outputs, *segment.outputs)
    assert len({port.name for port in step.outputs}) == len(step.outputs)
    assert (step.name, step.bank, step.pinned, step.specialisations) == ("step", track.bank, track.pinned, ())


@RECIPES
def test_the_trunk_is_there_once_and_every_other_component_is_of_one_side(overrides: tuple[str, ...]) -> None:
    recipe = tiny_recipe(*overrides)
    track, segment = ({part.name for part in program.components} for program in parts_of(recipe))
    names = [part.name for part in step_of(recipe).components]
    assert track & segment == {"encode_trunk"}
    assert sorted(names) == sorted(track | segment)


@RECIPES
def test_every_input_of_a_component_and_every_output_of_the_program_is_wired_once(overrides: tuple[str, ...]) -> None:
    program = step_of(tiny_recipe(*overrides))
    wanted = {f"{c.name}.{name}" for c in program.components for name in (*c.inputs, *c.validity.values())}
    wanted |= {port.name for port in program.outputs}
    assert sorted(wire.target for wire in program.wires) == sorted(wanted)


@RECIPES
def test_step_gives_what_segment_and_track_give_apart(overrides: tuple[str, ...]) -> None:
    recipe = tiny_recipe(*overrides)
    step = step_of(recipe)
    feeds = feeds_of(step)
    found = EagerRun().values(step, feeds)
    for program in parts_of(recipe):
        expected = EagerRun().values(program, {port.name: feeds[port.name] for port in program.inputs})
        for port in program.outputs:
            assert torch.equal(found[port.name], expected[port.name]), port.name


def test_what_segment_and_track_refuse_step_refuses() -> None:
    with pytest.raises(SamonnxError, match=r"detection\.masks: 1 found, but the model has no encoder for masks"):
        step_of(tiny_recipe("detection.masks=1"))
    with pytest.raises(SamonnxError, match=r"memory\.recent_slots: 7 found, at most 6 allowed"):
        step_of(tiny_recipe("memory.recent_slots=7"))
