"""Fits time = c · x^exponent: a straight line through the logarithms, by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PowerLaw", "fit_power_law"]


@dataclass(frozen=True)
class PowerLaw:
    """`exponent`: 1 is linear growth; with a fixed part in the time it is less than that of the growing part alone.
    `factor`: the value at x = 1. `largest_residual`: of the logarithms; 0.05 is 5 % off the line."""

    exponent: float
    factor: float
    largest_residual: float

    def at(self, x: float) -> float:
        return float(self.factor * x**self.exponent)


def fit_power_law(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw | None:
    """None for fewer than two different `xs`, or a value that has no logarithm."""
    if len(set(xs)) < 2 or min(*xs, *ys) <= 0:
        return None
    x, y = np.log(np.asarray(xs, np.float64)), np.log(np.asarray(ys, np.float64))
    exponent = float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))
    offset = float(y.mean() - exponent * x.mean())
    return PowerLaw(exponent, float(np.exp(offset)), float(np.abs(y - offset - exponent * x).max()))
