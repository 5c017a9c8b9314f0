"""Runs passes in order over one model, measures each, and shows each step to observers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.interface import GraphPass
from samonnx.passes.statistics import graph_statistics

__all__ = ["PassFailedError", "PassObserver", "PassReport", "PipelineResult", "run_passes"]


class PassFailedError(SamonnxError):
    """A pass raised something that is not a `SamonnxError`; the cause is chained."""


@dataclass(frozen=True)
class PassReport:
    """What one pass did to the graph: counts before and after, and the time it took (observers not counted).

    FLOPs count multiplications and additions of nodes whose shapes are known (see `statistics`).
    """

    name: str
    nodes_before: int
    nodes_after: int
    constant_bytes_before: int
    constant_bytes_after: int
    flops_before: int
    flops_after: int
    milliseconds: float
    modified: bool


@dataclass(frozen=True)
class PipelineResult:
    """The rewritten model (the object that was passed in) and one report a pass, in order."""

    model: ir.Model
    reports: tuple[PassReport, ...]


class PassObserver(Protocol):
    """Looks at the graph after every pass; verification, dumping and progress hang here."""

    @property
    def wants_snapshot(self) -> bool:
        """Whether `after_pass` needs the model as it was before the pass."""
        ...

    def after_pass(self, pass_: GraphPass, before: ir.Model | None, model: ir.Model, report: PassReport) -> None:
        """Called once a pass; `before` is a snapshot if any observer wants one. Must not change either model."""
        ...


def run_passes(
    model: ir.Model, passes: Sequence[GraphPass], *, observers: Sequence[PassObserver] = ()
) -> PipelineResult:
    """Runs `passes` over `model` in place.

    Raises:
        SamonnxError: raised by a pass or an observer; a note says which pass it was and which had run before.
        PassFailedError: for any other exception of a pass, with the same words and the cause chained.
    """
    reports: list[PassReport] = []
    wants_snapshot = any(observer.wants_snapshot for observer in observers)
    statistics = graph_statistics(model)
    for pass_ in passes:
        # Tensors are shared with the snapshot, so it costs nodes, not weights.
        before = model.clone() if wants_snapshot else None
        done = ", ".join(report.name for report in reports) or "none"
        place = f"pass {pass_.name!r} (number {len(reports) + 1} of {len(passes)}; before it ran: {done})"
        start = time.perf_counter()
        try:
            result = pass_(model)
            milliseconds = 1000 * (time.perf_counter() - start)
            after = graph_statistics(model)
            report = PassReport(
                name=pass_.name,
                nodes_before=statistics.nodes,
                nodes_after=after.nodes,
                constant_bytes_before=statistics.constant_bytes,
                constant_bytes_after=after.constant_bytes,
                flops_before=statistics.flops,
                flops_after=after.flops,
                milliseconds=milliseconds,
                modified=result.modified,
            )
        except SamonnxError as error:
            error.add_note(f"in {place}")
            raise
        except Exception as error:
            raise PassFailedError(f"{place} failed: {type(error).__name__}: {error}") from error
        try:
            for observer in observers:
                observer.after_pass(pass_, before, model, report)
        except SamonnxError as error:
            error.add_note(f"after {place}")
            raise
        reports.append(report)
        statistics = after
    return PipelineResult(model, tuple(reports))
