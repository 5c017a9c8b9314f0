"""Replacements: what is traced has them, the model that numbers are compared with has not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError, VerificationError
from samonnx.foreign.replace import traced_copy
from samonnx.recipe_calls import InputSpec
from tests.foreign.small_calls import call_of, verified

HERE = __name__


class ComplexRotation(nn.Module):
    """Turns pairs of channels by complex products, which ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor
        self.register_buffer("table", torch.polar(torch.ones(2, 2), torch.arange(4.0).view(2, 2)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.view(2, 2, 2))
        return torch.view_as_real(pairs * self.table).flatten(1)


class RealRotation(nn.Module):
    """The same with real numbers."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.cosine, self.sine = nn.Buffer(table.real.contiguous()), nn.Buffer(table.imag.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x.view(2, 2, 2).unbind(-1)
        turned = (even * self.cosine - odd * self.sine, even * self.sine + odd * self.cosine)
        return torch.stack(turned, dim=-1).flatten(1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.rotation = ComplexRotation()
        self.again = self.rotation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(self.rotation(self.linear(x)))
        return y


def real(old: nn.Module) -> nn.Module:
    assert isinstance(old, ComplexRotation)
    return RealRotation(old.table)


def fails(old: nn.Module) -> nn.Module:
    raise ValueError("no table")


def wrong(old: nn.Module) -> nn.Module:
    return nn.Identity()


def no_module(old: nn.Module) -> object:
    return 3


CALL = call_of({"x": InputSpec(shape=(2, 4))})


def test_a_complex_rotation_goes_through_as_a_real_one() -> None:
    verified(Model(), CALL, {"rotation": f"{HERE}:real"})


def test_a_module_in_two_places_is_replaced_in_both() -> None:
    model = Model()
    traced, rows = traced_copy(model, {"rotation": f"{HERE}:real"})
    assert isinstance(traced.get_submodule("again"), RealRotation)
    assert traced.get_submodule("again") is traced.get_submodule("rotation")
    assert [row.path for row in rows] == ["rotation"]


def test_numbers_are_compared_with_the_original() -> None:
    with pytest.raises(VerificationError, match="does not give the module's numbers"):
        verified(Model(), CALL, {"rotation": f"{HERE}:wrong"})


def test_the_model_stays_as_it_is_and_shares_its_weights() -> None:
    model = Model()
    traced, _ = traced_copy(model, {"again": f"{HERE}:real"})
    assert isinstance(model.rotation, ComplexRotation)
    assert traced.get_submodule("linear").weight is model.linear.weight
    assert traced is not model


MISTAKES = {
    "rotatoin": (f"{HERE}:real", "rotatoin: matches no submodule; close: rotation"),
    "linear": (f"{HERE}:no_module", f"linear: {HERE}:no_module returned int, expected a torch.nn.Module"),
    "rotation": (f"{HERE}:fails", f"rotation: {HERE}:fails fails on ComplexRotation: ValueError: no table"),
    "again": (f"{HERE}:nothing", f"cannot be imported: module '{HERE}' has no attribute 'nothing'"),
}


@pytest.mark.parametrize("glob", MISTAKES)
def test_a_replacement_that_does_not_fit_is_told(glob: str) -> None:
    callable_, expected = MISTAKES[glob]
    with pytest.raises(SamonnxError) as caught:
        traced_copy(Model(), {glob: callable_})
    assert expected in str(caught.value)


def test_two_replacements_of_one_module_are_told() -> None:
    with pytest.raises(SamonnxError, match=r"rotation: replacements disagree: `rot\*: .*real`, `\*tion: .*wrong`"):
        traced_copy(Model(), {"rot*": f"{HERE}:real", "*tion": f"{HERE}:wrong"})


def test_a_replacement_within_another_is_told() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    with pytest.raises(SamonnxError, match=r"0\.1 lies below a submodule that is replaced itself"):
        traced_copy(model, {"0": f"{HERE}:wrong", "0.1": f"{HERE}:wrong"})


class Keeps(nn.Module):
    """Keeps a table from its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.kept:
            self.kept.append(torch.arange(3.0))
        return x + self.kept[0]


def test_what_a_module_keeps_while_it_is_traced_does_not_get_into_the_original() -> None:
    model = Keeps()
    verified(model, call_of())
