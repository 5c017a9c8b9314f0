"""What `samonnx optimize` prints."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from samonnx.optimize_result import GraphFigures, Optimized, VerifiedBy
from samonnx.passes.pipeline import PassReport

__all__ = ["print_report"]

_MOST_OUTPUTS = 20
_MOST_LEFT = 40


def print_report(found: Optimized, console: Console) -> None:
    """Passes that changed something, what was left, errors, time."""
    if found.fired:
        _say(console, "what the passes did")
        console.print(_passes_table(found), markup=False)
    else:
        _say(console, "no pass changed anything")
    _say(console, f"\nresult: {found.kept.value}; {_figures(found.before)} → {_figures(found.after)}")
    if found.left:
        _say(console, "\nwhat was left")
        console.print(_left_table(found), markup=False)
    if found.comparisons:
        _say(console, "\nlargest error of each output, over its largest magnitude")
        console.print(_errors_table(found), markup=False)
        sizes = ", ".join(f"{name} = {size}" for name, size in found.size_choice.items())
        with_ = f" with {sizes} (and other sizes, if they run)" if sizes else ""
        _say(console, f"compared in {found.verified_by.value}{with_}")
    elif found.verified_by is VerifiedBy.NOTHING:
        _say(console, f"compared in {found.verified_by.value}")
    if found.timing is not None:
        timing = found.timing
        _say(
            console,
            f"time: {timing.before_ms:.3g} ms → {timing.after_ms:.3g} ms, ratio {timing.ratio:.3f} "
            f"(medians of {timing.runs} alternating calls in ONNX Runtime)",
        )


def _passes_table(found: Optimized) -> Table:
    table = _table(("pass",), ("nodes", "MFLOPs", "constants, KiB", "ms"))
    for report in found.fired:
        table.add_row(report.name, *_changes(report), f"{report.milliseconds:.0f}")
    return table


def _changes(report: PassReport) -> tuple[str, str, str]:
    def change(before: float, after: float) -> str:
        return f"{before:,.6g} → {after:,.6g}" if before != after else f"{after:,.6g}"

    kib = round(report.constant_bytes_before / 1024, 1), round(report.constant_bytes_after / 1024, 1)
    flops = round(report.flops_before / 1e6, 3), round(report.flops_after / 1e6, 3)
    return change(report.nodes_before, report.nodes_after), change(*flops), change(*kib)


def _left_table(found: Optimized) -> Table:
    table = _table(("what", "why"), ())
    for left in found.left[:_MOST_LEFT]:
        table.add_row(left.what, left.why)
    if len(found.left) > _MOST_LEFT:
        table.add_row(f"and {len(found.left) - _MOST_LEFT} more", "all are in the file of --json")
    return table


def _errors_table(found: Optimized) -> Table:
    table = _table(("output",), ("error", "allowed"))
    worst = sorted(found.comparisons, key=lambda error: -error.largest_error)
    for error in worst[:_MOST_OUTPUTS]:
        table.add_row(error.output, f"{error.largest_error:.2g}", f"{error.tolerance:.2g}")
    if len(worst) > _MOST_OUTPUTS:
        table.add_row(f"and {len(worst) - _MOST_OUTPUTS} more, none larger", "", "")
    return table


def _table(texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _figures(counts: GraphFigures) -> str:
    uncounted = f" ({counts.uncounted} nodes of unknown shape not counted)" if counts.uncounted else ""
    return f"{counts.nodes} nodes, {counts.flops / 1e6:,.6g} MFLOPs{uncounted}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
