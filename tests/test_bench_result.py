from __future__ import annotations

import pytest

from samonnx.bench_result import Timing


def test_the_figures_of_a_timing_are_those_of_its_seconds() -> None:
    timing = Timing.of([0.5, 0.1, 0.2, 0.4, 0.3])
    assert timing.seconds == (0.5, 0.1, 0.2, 0.4, 0.3)
    figures = (timing.median_ms, timing.least_ms, timing.spread_ms, timing.per_second)
    assert figures == pytest.approx((300, 100, 200, 1 / 0.3))


def test_one_repeat_has_no_spread() -> None:
    timing = Timing.of([0.25])
    assert (timing.median_ms, timing.least_ms, timing.spread_ms, timing.per_second) == (250, 250, 0, 4)
