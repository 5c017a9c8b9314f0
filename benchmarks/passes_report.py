"""The result of the `passes` benchmark: a table on the terminal, and a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.measure import milliseconds
from benchmarks.passes_result import PassesResult
from benchmarks.tables import machine_line

__all__ = ["plot_passes", "print_passes_report"]

INK, GAIN, LOSS = "#222222", "#2f6db3", "#b3432f"


def print_passes_report(result: PassesResult, console: Console) -> None:
    table = Table(
        title=_title(result),
        title_justify="left",
        caption="Without and with: medians of the two graphs run in turn. Gain: their ratio; below 1, the step is "
        "faster without the pass. Error: the largest difference of an output between the two, over its largest "
        "magnitude.",
        caption_justify="left",
    )
    table.add_column("pass left out", no_wrap=True)
    for name in ("without\nms", "with\nms", "gain", "GFLOPs\nwithout", "nodes\nwithout", "weights\nMB", "error"):
        table.add_column(name, justify="right")
    for one in result.passes:
        table.add_row(
            one.name,
            f"{one.without.median * 1e3:.1f}",
            f"{one.with_all.median * 1e3:.1f}",
            f"{one.gain:.3f}",
            f"{one.graph.flops / 1e9:.4g}",
            str(one.graph.nodes),
            f"{one.graph.weights_bytes / 1e6:.1f}",
            f"{one.error:.1e}",
        )
    facts = result.graph
    table.add_section()
    sizes = f"{facts.flops / 1e9:.4g}", str(facts.nodes), f"{facts.weights_bytes / 1e6:.1f}"
    table.add_row("none: all passes run", "", "", "", *sizes, "")
    console.print(table)
    for name, why in result.failed.items():
        console.print(f"no graph without {name}: {why}", highlight=False, soft_wrap=True, markup=False)
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)


def _title(result: PassesResult) -> str:
    return (
        f"One tracking step of {result.recipe}, full bank, target {result.target} in {result.engine}, "
        f"{result.threads} threads, {result.repeats} repeats in turn"
    )


def plot_passes(result: PassesResult, path: Path) -> None:
    """Write a PNG: a bar a pass, from 1 to its gain, the greatest on top."""
    rows = sorted(result.passes, key=lambda one: one.gain)
    figure = Figure(figsize=(8.4, 1.4 + 0.36 * len(rows)), dpi=150, layout="constrained")
    axis = figure.subplots()
    for place, one in enumerate(rows):
        axis.barh(place, one.gain - 1, left=1, color=GAIN if one.gain >= 1 else LOSS, height=0.62)
        said = f"{one.gain:.2f}  ({milliseconds(one.without.median)} → {milliseconds(one.with_all.median)} ms)"
        axis.annotate(said, (max(one.gain, 1), place), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [one.name for one in rows], fontsize=8.5, color=INK)
    axis.axvline(1, color=INK, linewidth=0.8)
    axis.margins(x=0.22)
    axis.set_xlabel("time without the pass over time with all", fontsize=9, color=INK)
    axis.set_title(_title(result), fontsize=9.5, color=INK, wrap=True)
    axis.tick_params(labelsize=8, colors=INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, format="png", facecolor="white")
