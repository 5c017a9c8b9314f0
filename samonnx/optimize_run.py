"""Runs passes one by one over a copy, and finds the one that breaks a promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.optimize_baseline import Baseline
from samonnx.optimize_result import Left, OutputError
from samonnx.passes.interface import GraphPass, PassDeclinedError
from samonnx.passes.lower import runnable
from samonnx.passes.pipeline import PassReport, run_passes

__all__ = ["Candidate", "run_verified"]

_ATTENTION_OPSET = 23


@dataclass(frozen=True)
class Candidate:
    """A rewritten graph whose outputs are those of the original, with what happened."""

    model: ir.Model
    reports: tuple[PassReport, ...]
    left: tuple[Left, ...]
    comparisons: tuple[OutputError, ...]


@dataclass(frozen=True)
class _Step:
    pass_: GraphPass
    after: ir.Model
    report: PassReport


def run_verified(original: ir.Model, passes: Sequence[GraphPass], baseline: Baseline) -> Candidate:
    """All of `passes` over a copy of `original`, without those that stop or give other numbers."""
    left: dict[str, Left] = {}
    while True:
        model, steps, stopped = _run([pass_ for pass_ in passes if pass_.name not in left], original)
        left |= stopped
        errors = baseline.errors(model)
        reports = tuple(step.report for step in steps)
        if all(error.ok for error in errors):
            return Candidate(model, reports, tuple(left.values()), errors)
        if not any(report.modified for report in reports):
            odd = Left("the comparison of numbers", "the original does not give the same ones twice")
            return Candidate(model, reports, (*left.values(), odd), errors)
        culprit = _culprit(steps, baseline)
        worst = max(error.largest_error for error in baseline.errors(_as_run(culprit.after, last=culprit is steps[-1])))
        why = f"after it an output differs by {worst:.2g} of its largest magnitude; allowed {baseline.tolerance:.2g}"
        left[culprit.pass_.name] = Left(f"pass {culprit.pass_.name}", why)


def _run(passes: Sequence[GraphPass], original: ir.Model) -> tuple[ir.Model, list[_Step], dict[str, Left]]:
    """The graph in the end and after each pass; passes that raise are undone, and not tried again."""
    model, backup = original.clone(), original
    steps: list[_Step] = []
    stopped: dict[str, Left] = {}
    for pass_ in passes:
        if pass_.name in stopped:
            continue
        try:
            (report,) = run_passes(model, (pass_,)).reports
        except SamonnxError as error:
            what = "it declined" if isinstance(error, PassDeclinedError) else "it stopped"
            stopped[pass_.name] = Left(f"pass {pass_.name}", f"{what}: {error}")
            model = backup.clone()
            continue
        backup = model.clone() if report.modified else backup  # shares the tensors
        steps.append(_Step(pass_, backup, report))
    return model, steps, stopped


def _culprit(steps: Sequence[_Step], baseline: Baseline) -> _Step:
    """The first step after which the numbers are wrong; by bisection: what is wrong once stays wrong."""
    good, bad = -1, len(steps) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if baseline.holds(_as_run(steps[middle].after, last=False)):
            good = middle
        else:
            bad = middle
    return steps[bad]


def _as_run(model: ir.Model, *, last: bool) -> ir.Model:
    """Between passes, ONNX Runtime refuses masks that the standard allows; the last graph is run as it is."""
    return runnable(model) if not last and model.graph.opset_imports.get("", 0) >= _ATTENTION_OPSET else model
