"""The result as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.results import TrackResult, VariantResult

__all__ = ["print_report"]

OPERATORS_SHOWN = 8

TIMES_CAPTION = "Ratios of medians. Peak: resident memory of a fresh process that runs this variant alone."
WORK_CAPTION = (
    "FLOPs: 2 x multiply-adds of convolutions, matrix products and attention; eager's are the straightforward "
    "export's; share: of those. Weights of an artifact are shared by all its graphs."
)


def print_report(result: TrackResult, console: Console) -> None:
    machine = result.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    console.print(_time_table(result))
    console.print(_work_table(result))
    console.print(_agreement_table(result))
    for variant in result.variants:
        if variant.operators:
            console.print(_profile_table(variant))
    console.print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, load {machine.load} before "
        f"the run; {machine.system}; Python {machine.python}, {packages}",
        highlight=False,
        soft_wrap=True,
    )


def _time_table(result: TrackResult) -> Table:
    bank = "full bank" if result.full_bank else f"{result.frames} earlier frames"
    title = (
        f"One tracking step of {result.recipe}, image encoder included: {bank} ({result.memories} memories, "
        f"{result.pointers} pointers), one object; {result.threads} threads, {result.repeats} repeats in turn"
    )
    table = Table(title=title, title_justify="left", caption=TIMES_CAPTION, caption_justify="left")
    table.add_column("variant", no_wrap=True)
    for name in ("median\nms", "least\nms", "times as fast\nas eager", "as straight-\nforward export", "peak\nGB"):
        table.add_column(name, justify="right")
    for variant in result.variants:
        table.add_row(
            variant.name,
            f"{variant.median * 1e3:.1f}",
            f"{variant.least * 1e3:.1f}",
            f"{variant.times_eager:.2f}",
            f"{variant.times_straightforward:.2f}",
            "–" if variant.peak_bytes is None else f"{variant.peak_bytes / 1e9:.2f}",
        )
    return table


def _work_table(result: TrackResult) -> Table:
    table = Table(title="Work and size", title_justify="left", caption=WORK_CAPTION, caption_justify="left")
    table.add_column("variant", no_wrap=True)
    for name in ("GFLOPs", "share", "GFLOP\n/s", "nodes", "opset", "graph\nMB", "weights\nMB"):
        table.add_column(name, justify="right")
    for variant in result.variants:
        graph = variant.graph
        if graph is None:
            file = ("–",) * 4
        else:
            sizes = (f"{graph.file_bytes / 1e6:.2f}", f"{graph.weights_bytes / 1e6:.1f}")
            file = (str(graph.nodes), str(graph.opset), *sizes)
        table.add_row(
            variant.name,
            f"{variant.flops / 1e9:.4g}",
            f"{variant.flops_share:.3f}",
            f"{variant.flops / variant.median / 1e9:.1f}",
            *file,
        )
    return table


def _agreement_table(result: TrackResult) -> Table:
    seen = ", present" if result.object_score > 0 else " (object absent: masks and pointer are constants)"
    title = f"Largest difference from eager, over eager's largest magnitude; object score {result.object_score:.2f}"
    table = Table("output", title=title + seen, title_justify="left")
    compared = [variant for variant in result.variants if variant.errors]
    for variant in compared:
        table.add_column(variant.name, justify="right")
    for output in compared[0].errors:
        table.add_row(output, *(f"{variant.errors[output]:.1e}" for variant in compared))
    return table


def _profile_table(variant: VariantResult) -> Table:
    table = Table("operator", title=f"Time by operator: {variant.name}", title_justify="left")
    for name in ("calls", "ms", "share"):
        table.add_column(name, justify="right")
    for row in variant.operators[:OPERATORS_SHOWN]:
        table.add_row(row.operator, str(row.calls), f"{row.seconds * 1e3:.2f}", f"{row.share:.1%}")
    return table
