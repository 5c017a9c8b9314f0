"""The ways to do one piece of work, before they are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import Engine
from benchmarks.graph_step import Array
from benchmarks.variant_result import Absent

__all__ = [
    "BOTH_NECKS",
    "EAGER",
    "ONNXSLIM",
    "STRAIGHTFORWARD",
    "TORCH_COMPILE",
    "EagerVariant",
    "GraphVariant",
    "Progress",
    "WorkVariant",
]

EAGER, BOTH_NECKS, TORCH_COMPILE = "eager", "eager, 2 necks", "torch.compile"
STRAIGHTFORWARD, ONNXSLIM = "straightforward", "onnxslim"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class EagerVariant:
    """`step` does the work in PyTorch and returns its outputs; `alone`: arguments of `benchmarks.peak_memory` that do
    the same (None: memory is not measured); `more_flops`: what it does beyond the straightforward export. `trial`:
    seconds that it may take alone; if it fails or takes longer, it is absent with the reason, instead of an error."""

    step: Callable[[], Mapping[str, Array]]
    alone: tuple[str, ...] | None = None
    more_flops: int = 0
    trial: float | None = None

    @property
    def engine(self) -> Engine:
        return Engine.PYTORCH

    @property
    def may_fail(self) -> bool:
        return self.trial is not None


@dataclass(frozen=True)
class GraphVariant:
    """A graph file and its inputs, perhaps among others. `may_fail`: it is not this project's; if the engine does not
    take it, it is absent with the reason, instead of an error."""

    path: Path
    feeds: Mapping[str, Array]
    engine: Engine = Engine.ORT
    may_fail: bool = False


WorkVariant = EagerVariant | GraphVariant | Absent
