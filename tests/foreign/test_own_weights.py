"""`weights.init: own` keeps what the model's constructor drew, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.recipe import ModelSpec, Recipe, WeightsSpec
from samonnx.weights import WeightsError
from tests.foreign.small_calls import call_of


class Zeros(nn.Module):
    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.full((3,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


def recipe(factory: str, args: Mapping[str, object], **weights: object) -> Recipe:
    return Recipe(
        name="small",
        model=ModelSpec(factory=factory, args=args),
        weights=WeightsSpec.model_validate(weights),
        calls={"f": call_of(method="forward")},
        programs={},
    )


LINEAR = ("torch.nn:Linear", {"in_features": 3, "out_features": 3})


def test_own_weights_are_those_of_the_constructor_and_follow_the_seed() -> None:
    torch.manual_seed(4)
    expected = nn.Linear(3, 3).weight
    built = build_model(recipe(*LINEAR, init="own", seed=4))
    assert torch.equal(built.module.get_parameter("weight"), expected)
    assert built.weights.source == "own(seed=4)"
    again, other = (build_model(recipe(*LINEAR, init="own", seed=seed)).weights.digest for seed in (4, 5))
    assert (again == built.weights.digest, other == built.weights.digest) == (True, False)


def test_building_a_model_leaves_the_random_numbers_of_the_process_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    build_model(recipe(*LINEAR, init="own", seed=4))
    assert torch.equal(torch.rand(1), expected)


def test_weights_are_filled_by_formula_where_nothing_else_is_said() -> None:
    assert build_model(recipe(f"{__name__}:Zeros", {})).module.get_parameter("table").abs().max() > 0
    assert build_model(recipe(f"{__name__}:Zeros", {}, init="own")).module.get_parameter("table").abs().max() == 0


def test_own_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(WeightsError, match="the model's own constructor does not fit") as caught:
        build_model(recipe(f"{__name__}:Zeros", {"value": float("inf")}, init="own"))
    assert "non-finite  table" in str(caught.value)


def test_rescale_needs_weights_by_formula() -> None:
    with pytest.raises(SamonnxError, match=r"weights\.rescale needs `init: formula`"):
        build_model(recipe(*LINEAR, init="own", rescale={"weight": 2.0}))
