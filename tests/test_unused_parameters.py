"""Unused parameters: those that the forward pass does not read are set aside, within the block only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.programs.program import Component
from samonnx.trace import parameter_names, trace
from samonnx.unused_parameters import set_aside, used_tensors

X = torch.ones(1, 3)


class Heads(nn.Module):
    """Five heads with a buffer each; `used` says which of them a call goes through."""

    def __init__(self, used: frozenset[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(5))
        self.used = used

    def forward(self, x: Tensor) -> Tensor:
        for index in sorted(self.used):
            x = self.heads[index](x)
        return x


class ReadsNothingOf(nn.Module):
    """A branch on whether a weight is there, a shape and an attribute are all that is asked of `bias` and `table`."""

    def __init__(self) -> None:
        super().__init__()
        self.bias: nn.Parameter | None = nn.Parameter(torch.ones(3))
        self.table = nn.Parameter(torch.ones(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table.shape[0] if self.bias is not None else x


@settings(deadline=None)  # the first fake run loads code
@given(used=st.frozensets(st.integers(0, 4)))
def test_what_a_call_reads_stays_a_parameter_and_the_rest_comes_back_after_the_block(used: frozenset[int]) -> None:
    module = Heads(used).eval()
    before = list(module.state_dict())
    expected = module(X)
    with set_aside(module, (X,)):
        assert {name.split(".")[1] for name, _ in module.named_parameters()} == {str(index) for index in used}
        assert torch.equal(module(X), expected)
    assert list(module.state_dict()) == before, "the same names in the same order"
    assert torch.equal(module(X), expected)


def test_a_weight_that_is_set_aside_can_still_be_asked_for() -> None:
    module = ReadsNothingOf()
    with set_aside(module, (X,)):
        assert "bias" not in dict(module.named_parameters())
        assert torch.equal(module(X), X + 7), "`is not None` and the shape are as before"


def test_parameters_come_back_after_an_error_in_the_block() -> None:
    module = Heads(frozenset({1})).eval()
    before = list(module.state_dict())
    with pytest.raises(KeyboardInterrupt), set_aside(module, (X,)):
        raise KeyboardInterrupt
    assert list(module.state_dict()) == before


class DecidesByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.other = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.linear if x.sum().item() > 0 else self.other
        y: Tensor = chosen(x)
        return y


def test_where_a_value_decides_nothing_is_set_aside() -> None:
    module = DecidesByValue()
    assert used_tensors(module, (X,)) is None
    with set_aside(module, (X,)):
        assert len(list(module.parameters())) == 4


def test_a_traced_part_has_the_weights_it_reads_by_their_names_in_the_whole() -> None:
    root = nn.ModuleDict({"model": Heads(frozenset({3}))}).eval()
    part = Component("part", root["model"], {"x": X}, ("y",))
    found = trace(part, parameter_names(root)).model.graph.initializers
    weights = [name for name in found if name.startswith("model.")]
    assert {f"model.heads.3.0.{kind}" for kind in ("weight", "bias")} <= set(weights)
    assert all(name.startswith("model.heads.3.") for name in weights)
