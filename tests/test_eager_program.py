"""Programs on eager components: what is run, what is kept, what is given in place of a component's result."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from samonnx.eager_program import EagerRun
from samonnx.programs.program import Component, Port, Program, Wire
from samonnx.programs.recipe_programs import recipe_programs
from tests.tiny_model import tiny_model, tiny_recipe


class Counted(nn.Module):
    """x → x · factor and x + factor, and how often it was run."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.runs = factor, 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.runs += 1
        return x * self.factor, x + self.factor


class Mean(nn.Module):
    """Over slots, that is over all that it is given."""

    def forward(self, slots: Tensor) -> Tensor:
        return slots.mean(1)


X = Port("x", "float32", (2,), "")
Y = Port("y", "float32", (2,), "")


def part(name: str, module: nn.Module) -> Component:
    return Component(name, module, {"x": torch.zeros(2)}, ("times", "plus"))


def chain(name: str, *components: Component, output: str = "times") -> Program:
    """x → first → … → y, by the output `times` of all but the last."""
    sources = ["x", *(f"{component.name}.times" for component in components[:-1])]
    wires = [Wire(source, f"{component.name}.x") for source, component in zip(sources, components, strict=True)]
    wires.append(Wire(f"{components[-1].name}.{output}", "y"))
    return Program(name, (X,), (Y,), components, tuple(wires))


def test_values_are_given_by_input_by_component_and_by_output() -> None:
    program = chain("p", part("first", Counted(2.0)), part("second", Counted(3.0)), output="plus")
    found = EagerRun().values(program, {"x": torch.tensor([1.0, 2.0])})
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "x": [1, 2],
        "first.times": [2, 4],
        "first.plus": [3, 4],
        "second.times": [6, 12],
        "second.plus": [5, 7],
        "y": [5, 7],
    }


def test_a_component_that_programs_share_is_run_once_for_the_same_tensor() -> None:
    shared, own, other = Counted(2.0), Counted(3.0), Counted(5.0)
    run, x = EagerRun(), torch.ones(2)
    run.values(chain("p", part("shared", shared), part("own", own)), {"x": x})
    found = run.values(chain("q", part("shared", shared), part("other", other)), {"x": x})
    assert (shared.runs, own.runs, other.runs) == (1, 1, 1)
    assert found["y"].tolist() == [10, 10]


def test_another_tensor_is_another_run_even_if_it_lies_where_a_forgotten_one_lay() -> None:
    """What is known by an id must be kept alive."""
    module = Counted(2.0)
    program, run = chain("p", part("only", module)), EagerRun()
    for value in range(50):
        assert run.values(program, {"x": torch.full((2,), float(value))})["y"].tolist() == [2 * value] * 2
    assert module.runs == 50


def test_components_are_told_apart_by_name() -> None:
    run, x = EagerRun(), torch.ones(2)
    assert run.values(chain("p", part("double", Counted(2.0))), {"x": x})["y"].tolist() == [2, 2]
    assert run.values(chain("q", part("triple", Counted(3.0))), {"x": x})["y"].tolist() == [3, 3]


def test_what_is_given_stands_for_what_the_component_would_return() -> None:
    first, second = Counted(2.0), Counted(3.0)
    program, x = chain("p", part("first", first), part("second", second)), torch.ones(2)
    given = {"first.times": torch.full((2,), 10.0), "first.plus": torch.full((2,), 20.0)}
    found = EagerRun().values(program, {"x": x}, given)
    assert found["y"].tolist() == [30, 30]
    assert first.runs == 0, "all that it would return is known"


def test_of_a_component_that_is_given_in_part_the_rest_is_computed() -> None:
    first = Counted(2.0)
    program = chain("p", part("first", first), part("second", Counted(3.0)))
    found = EagerRun().values(program, {"x": torch.ones(2)}, {"first.times": torch.full((2,), 10.0)})
    assert (found["first.times"].tolist(), found["first.plus"].tolist()) == ([10, 10], [3, 3])
    assert found["y"].tolist() == [30, 30]
    assert first.runs == 1


def padded(valid: list[bool]) -> Mapping[str, Tensor]:
    """A mean over slots that hold 1, 2, 4, …"""
    slots = 2.0 ** torch.arange(len(valid))
    program = Program(
        "p",
        (Port("slots", "float32", (1, 4), ""), Port("valid", "bool", (1, 4), "")),
        (Port("y", "float32", (1,), ""),),
        (
            Component(
                "mean",
                Mean(),
                {"slots": torch.zeros(1, 4)},
                ("mean",),
                symbolic={"slots": {1: "n"}},
                bindings={"n": 4},
                validity={"n": "filled"},
            ),
        ),
        (Wire("slots", "mean.slots"), Wire("valid", "mean.filled"), Wire("mean.mean", "y")),
    )
    return EagerRun().values(program, {"slots": slots[None], "valid": torch.tensor([valid])})


@pytest.mark.parametrize(
    ("valid", "mean"),
    [
        ([True, True, True, True], 3.75),
        ([True, False, True, False], 2.5),
        ([False, False, False, True], 8.0),
    ],
)
def test_a_component_over_padded_slots_gets_the_valid_ones_alone(valid: list[bool], mean: float) -> None:
    assert padded(valid)["y"].tolist() == [mean]


def test_without_a_valid_slot_the_result_is_nan_since_nothing_may_depend_on_it() -> None:
    assert padded([False] * 4)["y"].isnan().all()


def test_all_programs_of_a_recipe_together_run_each_component_once() -> None:
    model, recipe = tiny_model(), tiny_recipe()
    programs = {program.name: program for program in recipe_programs(model, recipe)}
    runs: list[str] = []
    image = torch.rand(1, 3, 112, 112)
    trunk = model.detector.backbone.vision_backbone.trunk.get_submodule("model")
    hook = trunk.register_forward_hook(lambda *_: runs.append("trunk"))
    try:
        run, feeds = EagerRun(), {"image": image, "token_ids": torch.zeros(1, 8, dtype=torch.int64)}
        features = run.values(programs["encode_image"], feeds)
        words = run.values(programs["encode_text"], feeds)
        examples = {
            port.name: torch.full(port.sides(), -1, dtype=torch.int32 if port.dtype == "int32" else torch.float32)
            for port in programs["segment"].inputs
            if port.name.startswith("prompt_")
        }
        segmented = run.values(programs["segment"], feeds | examples)
        grounded = run.values(programs["ground"], {**features, **words} | examples)
    finally:
        hook.remove()
    assert runs == ["trunk"]
    for port in programs["ground"].outputs:
        assert grounded[port.name] is segmented[port.name], "the very tensors that `segment` gave"
