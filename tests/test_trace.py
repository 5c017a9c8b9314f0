"""Trace: names of ports and weights, symbolic dimensions, errors that name the line. One export serves many tests."""

from __future__ import annotations

import inspect
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.pins import BranchPoint, declare
from samonnx.programs.program import Component
from samonnx.trace import OPSET, TracedComponent, TraceError, parameter_names, trace


class Weighted(nn.Module):
    """Linear, a buffer, two outputs; `first` and `second` are one tensor in the example."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("scale", torch.tensor([2.0, 3.0]))

    def forward(self, first: Tensor, second: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(first - 2 * second) * self.scale
        return torch.where(keep[..., None], y, 0.0), y.sum(1)


class Root(nn.Module):
    """The model that the component is a part of."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = nn.ModuleDict({"head": Weighted()})


@pytest.fixture(scope="module")
def root() -> Root:
    torch.manual_seed(0)
    return Root().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def traced(root: Root) -> TracedComponent:
    tokens = torch.zeros(1, 4, 3)
    component = Component(
        "head",
        root.tracker["head"],
        {"first": tokens, "second": tokens, "keep": torch.zeros(1, 4, dtype=torch.bool)},
        ("kept", "total"),
        symbolic={"first": {1: "tokens"}, "second": {1: "tokens"}, "keep": {1: "tokens"}},
    )
    return trace(component, parameter_names(root))


def signature(value: ir.Value) -> tuple[str | None, ir.DataType | None, list[str]]:
    assert value.shape is not None
    return value.name, value.dtype, [str(dim) for dim in value.shape]


def test_inputs_and_outputs_carry_the_components_port_names_in_order(traced: TracedComponent) -> None:
    f32, flag = ir.DataType.FLOAT, ir.DataType.BOOL
    assert traced.name == "head"
    assert [signature(value) for value in traced.model.graph.inputs] == [
        ("first", f32, ["1", "tokens", "3"]),
        ("second", f32, ["1", "tokens", "3"]),
        ("keep", flag, ["1", "tokens"]),
    ]
    assert [signature(value) for value in traced.model.graph.outputs] == [
        ("kept", f32, ["1", "tokens", "2"]),
        ("total", f32, ["1", "2"]),
    ]


def test_the_graph_uses_one_opset_of_the_standard_domain(traced: TracedComponent) -> None:
    assert traced.model.opset_imports == {"": OPSET}


def test_weights_carry_the_names_of_the_whole_models_checkpoint(traced: TracedComponent) -> None:
    initializers = traced.model.graph.initializers
    assert not {"linear.bias", "scale"} & set(initializers)
    for name in ("tracker.head.linear.bias", "tracker.head.scale"):
        tensor = initializers[name].const_value
        assert tensor is not None
        assert (initializers[name].name, tensor.name) == (name, name)


def test_the_graph_holds_the_modules_numbers_at_any_size_of_a_symbolic_dimension(
    root: Root, traced: TracedComponent
) -> None:
    session = GraphSession(traced.model, threads=1)
    random = np.random.default_rng(0)
    for tokens in (1, 4, 7):
        first, second = (random.standard_normal((1, tokens, 3), dtype=np.float32) for _ in range(2))
        keep = random.random((1, tokens)) < 0.5
        found = session.run({"first": first, "second": second, "keep": keep})
        expected = root.tracker["head"](*map(torch.from_numpy, (first, second, keep)))
        for name, wanted in zip(("kept", "total"), expected, strict=True):
            np.testing.assert_allclose(found[name], wanted.numpy(), atol=1e-5)


def test_a_tensor_given_for_two_inputs_stays_two_inputs(traced: TracedComponent) -> None:
    used = [value for value in traced.model.graph.inputs if value.uses()]
    assert [value.name for value in used] == ["first", "second", "keep"]


def test_parameter_names_cover_parameters_and_buffers(root: Root) -> None:
    names = parameter_names(root)
    head = root.tracker["head"]
    assert isinstance(head, Weighted)
    assert names[id(head.linear.weight)] == "tracker.head.linear.weight"
    assert names[id(head.scale)] == "tracker.head.scale"
    assert len(names) == 3


# Errors


class ValueDecides(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.sum() > 0:
            return y
        return 2 * y


def refusal(module: nn.Module) -> str:
    component = Component("chooser", module.eval(), {"x": torch.zeros(2), "y": torch.zeros(2)}, ("z",))
    with pytest.raises(TraceError) as caught:
        trace(component)
    return str(caught.value)


def test_a_value_that_decides_control_flow_is_reported_with_component_line_and_remedy() -> None:
    said = refusal(ValueDecides())
    lines, start = inspect.getsourcelines(ValueDecides)
    line = start + next(i for i, text in enumerate(lines) if "if x.sum()" in text)
    assert said.startswith("component 'chooser' cannot be traced.\n")
    assert f'where: {__file__}:{line} in forward: "if x.sum() > 0:"' in said
    assert "data-dependent" in said
    assert "what to do: a value that decides control flow must be a pin of the recipe" in said
    assert "torch.where" in said
    assert len(said.splitlines()) == 4


class Undecided(nn.Module):
    branch_points: ClassVar[tuple[BranchPoint, ...]] = (BranchPoint("doubled", (True, False), "twice as much"),)

    doubled: bool

    def __init__(self) -> None:
        super().__init__()
        declare(self)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * x + y if self.doubled else x + y


def test_a_branch_that_no_pin_decides_is_named() -> None:
    said = refusal(Undecided())
    assert "component 'chooser' cannot be traced" in said
    assert "branch point Undecided.doubled was used before it was pinned" in said


class Untouched(nn.Module):
    """Never traced: the names are refused first."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        raise AssertionError


def test_one_name_for_an_input_and_an_output_is_refused() -> None:
    examples = {"mask": torch.zeros(1), "memory": torch.zeros(1)}
    with pytest.raises(TraceError) as caught:
        trace(Component("mixer", Untouched(), examples, ("memory", "score", "mask")))
    assert str(caught.value) == (
        "component 'mixer': mask, memory is the name of an input and of an output; give the output a name of its own"
    )
