"""Box position bias: distances cell by cell, where a cell is taken to lie, and which axis is which."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.box_position_bias import box_position_bias, log_distance

GRID = 5


def as_it_is(distances: Tensor) -> Tensor:
    """Head 0 reads the distance to the low side, head 1 the one to the high side."""
    return distances


@given(distance=st.floats(-2, 2, width=32))
def test_the_logarithm_keeps_the_sign_and_is_to_base_eight(distance: float) -> None:
    expected = math.copysign(math.log(8 * abs(distance) + 1, 8), distance)
    assert abs(float(log_distance(torch.tensor(distance))) - expected) < 1e-6


@pytest.mark.parametrize("logarithmic", [True, False])
def test_each_cell_sums_what_its_row_and_its_column_say(logarithmic: bool) -> None:
    boxes = torch.tensor([[[0.5, 0.25, 0.5, 0.25], [0.1, 0.9, 0.3, 0.7]], [[0.3, 0.3, 1.0, 0.1], [1.0, 0.0, 0.0, 0.2]]])

    def read(distance: float) -> float:
        return math.copysign(math.log(8 * abs(distance) + 1, 8), distance) if logarithmic else distance

    found = box_position_bias(
        boxes, GRID, as_it_is, lambda distances: 10 * as_it_is(distances), logarithmic=logarithmic
    )
    assert found.shape == (2, 2, 2, GRID * GRID)
    for batch in range(2):
        for query in range(2):
            x, y, width, height = boxes[batch, query].tolist()
            for cell in range(GRID * GRID):
                row, column = cell // GRID, cell % GRID
                for head, side in enumerate((-0.5, 0.5)):
                    expected = read(column / GRID - x - side * width) + 10 * read(row / GRID - y - side * height)
                    assert float(found[batch, head, query, cell]) == pytest.approx(expected, abs=1e-5)


@given(x=st.integers(0, 8), y=st.integers(0, 8), right=st.integers(0, 4), down=st.integers(0, 4))
def test_a_box_moved_by_whole_cells_takes_its_bias_with_it(x: int, y: int, right: int, down: int) -> None:
    grid = 8  # a power of two, so that shifted distances are the same floats

    def bias(column: int, row: int) -> Tensor:
        box = torch.tensor([[[column / 16, row / 16, 0.25, 0.5]]])
        bias: Tensor = box_position_bias(box, grid, as_it_is, as_it_is, logarithmic=True)[0, 0, 0]
        return bias.reshape(grid, grid)

    before, after = bias(x, y), bias(x + 2 * right, y + 2 * down)
    assert torch.equal(after[down:, right:], before[: grid - down, : grid - right])


def test_a_cell_lies_at_its_low_side_and_not_at_its_middle() -> None:
    box = torch.tensor([[[2 / GRID, 3 / GRID, 0.0, 0.0]]])
    columns = box_position_bias(box, GRID, as_it_is, torch.zeros_like, logarithmic=False)[0, 0, 0].reshape(GRID, GRID)
    rows = box_position_bias(box, GRID, torch.zeros_like, as_it_is, logarithmic=False)[0, 0, 0].reshape(GRID, GRID)
    assert float(columns[:, 2].abs().max()) < 1e-6
    assert float(rows[3].abs().max()) < 1e-6
