"""What `optimize` found out about a graph, as values; the JSON file is these dataclasses, field by field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum

import onnx_ir as ir

from samonnx.errors import SamonnxError
from samonnx.passes.pipeline import PassReport

__all__ = ["GraphFigures", "Kept", "Left", "Optimized", "OptimizeError", "OutputError", "Timing", "VerifiedBy"]


class OptimizeError(SamonnxError):
    """A file that is no valid model, or an argument that does not fit the model."""


class VerifiedBy(Enum):
    """What ran both graphs."""

    ORT = "ONNX Runtime"
    REFERENCE = "the ONNX reference evaluator"
    NOTHING = "nothing: only the structure was checked"


class Kept(Enum):
    """Which of the candidates the result is."""

    ALL = "all passes"
    GENERAL = "the general passes, without those of the target"
    BIT_EXACT = "bit-exact passes only"
    ORIGINAL = "the original"


@dataclass(frozen=True)
class Left:
    """A part of the graph, or a pass, that was left alone, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class OutputError:
    """Largest absolute difference of one output over its largest magnitude, over all inputs that were tried."""

    output: str
    largest_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.largest_error <= self.tolerance


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of `runs` alternating calls of both graphs, and the median of the ratios of neighbours."""

    before_ms: float
    after_ms: float
    ratio: float
    runs: int


@dataclass(frozen=True)
class GraphFigures:
    """Counts of one graph; `uncounted` nodes have shapes that are not known and add nothing to `flops`."""

    nodes: int
    constant_bytes: int
    flops: int
    uncounted: int


@dataclass(frozen=True)
class Optimized:
    """A graph that gives the same numbers, and the account of it.

    Attributes:
        model: the new graph; shares weights with the one that was given, which is unchanged.
        target: the engine that it was made for.
        kept: which candidate it is.
        reports: one a pass that ran, in order; of `kept`.
        left: parts of the graph and passes that were left alone.
        comparisons: one a graph output.
        verified_by: what ran both graphs.
        timing: None where nothing was timed.
        before, after: counts of both graphs.
        size_choice: the sizes that symbolic axes had in the comparison.
    """

    model: ir.Model
    target: str
    kept: Kept
    reports: tuple[PassReport, ...]
    left: tuple[Left, ...]
    comparisons: tuple[OutputError, ...]
    verified_by: VerifiedBy
    timing: Timing | None
    before: GraphFigures
    after: GraphFigures
    size_choice: Mapping[str, int]

    @property
    def ratio(self) -> float | None:
        """Time after over time before; None where nothing was timed."""
        return None if self.timing is None else self.timing.ratio

    @property
    def fired(self) -> tuple[PassReport, ...]:
        """The reports of passes that changed something."""
        return tuple(report for report in self.reports if report.modified)

    @property
    def largest_error(self) -> float:
        """Of all outputs; 0 where nothing was compared."""
        return max((found.largest_error for found in self.comparisons), default=0.0)

    def to_json(self) -> str:
        """Everything but the graph."""
        fields = {name: value for name, value in vars(self).items() if name != "model"}
        for name in ("reports", "left", "comparisons"):
            fields[name] = [asdict(value) for value in fields[name]]
        for name in ("before", "after"):
            fields[name] = asdict(fields[name])
        fields["timing"] = None if self.timing is None else asdict(self.timing)
        fields["kept"], fields["verified_by"] = self.kept.value, self.verified_by.value
        fields["size_choice"] = dict(self.size_choice)
        return json.dumps(_finite(fields), indent=2) + "\n"


def _finite(value: object) -> object:
    """JSON has no infinity and no NaN: they become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
