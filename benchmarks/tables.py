"""The tables that all benchmarks print: one group of variants, or several under headings of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from benchmarks.machine import MachineFacts
from benchmarks.variant_result import VariantResult

__all__ = ["Groups", "agreement_table", "machine_line", "profile_table", "time_table", "work_table"]

Groups = Mapping[str, Sequence[VariantResult]]
"""Heading (none if empty) → variants, the same ones in every group."""

OPERATORS_SHOWN = 8

TIMES_CAPTION = "Ratios of medians. Peak: resident memory of a fresh process that runs this variant alone."
WORK_CAPTION = (
    "FLOPs: 2 x multiply-adds of convolutions, matrix products and attention; eager's are the straightforward "
    "export's; share: of those. Weights of an artifact are shared by all its graphs. Error: the largest of all outputs."
)


def time_table(title: str, groups: Groups, remark: str = "") -> Table:
    """How long, how much faster, how much memory; `remark` goes under the table."""
    table = _table(title, TIMES_CAPTION + remark)
    for name in ("median\nms", "least\nms", "times as fast\nas eager", "as straight-\nforward export", "peak\nGB"):
        table.add_column(name, justify="right")

    def row(variant: VariantResult) -> tuple[str, ...]:
        return (
            f"{variant.median * 1e3:.1f}",
            f"{variant.least * 1e3:.1f}",
            f"{variant.times_eager:.2f}",
            f"{variant.times_straightforward:.2f}",
            "–" if variant.peak_bytes is None else f"{variant.peak_bytes / 1e9:.2f}",
        )

    return _filled(table, groups, row)


def work_table(groups: Groups) -> Table:
    """What has to be computed, how large the graph is, how far the outputs are from eager's."""
    table = _table("Work, size and error", WORK_CAPTION)
    for name in ("GFLOPs", "share", "GFLOP\n/s", "nodes", "weights\nMB", "error"):
        table.add_column(name, justify="right")

    def row(variant: VariantResult) -> tuple[str, ...]:
        graph = variant.graph
        return (
            f"{variant.flops / 1e9:.4g}",
            f"{variant.flops_share:.3f}",
            f"{variant.flops / variant.median / 1e9:.1f}",
            "–" if graph is None else str(graph.nodes),
            "–" if graph is None else f"{graph.weights_bytes / 1e6:.1f}",
            f"{max(variant.errors.values()):.1e}" if variant.errors else "–",
        )

    return _filled(table, groups, row)


def agreement_table(title: str, groups: Groups) -> Table:
    """A row an output, a column a variant that was compared."""
    table = Table("output", title=title, title_justify="left")
    compared = {heading: [one for one in variants if one.errors] for heading, variants in groups.items()}
    for variant in next(iter(compared.values())):
        table.add_column(variant.name, justify="right")
    for heading, variants in compared.items():
        _add_heading(table, heading)
        for output in variants[0].errors:
            table.add_row(output, *(f"{variant.errors[output]:.1e}" for variant in variants))
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


def machine_line(machine: MachineFacts) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, load {machine.load} before "
        f"the run; {machine.system}; Python {machine.python}, {packages}"
    )


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("variant", no_wrap=True)
    return table


def _filled(table: Table, groups: Groups, row: Callable[[VariantResult], tuple[str, ...]]) -> Table:
    for heading, variants in groups.items():
        _add_heading(table, heading)
        for variant in variants:
            table.add_row(variant.name, *row(variant))
        table.add_section()
    return table


def _add_heading(table: Table, heading: str) -> None:
    if heading:
        table.add_row(f"[bold]{heading}[/]")
