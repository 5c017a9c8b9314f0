"""The tables that all benchmarks print: one group of variants, or several under headings of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.machine import MachineFacts
from benchmarks.variant_result import Measured, VariantResult

__all__ = ["Groups", "agreement_table", "machine_line", "print_absent", "profile_table", "time_table", "work_table"]

Groups = Mapping[str, Measured]
"""Heading (none if empty) → what was measured."""

OPERATORS_SHOWN = 8

TIMES_CAPTION = (
    "Ratios of medians: against eager PyTorch as the original runs it (both necks) and with the one neck that is read; "
    "against the straightforward export in the same engine. Peak: resident memory of a fresh process that runs this "
    "variant alone."
)
WORK_CAPTION = (
    "FLOPs: 2 x multiply-adds of convolutions, matrix products and attention; eager's are the straightforward "
    "export's; share: of those. Roof: share of the FLOP/s that the same engine reaches in matrix products in this run. "
    "Weights of an artifact are shared by all its graphs. Error: the largest of all outputs; masks: pixels on the same "
    "side of the threshold as eager's."
)


def time_table(title: str, groups: Groups, remark: str = "") -> Table:
    """How long, how much faster, how much memory; `remark` goes under the table."""
    table = _table(title, TIMES_CAPTION + remark)
    for name in (
        "median\nms",
        "least\nms",
        "times\neager",
        "times eager\n1 neck",
        "times straight-\nforward",
        "peak\nGB",
    ):
        table.add_column(name, justify="right")

    def row(variant: VariantResult) -> tuple[str, ...]:
        return (
            f"{variant.median * 1e3:.1f}",
            f"{variant.least * 1e3:.1f}",
            _ratio(variant.times_original),
            _ratio(variant.times_eager),
            _ratio(variant.times_straightforward),
            "–" if variant.peak_bytes is None else f"{variant.peak_bytes / 1e9:.2f}",
        )

    return _filled(table, groups, row)


def work_table(groups: Groups) -> Table:
    """What has to be computed, how large the graph is, how far the outputs are from eager's."""
    table = _table("Work, size and error", WORK_CAPTION)
    for name in ("GFLOPs", "share", "GFLOP\n/s", "roof", "nodes", "weights\nMB", "error", "masks\nequal"):
        table.add_column(name, justify="right")

    def row(variant: VariantResult) -> tuple[str, ...]:
        graph = variant.graph
        return (
            f"{variant.flops / 1e9:.4g}",
            f"{variant.flops_share:.3f}",
            f"{variant.flops / variant.median / 1e9:.1f}",
            f"{variant.roofline_share:.1%}",
            "–" if graph is None else str(graph.nodes),
            "–" if graph is None else f"{graph.weights_bytes / 1e6:.1f}",
            f"{max(variant.errors.values()):.1e}" if variant.errors else "–",
            f"{min(variant.masks_equal.values()):.2%}" if variant.masks_equal else "–",
        )

    return _filled(table, groups, row)


def agreement_table(title: str, groups: Groups) -> Table:
    """A row an output, a column a variant that was compared."""
    table = Table("output", title=title, title_justify="left")
    compared = {heading: [one for one in group.variants if one.errors] for heading, group in groups.items()}
    names = list(dict.fromkeys(one.name for variants in compared.values() for one in variants))
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for heading, variants in compared.items():
        _add_heading(table, heading)
        errors = {one.name: one.errors for one in variants}
        for output in next(iter(errors.values()), {}):
            table.add_row(output, *(f"{errors[name][output]:.1e}" if name in errors else "–" for name in names))
        table.add_section()
    return table


def profile_table(title: str, variant: VariantResult) -> Table:
    """The slowest operators of a variant that was profiled."""
    table = Table("operator", title=title, title_justify="left")
    for name in ("calls", "ms", "share"):
        table.add_column(name, justify="right")
    for row in variant.operators[:OPERATORS_SHOWN]:
        table.add_row(row.operator, str(row.calls), f"{row.seconds * 1e3:.2f}", f"{row.share:.1%}")
    return table


def print_absent(console: Console, groups: Groups) -> None:
    """A line for each variant that was not run."""
    for heading, group in groups.items():
        for one in group.absent:
            console.print(
                f"not run: {f'{heading}, ' if heading else ''}{one.name} ({one.engine}): {one.reason}",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )


def machine_line(machine: MachineFacts) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, load {machine.load} before "
        f"the run; {machine.system}; Python {machine.python}, {packages}"
    )


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("variant", no_wrap=True)
    return table


def _filled(table: Table, groups: Groups, row: Callable[[VariantResult], tuple[str, ...]]) -> Table:
    for heading, group in groups.items():
        _add_heading(table, heading)
        for variant in group.variants:
            table.add_row(variant.name, *row(variant))
        table.add_section()
    return table


def _add_heading(table: Table, heading: str) -> None:
    if heading:
        table.add_row(f"[bold]{heading}[/]")
