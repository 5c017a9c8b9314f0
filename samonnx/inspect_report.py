"""What `samonnx inspect` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from samonnx.inspect_facts import ModelFacts, PortFacts, shape_text

__all__ = ["print_facts"]


def print_facts(facts: ModelFacts, console: Console) -> None:
    """Tables on `console`."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts.opsets.items())
    _say(
        console, f"{facts.path}: IR version {facts.ir_version}, opsets {opsets}; made by {facts.producer or 'unknown'}"
    )
    if facts.functions:
        _say(console, f"functions: {', '.join(facts.functions)}")
    for title, ports in (("inputs", facts.inputs), ("outputs", facts.outputs)):
        _say(console, f"\n{title}")
        console.print(_ports(ports), markup=False)
    _say(console, f"\n{facts.nodes} nodes, bodies of control flow included")
    console.print(_operators(facts), markup=False)
    unknown = f"; {facts.unknown_shapes} nodes have outputs of unknown shape" if facts.unknown_shapes else ""
    uncounted = f", {facts.uncounted} nodes of these not counted" if facts.uncounted else ""
    _say(
        console,
        f"\n{facts.flops / 1e9:,.4g} GFLOPs (multiplications and additions of products, convolutions and attention"
        f"{uncounted}){unknown}",
    )
    if facts.contradiction:
        _say(console, f"shapes are those of the file: {facts.contradiction}")
    dtypes = ", ".join(f"{dtype} {count:,} ({_size(size)})" for dtype, (count, size) in facts.dtypes.items())
    _say(console, f"{facts.parameters:,} parameters, {_size(facts.bytes)}" + (f": {dtypes}" if dtypes else ""))
    if facts.largest:
        _say(console, "\nlargest tensors")
        console.print(_largest(facts), markup=False)


def _ports(ports: Sequence[PortFacts]) -> Table:
    table = _table(("name", "dtype", "shape", ""))
    for port in ports:
        table.add_row(port.name, port.dtype, shape_text(port.shape), "has a default" if port.default else "")
    return table


def _operators(facts: ModelFacts) -> Table:
    """In columns: there may be many."""
    ops = [f"{count:>6} {name}" for name, count in facts.ops.items()]
    columns = 3
    rows = -(-len(ops) // columns)
    table = Table(box=None, show_header=False, pad_edge=False)
    for at in range(rows):
        table.add_row(*ops[at::rows])
    return table


def _largest(facts: ModelFacts) -> Table:
    table = _table(("name", "dtype", "shape", "bytes"))
    for tensor in facts.largest:
        table.add_row(tensor.name, tensor.dtype, shape_text(tensor.shape), _size(tensor.bytes))
    return table


def _table(headings: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "bytes" else "left")
    return table


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
