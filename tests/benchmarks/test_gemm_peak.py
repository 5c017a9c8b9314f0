"""The roof: the best matrix product of an engine, whatever the shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engines import Engine
from benchmarks.gemm_peak import GemmShape, gemm_steps, measured_peaks
from benchmarks.measure import Timing, alternate

SMALL = GemmShape(8, 4, 2)


def test_the_peak_of_an_engine_is_its_best_of_all_shapes_and_repeats() -> None:
    large = GemmShape(10, 10, 10)
    timings = [
        (Engine.ORT, SMALL, Timing((4.0, 2.0))),
        (Engine.ORT, large, Timing((10.0, 20.0))),
        (Engine.PYTORCH, SMALL, Timing((64.0,))),
    ]
    assert measured_peaks(timings) == {Engine.ORT: 2000 / 10.0, Engine.PYTORCH: 128 / 64.0}


@pytest.mark.parametrize("engine", [Engine.PYTORCH, Engine.ORT, Engine.OPENVINO])
def test_every_engine_multiplies(engine: Engine, tmp_path: Path) -> None:
    steps = gemm_steps([engine], 1, tmp_path, [SMALL])
    assert list(steps) == [(engine, SMALL)]
    (timing,) = alternate(steps, 2).values()
    assert len(timing.seconds) == 2


def test_flops_are_two_a_multiply_add() -> None:
    assert SMALL.flops == 2 * 8 * 4 * 2
    assert str(SMALL) == "8×4×2"
