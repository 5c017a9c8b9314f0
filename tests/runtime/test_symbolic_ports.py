"""Ports with symbolic dimensions: which arrays a program takes."""

from __future__ import annotations

import numpy as np
import pytest

from samonnx.runtime.manifest import PortInfo, ProgramInfo
from samonnx.runtime.session import Array, InputError, check_inputs

PROGRAM = ProgramInfo(
    name="predict",
    files={},
    inputs=(
        PortInfo("coords", "float32", ("prompts", 4, 2), "x, y"),
        PortInfo("labels", "int32", ("prompts", 4)),
        PortInfo("features", "float32", (1, 8)),
    ),
    outputs=(PortInfo("masks", "float32", ("prompts", 3)),),
)


def _inputs(coords: int, labels: int) -> dict[str, Array]:
    return {
        "coords": np.zeros((coords, 4, 2), np.float32),
        "labels": np.zeros((labels, 4), np.int32),
        "features": np.zeros((1, 8), np.float32),
    }


@pytest.mark.parametrize("prompts", [1, 2, 64])
def test_a_symbolic_dimension_takes_any_size_from_one_on(prompts: int) -> None:
    check_inputs(PROGRAM, _inputs(prompts, prompts))


def test_one_name_is_one_size_in_all_inputs() -> None:
    with pytest.raises(
        InputError, match=r"labels: expected int32 \[prompts, 4\] \(prompts is 2, .*\), got int32 \[3, 4"
    ):
        check_inputs(PROGRAM, _inputs(2, 3))


def test_a_dimension_without_anything_in_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"coords: expected float32 \[prompts, 4, 2\], got float32 \[0, 4, 2\]"):
        check_inputs(PROGRAM, _inputs(0, 0))


def test_sides_put_a_number_in_the_place_of_every_name() -> None:
    assert PROGRAM.inputs[0].sides(7) == (7, 4, 2)
    assert PROGRAM.inputs[2].sides(7) == (1, 8)
