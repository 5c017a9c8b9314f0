"""Component tracer: a component is traced once, compared beside the tracing or, where a program's verification sees it
whole, only to explain that program's failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from samonnx.component_tracer import ComponentTracer, trace_components
from samonnx.errors import VerificationError
from samonnx.programs.program import Component

X = torch.ones(1, 3)


class CountsItsRuns(nn.Module):
    """Gives another result when it runs eagerly again, so that its trace is wrong; or the same."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        traced = torch.compiler.is_exporting()
        y: Tensor = self.linear(x)
        return y + 1.0 if self.wrong and not traced else y


def component(name: str, wrong: bool = False, seen_in: frozenset[str] = frozenset()) -> Component:
    return Component(name, CountsItsRuns(wrong).eval(), {"x": X}, ("y",), seen_in=seen_in)


def test_a_component_that_is_not_its_module_is_named() -> None:
    parts = (component("good"), component("bad", wrong=True))
    with pytest.raises(VerificationError, match=r"bad\.y: error"):
        trace_components(parts, nn.ModuleList(part.module for part in parts))


def test_each_name_is_traced_once_and_shared_modules_get_copies() -> None:
    one = component("one")
    other = Component("other", one.module, one.inputs, one.outputs)
    with ThreadPoolExecutor(max_workers=1) as pool:
        tracer = ComponentTracer(one.module, pool)
        assert [part.name for part in tracer.unknown((one, one, other))] == ["one", "other"]
        tracer.trace((one, one, other))
        assert tracer.unknown((one, other)) == ()
        first = tracer.traced["one"]
        tracer.trace((one, other))
        tracer.require()
    assert tracer.traced["one"] is first
    assert tracer.traced["other"].model is not first.model


def test_a_component_that_a_program_shows_is_compared_only_to_explain_its_failure() -> None:
    shown, other = component("shown", wrong=True, seen_in=frozenset({"track"})), component("other")
    root = nn.ModuleList([shown.module, other.module])
    with ThreadPoolExecutor(max_workers=1) as pool:
        tracer = ComponentTracer(root, pool, programs=("track",))
        tracer.trace((shown, other))
        tracer.require()
        said = str(tracer.explained(VerificationError("track: masks are off")))
        without = ComponentTracer(root, pool, programs=("segment",))
        without.trace((shown,))
        with pytest.raises(VerificationError, match=r"shown\.y"):
            without.require()
    assert said.startswith("track: masks are off")
    assert "shown.y: error" in said
    assert "other" not in said


def test_a_failure_that_no_component_explains_says_so() -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        tracer = ComponentTracer(nn.Linear(1, 1), pool, programs=("track",))
        said = str(tracer.explained(VerificationError("track: masks are off")))
    assert said == "track: masks are off\n  every component on its own gives its module's numbers"
