"""Times several variants of the same work in one process, in turn, so that what slows the machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Timing", "alternate", "milliseconds"]

Name = TypeVar("Name", bound=Hashable)

PAUSE = 0.05
"""Seconds between two steps: an engine's threads look out for more work for a while, on the cores of the next one."""


@dataclass(frozen=True)
class Timing:
    """Seconds of wall clock of each repeat, in the order run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)


def alternate(
    steps: Mapping[Name, Callable[[], object]], repeats: int, progress: Callable[[str], None] = lambda _: None
) -> dict[Name, Timing]:
    """Run all steps in turn, `repeats` times; each must have run before, untimed. `progress` is told what runs
    next."""
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats):
        for name, step in steps.items():
            progress(f"{repeat + 1} of {repeats}: {name}")
            time.sleep(PAUSE)
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(found)) for name, found in seconds.items()}


def milliseconds(seconds: float) -> str:
    """Three digits, or all before the point: 0.123, 12.3, 12,345."""
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
