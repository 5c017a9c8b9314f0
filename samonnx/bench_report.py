"""The tables of `samonnx bench`."""

from __future__ import annotations

from typing import Any

from samonnx.bench_result import Bench, Timing
from samonnx.runtime.extras import require_extra

__all__ = ["milliseconds", "print_tables"]

NUMBERS = ("median", "least", "spread")


def print_tables(bench: Bench) -> None:
    """Write to standard output. Raises MissingExtraError."""
    console: Any = require_extra("rich.console", "video").Console()
    threads = "the engine's choice of threads" if bench.threads is None else f"{bench.threads} threads"
    lines = [
        f"{bench.recipe}: weights {_size(bench.weights_bytes)} ({bench.weights_source})",
        f"{bench.machine.processor}, {bench.machine.cores} cores, {threads}; "
        f"onnxruntime {bench.machine.packages['onnxruntime']}; load before {_load(bench.machine.load)}",
    ]
    for line in lines:
        _say(console, line)
    if bench.programs:
        console.print()
        console.print(_program_table(bench), markup=False)
    if bench.tracking:
        console.print()
        console.print(_tracking_table(bench), markup=False)
        console.print()
        width, height = bench.frame_size
        _say(
            console,
            f"a frame of the Tracker: {width} x {height} pixels, preprocessing and resizing of masks included; "
            f"the bank is full",
        )
    if bench.programs:
        _say(
            console,
            f"{bench.repeats} call{'' if bench.repeats == 1 else 's'} each, in turn, after {bench.warm_up} to warm up; "
            f"spread: between the quartiles; open: loading the graph; peak: memory of the whole process",
        )
    for failure in bench.failures:
        what = f"{failure.what}, {failure.target} on {failure.provider}"
        _say(console, f"not measured: {what}: {failure.reason}")


def _program_table(bench: Bench) -> Any:
    table = _table("one call of a program, in ms", ("program", "target", "on"))
    for heading in (*NUMBERS, "per s", "open s", "peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in bench.programs:
        table.add_row(
            result.program,
            result.target,
            result.provider,
            *_figures(result.timing),
            f"{result.open_seconds:.2f}",
            "?" if result.peak_bytes is None else _size(result.peak_bytes),
        )
    return table


def _tracking_table(bench: Bench) -> Any:
    rows = "1 object" if bench.rows == 1 else f"{bench.rows} objects"
    table = _table(f"a frame of the Tracker, in ms ({rows} a call of the graph)", ("target", "on"))
    for heading in ("objects", "calls", *NUMBERS, "per s", "an object"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in bench.tracking:
        each = milliseconds(result.timing.median_ms / result.objects)
        numbers = (str(result.objects), str(result.calls))
        table.add_row(result.target, result.provider, *numbers, *_figures(result.timing), each)
    return table


def _table(title: str, texts: tuple[str, ...]) -> Any:
    """Narrow: the longest of both fits into 80 columns."""
    box = require_extra("rich.box", "video").SIMPLE_HEAD
    table: Any = require_extra("rich.table", "video").Table(
        title=title, box=box, show_edge=False, pad_edge=False, collapse_padding=True
    )
    for heading in texts:
        table.add_column(heading, no_wrap=True)
    return table


def _figures(timing: Timing) -> tuple[str, ...]:
    times = (timing.median_ms, timing.least_ms, timing.spread_ms)
    return (*map(milliseconds, times), f"{timing.per_second:,.{2 if timing.per_second < 10 else 0}f}")


def milliseconds(value: float) -> str:
    """Three digits, or all that stand before the point: 0.123, 12.0, 12,345."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _size(count: int) -> str:
    """Bytes, in units of 1000."""
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.0f} {units[0]}" if size >= 100 or units[0] == "B" else f"{size:.3g} {units[0]}"


def _load(load: float | None) -> str:
    return "unknown" if load is None else f"{load:.2f}"


def _say(console: Any, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
