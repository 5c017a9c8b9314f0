"""Times several variants of the same work in one process, in turn, so that what slows the machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Timing", "alternate"]


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
    steps: Mapping[str, Callable[[], object]], repeats: int, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Timing]:
    """Run all steps in turn, `repeats` times; each must have run before, untimed. `progress` is told what runs
    next."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats):
        for name, step in steps.items():
            progress(f"{repeat + 1} of {repeats}: {name}")
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(found)) for name, found in seconds.items()}
