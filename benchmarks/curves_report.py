"""The result of the `curves` benchmark: tables on the terminal, and a picture with logarithmic axes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from rich.console import Console
from rich.table import Table

from benchmarks.curves_result import Curve, CurvesResult
from benchmarks.measure import milliseconds
from benchmarks.tables import machine_line

__all__ = ["plot_curves", "print_curves_report"]

INK, POINTS, LINE = "#222222", "#2f6db3", "#d9822b"


def print_curves_report(result: CurvesResult, console: Console) -> None:
    for curve in result.curves:
        console.print(_table(curve))
    console.print(f"{_title(result)}\n{machine_line(result.machine)}", highlight=False, soft_wrap=True)


def _title(result: CurvesResult) -> str:
    changed = f" with {', '.join(result.overrides)}" if result.overrides else ""
    return (
        f"One tracking step of {result.recipe}{changed}, full bank, target {result.target} in {result.engine}, "
        f"{result.threads} threads, {result.repeats} repeats in turn"
    )


def _table(curve: Curve) -> Table:
    laws = "Too few points for an exponent."
    if curve.time is not None and curve.work is not None:
        laws = (
            f"time ~ {curve.axis} ^ {curve.time.exponent:.2f} (largest residual {curve.time.largest_residual:.1%}); "
            f"FLOPs ~ {curve.axis} ^ {curve.work.exponent:.2f}"
        )
    table = Table(title=f"Time against {curve.axis}", title_justify="left", caption=laws, caption_justify="left")
    for name in (curve.axis.value, "median\nms", "least\nms", "times\nfirst", "fitted\nms", "GFLOPs"):
        table.add_column(name, justify="right")
    for point in curve.points:
        table.add_row(
            str(point.x),
            f"{point.median * 1e3:.1f}",
            f"{point.least * 1e3:.1f}",
            f"{point.times_first:.2f}",
            "–" if curve.time is None else f"{curve.time.at(point.x) * 1e3:.1f}",
            f"{point.flops / 1e9:.4g}",
        )
    return table


def plot_curves(result: CurvesResult, path: Path) -> None:
    """Write a PNG: a panel a curve, points with whiskers from the least to the greatest time, and the fitted line."""
    count = len(result.curves)
    figure = Figure(figsize=(0.6 + 4.4 * count, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for curve, axis in zip(result.curves, axes, strict=True):
        _draw(axis, curve)
    axes[0].set_ylabel("ms a step (median; whiskers: least, greatest)", fontsize=9, color=INK)
    figure.suptitle(_title(result), fontsize=9.5, color=INK, wrap=True)
    figure.savefig(path, format="png", facecolor="white")


def _draw(axis: Axes, curve: Curve) -> None:
    xs = [point.x for point in curve.points]
    medians = [point.median * 1e3 for point in curve.points]
    low = [(point.median - point.least) * 1e3 for point in curve.points]
    high = [(max(point.timing.seconds) - point.median) * 1e3 for point in curve.points]
    axis.errorbar(xs, medians, yerr=[low, high], fmt="o", color=POINTS, ecolor=INK, elinewidth=0.9, capsize=3, zorder=3)
    title = f"{curve.axis}: too few points"
    if curve.time is not None:
        axis.plot(xs, [curve.time.at(x) * 1e3 for x in xs], color=LINE, linewidth=1.6)
        title = f"time ~ {curve.axis} ^ {curve.time.exponent:.2f}"
    axis.set_title(title, fontsize=10, fontweight="bold", color=INK)
    for x, median in zip(xs, medians, strict=True):
        axis.annotate(milliseconds(median / 1e3), (x, median), (6, -12), textcoords="offset points", fontsize=8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(x=0.14, y=0.22)
    axis.set_xlabel(curve.axis.value, fontsize=9, color=INK)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(xs, [str(x) for x in xs])
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(which="both", color="#e8e8e8", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
