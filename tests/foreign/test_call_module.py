"""Calls: ports become arguments (of lists and mappings too), results have places, a state becomes a bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from samonnx.foreign.call_module import CallError, CallModule
from samonnx.programs.call import call_feeds, call_programs
from samonnx.recipe_calls import BankSpec, CallSpec, InputSpec
from tests.foreign.small_calls import call_of, stopped, verified

X = InputSpec(shape=(2, 3))


@dataclass
class Result:
    last: Tensor
    maps: list[Tensor]
    nothing: Tensor | None = None
    precise: Tensor | None = None


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def doubled(self, x: Tensor) -> Tensor:
        return 2 * x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Body()

    def forward(self, features: list[Tensor], batch: dict[str, Any], scale: float = 1.0) -> Result:
        x = self.body.linear(features[0]) * scale - features[1]
        y = torch.where(batch["mask"], x, batch["rows"][0])
        return Result(y, [x, x + y], precise=x.double())

    def pair(self, x: Tensor) -> Pair:
        return Pair(x + 1, x - 1)

    def same(self, x: Tensor) -> dict[str, Any]:
        y = x + 1
        return {"x": x, "one": y, "other": {"two": (y, 3)}}


NESTED = call_of(
    {
        "high": InputSpec(shape=(2, 3), argument="features[0]"),
        "low": InputSpec(shape=(2, 3), argument="features[1]"),
        "mask": InputSpec(shape=(2, 3), dtype="bool", argument="batch.mask"),
        "row": InputSpec(shape=(3,), argument="batch.rows[0]"),
    },
    {"last": "last", "sum": "maps[1]"},
    fixed={"scale": 0.5, "batch.unused": None},
)


def test_ports_become_lists_and_mappings_and_results_are_found_in_dataclasses() -> None:
    assert [one.what for one in verified(Model(), NESTED)] == ["last", "sum"]


def test_a_named_tuple_is_found_by_place_and_by_name() -> None:
    verified(Model(), call_of({"x": X}, {"a": "[0]", "b": "second"}, method="pair"))


def test_a_method_of_a_submodule_and_a_submodule_can_be_called() -> None:
    verified(Model(), call_of({"x": X}, method="body.doubled"))
    verified(Model(), call_of({"input": X}, method="body.linear"))
    verified(Model(), call_of({"input": X}, method="body.linear.forward"))


def test_an_input_that_goes_through_and_a_result_with_two_names_are_outputs() -> None:
    verified(Model(), call_of({"x": X}, {"through": "x", "one": "one", "two": "other.two[0]"}, method="same"))


class Counter(nn.Module):
    """Adds up what it sees, and counts."""

    def forward(self, x: Tensor, total: Tensor, count: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = total + x
        return total / (count + 1), {"total": total, "count": count + 1}


BANK = {
    "total": BankSpec(shape=(2, 3), output="[1].total", empty=0.0),
    "count": BankSpec(shape=(), dtype="int32", high=5, output="[1].count", empty=0),
}


def test_a_recurrent_module_becomes_a_stateless_program_with_a_bank() -> None:
    call = call_of({"x": X}, {"mean": "[0]"}, BANK)
    names = [one.what for one in verified(Counter(), call, frames=4)]
    assert names == ["mean", "next_bank.total", "next_bank.count"]
    (program,) = call_programs(Counter(), Counter(), {"f": call})
    assert [(tensor.input, tensor.output) for tensor in program.bank] == [
        ("bank.total", "next_bank.total"),
        ("bank.count", "next_bank.count"),
    ]


MISTAKES: dict[str, tuple[CallSpec, str]] = {
    "no such method": (
        call_of(method="body.doubeld"),
        "calls.f.method: body has no 'doubeld'; submodules: linear; close: doubled",
    ),
    "no method": (call_of(method="training"), "calls.f.method: training is bool, not a method"),
    "no such result": (
        call_of({"x": X}, {"y": "two"}, method="same"),
        "calls.f.outputs.y: what same returns has nothing at 'two': dict with x, one, other",
    ),
    "no such place": (
        call_of({"x": X}, {"y": "[2]"}, method="pair"),
        "calls.f.outputs.y: what pair returns has nothing at '[2]': Pair of 2",
    ),
    "no tensor": (
        call_of({"x": X}, {"y": "other.two[1]"}, method="same"),
        "calls.f.outputs.y: at 'other.two[1]', same returns int; expected the place of a tensor",
    ),
    "all of a mapping": (
        call_of({"x": X}, {"y": "."}, method="same"),
        "at '.', same returns dict with x, one, other; expected the place of a tensor",
    ),
    "nothing there": (NESTED.model_copy(update={"outputs": {"y": "nothing"}}), "forward returns None; expected"),
    "a dtype": (
        NESTED.model_copy(update={"outputs": {"y": "precise"}}),
        "'precise' is torch.float64, expected float32, int32, int64 or bool",
    ),
    "an argument": (
        call_of({"z": X}, method="pair"),
        "why:   TypeError: Model.pair() got an unexpected keyword argument",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_call_that_does_not_fit_the_model_is_told(name: str) -> None:
    call, expected = MISTAKES[name]
    assert expected in stopped(Model(), call)


def test_a_next_bank_of_another_shape_is_told() -> None:
    wrong = {"total": BankSpec(shape=(3,), output="[1].total", empty=0.0), "count": BANK["count"]}
    assert (
        "calls.f.bank.total is float32 [3], but its next value, '[1].total' of what forward returns, is float32 "
        "[2, 3]; expected the same, since it goes back into the next call"
    ) in stopped(Counter(), call_of({"x": X}, {"mean": "[0]"}, wrong))


def test_calls_that_share_a_bank_tensor_have_it_in_the_same_form() -> None:
    other = {"total": BankSpec(shape=(2, 3), output="[1].total", empty=1.0), "count": BANK["count"]}
    calls = {"a": call_of({"x": X}, {"mean": "[0]"}, BANK), "b": call_of({"x": X}, {"mean": "[0]"}, other)}
    with pytest.raises(
        CallError, match=r"calls\.b\.bank\.total is float32 \[2, 3\], empty 1\.0, but calls\.a has it as"
    ):
        call_programs(Counter(), Counter(), calls)


def test_example_values_keep_their_bounds_and_differ_from_draw_to_draw() -> None:
    call = call_of(
        {
            "f": InputSpec(shape=(50,), low=2, high=3),
            "i": InputSpec(shape=(50,), dtype="int64", low=-1, high=1),
            "b": InputSpec(shape=(50,), dtype="bool"),
            "image": InputSpec(shape=(1, 1, 64, 64)),
        }
    )
    first, again, other = call_feeds(call), call_feeds(call), call_feeds(call, draw=1)
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in first)
    assert 2 <= first["f"].min() <= first["f"].max() <= 3
    assert sorted(set(first["i"].tolist())) == [-1, 0, 1]
    assert first["b"].any()
    assert not first["b"].all()
    assert (first["image"][..., 1:] - first["image"][..., :-1]).abs().max() < 1.0


def test_the_module_takes_its_ports_in_order() -> None:
    module = CallModule("f", Counter(), call_of({"x": X}, {"mean": "[0]"}, BANK))
    feeds = call_feeds(module.call, empty_bank=True)
    assert list(feeds) == ["x", "bank.total", "bank.count"]
    mean, total, count = module(*feeds.values())
    assert torch.equal(mean, total)
    assert int(count) == 1
