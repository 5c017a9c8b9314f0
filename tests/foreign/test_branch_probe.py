"""A value that comes from an input and decides something stops the trace: what is said, of all of them at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.pins import apply_pins
from samonnx.programs.call import call_programs
from samonnx.recipe_calls import InputSpec
from tests.foreign.small_calls import call_of, stopped, verified


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dynamic = True
        self.limit = 0.5

    def forward(self, x: Tensor, flag: Tensor | None = None) -> Tensor:
        if self.dynamic and x.max() > self.limit:
            x = x + 1
        return x if flag is None or not flag else -x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.count = 2

    def forward(self, x: Tensor, flag: Tensor | None = None) -> Tensor:
        x = self.inner(x * 2, flag)
        rows = x[:, 0] > 0
        return x[rows].sum() * self.count + x


FLAG = InputSpec(shape=(), dtype="bool")


def lines_of(message: str) -> str:
    return re.sub(r"\.py:\d+", ".py:LINE", re.sub(r"\S*/(test_\w+\.py)", r"\1", message))


GOLDEN = """\
3 values that come from inputs would have to be known while the model is traced:
  1. test_branch_probe.py:LINE in Inner.forward
       if self.dynamic and x.max() > self.limit:
     `self.dynamic and x.max() > self.limit` is read as a Python value; it comes from: x
     what would settle it, in `calls.f` or beside it:
       pins: {inner.dynamic: …}   (now true)
       pins: {inner.limit: …}   (now 0.5)
       fixed: {x: …}   (a plain value or null, in place of the input `x`)
       replace: {inner: 'package.module:callable'}   (an equivalent module without it)
  2. test_branch_probe.py:LINE in Inner.forward
       return x if flag is None or not flag else -x
     `flag is None or not flag` is read as a Python value; it comes from: flag
     what would settle it, in `calls.f` or beside it:
       fixed: {flag: …}   (a plain value or null, in place of the input `flag`)
       replace: {inner: 'package.module:callable'}   (an equivalent module without it)
  3. test_branch_probe.py:LINE in Outer.forward
       return x[rows].sum() * self.count + x
     `x[rows]` has a shape that depends on values (index); it comes from: x
     what would settle it, in `calls.f` or beside it:
       fixed: {x: …}   (a plain value or null, in place of the input `x`)
       model.factory: a callable of yours that wraps the model and does without this line"""


def test_all_stops_are_told_at_once_with_place_expression_inputs_and_what_settles_them() -> None:
    call = call_of({"x": InputSpec(shape=(2, 3)), "flag": FLAG})
    assert lines_of(stopped(Outer(), call)) == GOLDEN


def test_the_line_that_is_told_is_the_line_of_the_code() -> None:
    said = stopped(Inner(), call_of())
    line = int(re.findall(r"test_branch_probe\.py:(\d+)", said)[0])
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert source[line - 1].strip() == "if self.dynamic and x.max() > self.limit:"


def test_the_pin_that_is_told_settles_it() -> None:
    model = Inner()
    apply_pins(model, {"dynamic": False})
    verified(model, call_of())


def test_the_argument_that_is_told_settles_it() -> None:
    model = Inner()
    apply_pins(model, {"dynamic": False})
    assert "fixed: {flag: …}" in stopped(model, call_of({"x": InputSpec(shape=(2, 3)), "flag": FLAG}))
    verified(model, call_of(fixed={"flag": None}))


class Does(nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def _loop(x: Tensor) -> Tensor:
    while x.sum() < 10:
        x = x + 1
    return x


STOPS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x * x[0, 0].item(),
    "float": lambda x: x * float(x.mean()),
    "int": lambda x: x[:, : int(x.abs().sum()) * 0 + 1],
    "index": lambda x: list(range(x.shape[0]))[x[0, 0].long() * 0] + x,
    "bool": lambda x: x if x.sum() else -x,
    "while": _loop,
    "tolist": lambda x: x * x.tolist()[0][0],
    "numpy": lambda x: x * float(x.numpy().sum()),
    "equal": lambda x: x if torch.equal(x, x + 1) else -x,
    "allclose": lambda x: x if torch.allclose(x, x) else -x,
    "contains": lambda x: x if 0.25 in x else -x,
    "torch.tensor": lambda x: torch.tensor([x[0, 0], 2.0]) + x[:, :2],
    "range": lambda x: x + torch.arange(0, cast(int, x.abs().sum() * 0 + 3)),
    "nonzero": lambda x: x[:, 0].nonzero(),
    "where": lambda x: torch.where(x > 0)[0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: torch.unique(x > 0),
    "repeats": lambda x: x.repeat_interleave((x[:, 0] > 0).long(), dim=0),
    "index of a slice": lambda x: x[:, : x[0, 0].long() * 0 + 2],
}


@pytest.mark.parametrize("name", STOPS)
def test_every_kind_of_stop_is_seen(name: str) -> None:
    said = stopped(Does(STOPS[name]), call_of())
    assert "would have to be known while the model is traced" in said
    assert "it comes from: x" in said


def test_a_function_outside_of_modules_is_told_with_the_module_that_calls_it() -> None:
    said = stopped(Does(_loop), call_of())
    assert re.search(r"test_branch_probe\.py:\d+ in _loop\n     called from \S*test_branch_probe\.py:\d+ in Does", said)


def test_only_the_inputs_it_comes_from_are_named() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x * float((y * 2).sum())

    call = call_of({"x": InputSpec(shape=(2,)), "y": InputSpec(shape=(2,))})
    assert "it comes from: y\n" in stopped(Two(), call)


def test_stops_of_several_calls_are_told_together() -> None:
    model = Inner()
    call = call_of()
    with pytest.raises(SamonnxError) as caught:
        call_programs(model, model, {"f": call, "g": call})
    assert "2 values" in str(caught.value)
    assert "`calls.f`" in str(caught.value)
    assert "`calls.g`" in str(caught.value)


def test_a_model_that_fails_on_its_inputs_is_told_with_its_line() -> None:
    said = stopped(nn.Sequential(nn.Linear(4, 4)), call_of({"input": InputSpec(shape=(2, 3))}))
    assert said.startswith("calls.f: the model fails on the example inputs, before anything is traced\n  where: ")
    assert "why:   RuntimeError: mat1 and mat2 shapes cannot be multiplied" in said
    assert "what to do: give the call the inputs (shape, dtype, low, high) and the fixed arguments" in said
