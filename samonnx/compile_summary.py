"""What a compile prints at its end: pins, weights, what each pass did, how far each figure is from the reference."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from samonnx.passes.pipeline import PassReport
from samonnx.pins import PinTable
from samonnx.verify import Comparison
from samonnx.weights_report import WeightsReport

__all__ = ["Figures", "Reports", "print_summary"]

Figures = list[tuple[str, str, Comparison]]
"""(program, target, figure)"""

Reports = list[tuple[str, PassReport]]
"""(graph, what a pass did to it)"""


def print_summary(console: Console, pins: PinTable, weights: WeightsReport, reports: Reports, figures: Figures) -> None:
    """Print the four tables. The notes of the weights report are part of its table."""
    console.print(pins.render())
    console.print(weights.render())
    passes = Table(title="Passes", title_justify="left")
    for name in ("graph", "pass"):
        passes.add_column(name)
    for name in ("nodes", "constants, MB", "GFLOPs", "ms"):
        passes.add_column(name, justify="right")
    for graph, report in reports:
        passes.add_row(
            graph,
            report.name,
            f"{report.nodes_before} → {report.nodes_after}",
            f"{report.constant_bytes_before / 1e6:.1f} → {report.constant_bytes_after / 1e6:.1f}",
            f"{report.flops_before / 1e9:.1f} → {report.flops_after / 1e9:.1f}",
            f"{report.milliseconds:.0f}",
        )
    console.print(passes)
    table = Table(title="Verification (largest error over the reference's largest magnitude)", title_justify="left")
    for name in ("program", "target", "what"):
        table.add_column(name)
    for name in ("error", "tolerance"):
        table.add_column(name, justify="right")
    for program, target, figure in figures:
        table.add_row(program, target, figure.what, f"{figure.largest_error:.1e}", f"{figure.tolerance:.0e}")
    console.print(table)
