"""The original graph's outputs on made-up inputs: what every candidate is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.optimize_engine import Outputs, compare_outputs, ort_runner, reference_runner, tolerance_of
from samonnx.optimize_feeds import FeedChoices, Guess, guesses, make_feeds
from samonnx.optimize_left import random_nodes
from samonnx.optimize_result import OptimizeError, OutputError, VerifiedBy
from samonnx.passes.evaluation import EngineError
from samonnx.passes.interface import Array

__all__ = ["Baseline", "make_baseline"]

_Runner = Callable[[ir.Model, Mapping[str, Array]], Outputs]
_REFERENCE_GUESSES = 4


@dataclass(frozen=True)
class _Trial:
    feeds: Mapping[str, Array]
    expected: Outputs


@dataclass(frozen=True)
class Baseline:
    """`trials` are inputs with the original's outputs; none where it could not be run, for the reason `why`."""

    verified_by: VerifiedBy
    runner: _Runner
    trials: tuple[_Trial, ...]
    tolerance: float
    sizes: Mapping[str, int]
    why: str = ""

    def errors(self, model: ir.Model) -> tuple[OutputError, ...]:
        """The largest of all trials, by output; infinite where `model` does not run."""
        worst: dict[str, OutputError] = {}
        for trial in self.trials:
            try:
                found = compare_outputs(self.runner(model, trial.feeds), trial.expected, self.tolerance)
            except EngineError:
                found = [OutputError(name, np.inf, self.tolerance) for name in trial.expected]
            for error in found:
                old = worst.get(error.output, error)
                worst[error.output] = error if error.largest_error >= old.largest_error else old
        return tuple(worst.values())

    def holds(self, model: ir.Model) -> bool:
        return all(error.ok for error in self.errors(model))


def make_baseline(model: ir.Model, choices: FeedChoices, seed: int) -> Baseline:
    """Runs the original; two sets of inputs, of different sizes where axes are symbolic and both run."""
    tolerance = tolerance_of(model)
    random = random_nodes(model)
    if random:
        why = f"{random[0].op_type} {random[0].name!r} gives other numbers each time"
        return Baseline(VerifiedBy.NOTHING, ort_runner, (), tolerance, {}, why)
    why = ""
    for kind, runner in ((VerifiedBy.ORT, ort_runner), (VerifiedBy.REFERENCE, reference_runner)):
        trials: list[_Trial] = []
        shown: dict[str, int] = {}
        for number, guess in enumerate(_fitting_guesses(model)):
            if kind is VerifiedBy.REFERENCE and number >= _REFERENCE_GUESSES:
                break
            try:
                feeds, sizes = make_feeds(model.graph, choices, guess, seed + len(trials))
                trials.append(_Trial(feeds, runner(model, feeds)))
            except (OptimizeError, EngineError) as error:
                why = why or str(error)
                continue
            shown = shown or sizes
            if len(trials) == 2:
                break
        if trials:
            return Baseline(kind, runner, tuple(trials), tolerance, shown)
    return Baseline(VerifiedBy.NOTHING, ort_runner, (), tolerance, {}, why)


def _fitting_guesses(model: ir.Model) -> list[Guess]:
    """All, or, where all shapes are static, those that differ in integers; each twice at most."""
    if all(value.shape is not None and value.shape.is_static() for value in model.graph.inputs):
        first = Guess((1,))
        return [first, first, *(Guess((1,), integers=pair) for pair in ((1, 2), (1, 1), (0, 0)))]
    found = list(guesses())
    return [found[0], *found]
