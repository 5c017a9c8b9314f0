"""Pieces of work as tables on the terminal, and as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.measure import milliseconds
from benchmarks.pieces import PieceResult, PiecesResult
from benchmarks.tables import machine_line

__all__ = ["plot_pieces", "print_pieces"]

EAGER_COLOUR, GRAPH_COLOUR = "#8c8c8c", "#2f6db3"


def print_pieces(result: PiecesResult, console: Console) -> None:
    """One table, a section for each piece of work."""
    title = f"{result.title}; {result.threads} threads, {result.repeats} repeats in turn"
    caption = (
        "Ratios of medians to the eager variants of the piece, in the order of their rows. Error: the largest "
        "difference of any output from the first eager variant's, over the largest magnitude."
    )
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("variant", no_wrap=True)
    for name in ("median\nms", "least\nms", "times eager", "error"):
        table.add_column(name, justify="right")
    for piece in result.pieces:
        table.add_row(f"[bold]{piece.name}[/]")
        for one in piece.variants:
            times = " / ".join(f"{ratio:.2f}" for ratio in one.times.values())
            error = f"{max(one.errors.values()):.1e}" if one.errors else "–"
            table.add_row(one.name, milliseconds(one.median), milliseconds(one.least), times, error)
        table.add_section()
    console.print(table)
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)


def plot_pieces(result: PiecesResult, path: Path) -> None:
    """Write a PNG: a panel a piece, a bar a variant as long as its median; whiskers from the least to the greatest."""
    rows = [len(piece.variants) for piece in result.pieces]
    figure = Figure(figsize=(10, 1.4 + sum(0.8 + 0.36 * count for count in rows)), dpi=150, layout="constrained")
    figure.suptitle(result.title, fontsize=11, fontweight="bold")
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[0.6 + count for count in rows])[:, 0]
    for piece, axis in zip(result.pieces, axes, strict=True):
        _bars(axis, piece)
    axes[-1].set_xlabel("median of one run, ms (whiskers: least and greatest)", fontsize=9)
    figure.savefig(path, format="png", facecolor="white")


def _bars(axis: object, piece: PieceResult) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    baselines = list(piece.variants[0].times)
    longest = max(max(one.timing.seconds) for one in piece.variants) * 1e3
    for place, one in enumerate(piece.variants):
        median, high = one.median * 1e3, max(one.timing.seconds) * 1e3
        axis.barh(place, median, height=0.66, color=EAGER_COLOUR if one.name in baselines else GRAPH_COLOUR)
        whiskers = [[median - one.least * 1e3], [high - median]]
        axis.errorbar(median, place, xerr=whiskers, fmt="none", ecolor="#222222", elinewidth=0.9, capsize=2.5)
        label = f"{milliseconds(one.median)} ms, {one.times[baselines[0]]:.2f} ×"
        axis.text(high + 0.012 * longest, place, label, va="center", fontsize=8.5)
    axis.set_yticks(range(len(piece.variants)), [one.name for one in piece.variants], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.3 * longest)
    axis.set_title(piece.name, fontsize=9.5, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
