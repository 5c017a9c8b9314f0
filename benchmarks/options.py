"""What all benchmarks of variants side by side are told, and which variants are wanted."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import physical_cores
from samonnx.errors import SamonnxError

__all__ = ["Options", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Patterns as in file names, each for a whole name (`onnx*`); none: everything. What all others are compared with
    is in it in any case."""

    patterns: tuple[str, ...] = ()

    def takes(self, name: str) -> bool:
        """Whether one of the patterns fits, capitals or not."""
        return not self.patterns or any(fnmatch.fnmatch(name.lower(), one.lower()) for one in self.patterns)

    def check(self, names: Sequence[str]) -> None:
        """Raises SamonnxError for a pattern that fits none of `names`."""
        for pattern in self.patterns:
            if not fnmatch.filter([name.lower() for name in names], pattern.lower()):
                raise SamonnxError(f"--variant {pattern!r}: no such variant; there are: {', '.join(map(repr, names))}")

    def of(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.takes(name)]


@dataclass(frozen=True)
class Options:
    """`artifact`: compiled there if absent (default: dist/<recipe name>). `threads`: of every engine."""

    recipe: Path
    artifact: Path | None = None
    checkpoint: Path | None = None
    repeats: int = 5
    threads: int = field(default_factory=physical_cores)
    profile: bool = False
    selection: Selection = Selection()

    @property
    def checkpoint_arguments(self) -> tuple[str, ...]:
        """For `benchmarks.peak_memory`."""
        return () if self.checkpoint is None else (str(self.checkpoint.resolve()),)
