"""Values that a module computes from constants are folded while it is traced: one small module a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.foreign.small_calls import call_of, verified

Body = Callable[[Tensor], Tensor]


class Does(nn.Module):
    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def item(x: Tensor) -> Tensor:
    sizes = torch.tensor(x.shape) * 2
    return x * sizes[0].item() + sizes[1].item()


def comparison(x: Tensor) -> Tensor:
    sizes = torch.tensor(x.shape)
    return x + 1 if sizes[0] < sizes[1] else x - 1


def equality(x: Tensor) -> Tensor:
    return x * 3 if torch.equal(torch.tensor(x.shape), torch.tensor([2, 3])) else x


def membership(x: Tensor) -> Tensor:
    return x * 5 if 3 in torch.tensor(x.shape) else x


def listed(x: Tensor) -> Tensor:
    rows, columns = torch.tensor([*x.shape]).flip(0).tolist()
    return x.reshape(rows, columns)


def through_numpy(x: Tensor) -> Tensor:
    sizes = torch.tensor(x.shape).numpy()
    return x * float(sizes.prod())


def index(x: Tensor) -> Tensor:
    return x[:, : torch.tensor([1, 2]).sum() - 1]


def ranges(x: Tensor) -> Tensor:
    sizes: Any = torch.tensor([[2, 3]])
    height, width = sizes[0, 0], sizes[0, 1]
    grid = torch.arange(0, height, dtype=torch.float32)[:, None] / height
    found: Tensor = x + grid + torch.arange(width) / width
    return found


def viewed(x: Tensor) -> Tensor:
    sizes: Any = torch.tensor([3, 2])
    return x.view(sizes[0], sizes[1])


def loop(x: Tensor) -> Tensor:
    for size in torch.tensor([1, 2, 3]):
        x = x * int(size) + 1
    return x


def places(x: Tensor) -> Tensor:
    rows = (torch.tensor([1.0, -1.0, 2.0]) > 0).nonzero()[:, 0]
    return x[:, rows]


def mask(x: Tensor) -> Tensor:
    return x[:, torch.tensor([True, False, True])]


def mask_of_two(x: Tensor) -> Tensor:
    return x[torch.tensor([[True, False, True], [False, False, True]])]


def mask_written(x: Tensor) -> Tensor:
    y = x.clone()
    y[torch.tensor([False, True])] = torch.ones(1, 3)
    return y


def repeated(x: Tensor) -> Tensor:
    return x.repeat_interleave(torch.tensor([1, 0, 2]), dim=1)


def unique(x: Tensor) -> Tensor:
    return x[:, torch.unique(torch.tensor([2, 0, 2]))]


def shape_of_an_input(x: Tensor) -> Tensor:
    ones = torch.zeros_like(x) + 1
    return x * ones.sum().item()


KINDS = (
    item,
    comparison,
    equality,
    membership,
    listed,
    through_numpy,
    index,
    ranges,
    viewed,
    loop,
    places,
    mask,
    mask_of_two,
    mask_written,
    repeated,
    unique,
    shape_of_an_input,
)


@pytest.mark.parametrize("body", KINDS, ids=lambda body: body.__name__)
def test_what_comes_from_constants_is_folded(body: Body) -> None:
    (one,) = verified(Does(body), call_of())
    assert one.what == "y"


def test_a_value_that_changes_from_read_to_read_is_folded_in_order() -> None:
    def body(x: Tensor) -> Tensor:
        left = torch.tensor([3, 2])
        while left.sum().item() > 0:
            left = left - 1
            x = x * 2
        return x

    verified(Does(body), call_of())


def test_code_that_asks_whether_it_is_traced_does_not_shift_the_values() -> None:
    def body(x: Tensor) -> Tensor:
        sizes = torch.tensor(x.shape)
        if not torch.compiler.is_compiling() and sizes[0].item() == 7:
            return x
        return x * sizes[1].item()

    verified(Does(body), call_of())
