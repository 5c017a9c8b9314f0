"""A picture of a benchmark: a bar for each program, target and provider; a line over the numbers of objects."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from samonnx.bench_report import milliseconds
from samonnx.bench_result import Bench, ProgramResult, TrackingResult
from samonnx.runtime.extras import require_extra

__all__ = ["check_plotting", "plot_png"]

EXTRA = "benchmark"
BAR_INCHES, LINES_INCHES, WIDTH_INCHES = 0.32, 3.4, 9.0
COLOURS = ("#2f6db3", "#d9822b", "#3a9a5b", "#8e4ec6", "#8c8c8c", "#b8423c")


def check_plotting() -> None:
    """Raise MissingExtraError where matplotlib is not installed."""
    require_extra("matplotlib.figure", EXTRA)


def plot_png(bench: Bench) -> bytes:
    """The picture as a PNG file; at least one thing must have been measured. Raises MissingExtraError."""
    measured: list[ProgramResult | TrackingResult] = [*bench.programs, *bench.tracking]
    kinds = sorted({(result.target, result.provider) for result in measured})
    colours = {kind: COLOURS[place % len(COLOURS)] for place, kind in enumerate(kinds)}
    heights = [0.9 + BAR_INCHES * len(bench.programs)] * bool(bench.programs) + [LINES_INCHES] * bool(bench.tracking)
    figure: Any = require_extra("matplotlib.figure", EXTRA).Figure(
        figsize=(WIDTH_INCHES, 0.7 + sum(heights)), dpi=150, layout="constrained"
    )
    figure.suptitle(f"{bench.recipe} on {bench.machine.processor}, {bench.machine.cores} cores", fontsize=11)
    axes = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if bench.programs:
        _draw_programs(axes.pop(0), bench.programs, colours)
    if bench.tracking:
        _draw_tracking(axes.pop(0), bench, colours)
    content = io.BytesIO()
    figure.savefig(content, format="png", facecolor="white")
    return content.getvalue()


def _draw_programs(axis: Any, results: Sequence[ProgramResult], colours: dict[tuple[str, str], str]) -> None:
    for place, result in enumerate(results):
        timing = result.timing
        axis.barh(place, timing.median_ms, height=0.68, color=colours[result.target, result.provider])
        axis.plot(timing.least_ms, place, "|", color="#222222", markersize=9)
        axis.text(timing.median_ms, place, f" {milliseconds(timing.median_ms)} ms", va="center", fontsize=8)
    names = [f"{result.program}  ·  {result.target}  ·  {result.provider}" for result in results]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    axis.set_xlim(0, 1.15 * max(result.timing.median_ms for result in results))
    axis.set_title("one call: median, ms (mark: the least)", loc="left", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_tracking(axis: Any, bench: Bench, colours: dict[tuple[str, str], str]) -> None:
    for kind in dict.fromkeys((result.target, result.provider) for result in bench.tracking):
        results = sorted(
            (result for result in bench.tracking if (result.target, result.provider) == kind),
            key=lambda result: result.objects,
        )
        objects = [result.objects for result in results]
        medians = [result.timing.median_ms for result in results]
        axis.plot(objects, medians, "o-", color=colours[kind], label="  ·  ".join(kind))
    axis.set_xticks(sorted({result.objects for result in bench.tracking}))
    axis.set_ylim(bottom=0)
    axis.set_xlabel(f"objects ({bench.rows} a call of the graph)", fontsize=9)
    axis.set_title("a frame of the Tracker: median, ms", loc="left", fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e3e3e3", linewidth=0.7)
