"""Taint follows values through views, writes in place, out= and indexing, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.foreign.taint import Taint

Step = Callable[[Tensor, Tensor], Tensor]


def ports_of(body: Callable[[Tensor, Tensor], object]) -> frozenset[str]:
    """The inputs from which the result of `body` comes, of x and y, each f32 [2, 3]."""
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    with Taint({"x": x, "y": y}, lambda ports, read: None) as taint:
        found: frozenset[str] = taint.ports(body(x, y))
    return found


def written(way: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor, Tensor], Tensor]:
    """A fresh tensor into which `way` writes the input."""

    def body(x: Tensor, y: Tensor) -> Tensor:
        fresh = torch.zeros(2, 3)
        way(fresh, x)
        return fresh

    return body


FROM_X: dict[str, Callable[[Tensor, Tensor], object]] = {
    "arithmetic": lambda x, y: (x + 1) * 2,
    "view": lambda x, y: x.view(3, 2)[0].T,
    "indexing": lambda x, y: x[:, torch.tensor([0, 2])],
    "indexed by it": lambda x, y: torch.zeros(3)[x.long().abs() * 0],
    "where, as condition": lambda x, y: torch.where(x > 0, 1.0, 2.0),
    "where, as value": lambda x, y: torch.where(torch.zeros(2, 3) > 0, x, 2.0),
    "through a list": lambda x, y: torch.stack([torch.zeros(3), x[0]]),
    "comparison": lambda x, y: x.max() > 0,
    "argmax": lambda x, y: x.argmax(),
    "out=": written(lambda fresh, x: torch.add(x, 1, out=fresh)),
    "copy_": written(lambda fresh, x: fresh.copy_(x)),
    "add_": written(lambda fresh, x: fresh.add_(x)),
    "setitem": written(lambda fresh, x: fresh.__setitem__(0, x[0])),
    "setitem through a view": written(lambda fresh, x: fresh.view(-1)[2:4].copy_(x.view(-1)[:2])),
    "masked_fill_ by it": written(lambda fresh, x: fresh.masked_fill_(x > 0, 1.0)),
    "index_put_ by it": written(lambda fresh, x: fresh.__setitem__(x > 0, 1.0)),
    "scatter_": written(lambda fresh, x: fresh.scatter_(1, torch.tensor([[0, 1, 2]]), x)),
    "detach": lambda x, y: x.detach(),
    "complex": lambda x, y: torch.view_as_real(torch.complex(x, x)),
}


@pytest.mark.parametrize("name", FROM_X)
def test_what_is_computed_from_an_input_comes_from_it(name: str) -> None:
    assert ports_of(FROM_X[name]) == {"x"}


NOT_FROM_X: dict[str, Callable[[Tensor, Tensor], object]] = {
    "its shape": lambda x, y: torch.tensor(x.shape),
    "zeros_like": lambda x, y: torch.zeros_like(x) + 1,
    "new_ones": lambda x, y: x.new_ones(2),
    "full_like": lambda x, y: torch.full_like(x, 3.0),
    "constants beside it": lambda x, y: (x + 1, torch.arange(3))[1],
    "overwritten before": lambda x, y: torch.zeros(3).fill_(2),
}


@pytest.mark.parametrize("name", NOT_FROM_X)
def test_what_depends_on_the_shape_alone_does_not_come_from_an_input(name: str) -> None:
    assert ports_of(NOT_FROM_X[name]) == frozenset()


STEPS: tuple[Step, ...] = (
    lambda a, b: a + b,
    lambda a, b: torch.where(b > 0, a, b),
    lambda a, b: a.clone().copy_(b) + a,
    lambda a, b: torch.cat([a, b])[1:3],
    lambda a, b: a.t().contiguous().t() * b.sum(),
    lambda a, b: a.clone().masked_fill_(b > 0, 2.0),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6))
def test_a_value_comes_from_an_input_exactly_if_it_was_computed_from_it(steps: list[tuple[Step, int, int]]) -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    values = [(x, {"x"}), (y, {"y"}), (torch.ones(2, 3), set[str]())]
    with Taint({"x": x, "y": y}, lambda ports, read: None) as taint:
        for step, first, second in steps:
            (a, of_a), (b, of_b) = values[first % len(values)], values[second % len(values)]
            values.append((step(a, b), of_a | of_b))
        for value, expected in values:
            assert taint.ports(value) == expected


def test_a_view_of_a_tensor_that_was_written_comes_from_what_was_written() -> None:
    x = torch.randn(2, 3)
    with Taint({"x": x}, lambda ports, read: None) as taint:
        fresh = torch.zeros(4, 3)
        view = fresh[3]
        fresh[:2].copy_(x)
        assert taint.ports(view) == {"x"}


def test_a_new_tensor_in_the_memory_of_an_old_one_is_clean() -> None:
    x = torch.randn(1000)
    with Taint({"x": x}, lambda ports, read: None) as taint:
        for _ in range(50):
            old = x + 1
            assert taint.ports(old) == {"x"}
            del old
            assert taint.ports(torch.zeros(1000)) == frozenset()
