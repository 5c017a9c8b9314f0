"""`samonnx optimize` on graphs of other exporters: what fired where, what was left, whether it pays.

python -m benchmarks optimize --json optimize.json --plot optimize.png
python -m benchmarks optimize --full --model resnet --model BertModel --threads 2

Each module is exported by the exporters of `benchmarks.optimize_corpus`, and this project's components by the new one,
as they are traced for compiling but with nothing of its pins and passes behind. Times are of ONNX Runtime with its own
optimisation on, before and after in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import positive
from benchmarks.machine import MachineFacts, machine_facts, physical_cores
from benchmarks.optimize_corpus import EXPORTS, MODULES, Example, export
from benchmarks.reporting import run_benchmark
from benchmarks.tables import machine_line
from samonnx.build_model import build_model
from samonnx.models.roi_align import roi_align
from samonnx.models.roi_align_operator import ROI_ALIGN
from samonnx.optimize import optimize
from samonnx.optimize_result import Kept, VerifiedBy
from samonnx.optimize_timing import SLOWER
from samonnx.programs.call import call_programs
from samonnx.programs.program import Component
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import load_recipe

__all__ = ["FileResult", "OptimizeResult", "main", "measure_optimize"]

Progress = Callable[[str], None]

RECIPES = tuple(
    Path(f"recipes/{name}.yaml")
    for name in (
        "efficientsam3_tiny",
        "sam2_tiny",
        "transformers/sam2_video_tiny",
        "transformers/sam3_tiny",
        "transformers/sam3_tracker_video_tiny",
        "transformers/edgetam_video_tiny",
    )
)
"""Whose components are in the corpus; those of `transformers` are its models with all values from constants folded."""


@dataclass(frozen=True)
class FileResult:
    """One file; `reason` says why it was not made, and then the rest is empty. `left` is (what,
    why). `uncounted`: nodes of unknown shape, whose FLOPs are not counted."""

    name: str
    how: str
    nodes: tuple[int, int] = (0, 0)
    flops: tuple[int, int] = (0, 0)
    uncounted: tuple[int, int] = (0, 0)
    largest_error: float = 0.0
    tolerance: float = 0.0
    ratio: float | None = None
    milliseconds: tuple[float, float] | None = None
    kept: str = ""
    verified: bool = False
    fired: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class OptimizeResult:
    """`full`: whether at the sizes of published models."""

    target: str
    full: bool
    threads: int
    machine: MachineFacts
    files: tuple[FileResult, ...]

    @property
    def made(self) -> list[FileResult]:
        return [file for file in self.files if not file.reason]

    @property
    def wrong(self) -> str:
        """Files whose numbers moved, or that got slower, as text."""
        bad = [f for f in self.made if f.largest_error > f.tolerance or (f.ratio or 0) > SLOWER or not f.verified]
        return ", ".join(f"{file.name} ({file.how})" for file in bad)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def measure_optimize(args: argparse.Namespace, progress: Progress = lambda _: None) -> OptimizeResult:
    """Export, optimize and time. What cannot be exported with what is installed is in the result, with the reason."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    machine = machine_facts()
    found: list[FileResult] = []
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        for name, build in _chosen(args):
            exports = EXPORTS if name in MODULES else EXPORTS[:1]
            for how in exports:
                progress(f"{name}: {how.name}")
                path = Path(scratch) / "model.onnx"
                try:
                    export(build(), how, path)
                except Exception as error:  # an exporter's, or transformers', of any kind
                    found.append(FileResult(name, how.name, reason=_first_line(error)))
                else:
                    found.append(_result(name, how.name, path, args))
                for file in Path(scratch).iterdir():
                    file.unlink()
    return OptimizeResult(args.target, args.full, args.threads, machine, tuple(found))


def _chosen(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Example]]]:
    for name, make in MODULES.items():
        if not args.model or name in args.model:
            yield name, partial(make, args.full)
    if args.model and "components" not in args.model:
        return
    for path in args.recipe or RECIPES:
        recipe = load_recipe(path)
        built = build_model(recipe)
        programs = recipe_programs(built.module, recipe) if recipe.programs else ()
        if recipe.calls:
            programs += call_programs(built.module, built.traced, recipe.calls)
        components: dict[str, Component] = {}
        for program in programs:
            components |= {component.name: component for component in program.components}
        for name, component in components.items():
            yield f"{recipe.name}.{name}", partial(_example, component)


def _example(component: Component) -> Example:
    decomposed = {ROI_ALIGN: roi_align}  # ONNX Runtime has no kernel for the operator from opset 22 on
    return Example(component.module, component.inputs, component.outputs, component.symbolic, decomposed)


def _result(name: str, how: str, path: Path, args: argparse.Namespace) -> FileResult:
    found = optimize(path, args.target, threads=args.threads)
    timing = found.timing
    return FileResult(
        name=name,
        how=how,
        nodes=(found.before.nodes, found.after.nodes),
        flops=(found.before.flops, found.after.flops),
        uncounted=(found.before.uncounted, found.after.uncounted),
        largest_error=found.largest_error,
        tolerance=max((error.tolerance for error in found.comparisons), default=0.0),
        ratio=found.ratio,
        milliseconds=None if timing is None else (timing.before_ms, timing.after_ms),
        kept="" if found.kept is Kept.ALL else found.kept.value,
        verified=found.verified_by is not VerifiedBy.NOTHING,
        fired=tuple(dict.fromkeys(report.name for report in found.fired)),
        left=tuple((left.what, left.why) for left in found.left),
    )


def _first_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def print_optimize_report(result: OptimizeResult, console: Console) -> None:
    size = "full size" if result.full else "small"
    table = Table(title=f"samonnx optimize, target {result.target}, {size}, {result.threads} threads",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for heading, justify in (("file", "left"), ("nodes", "right"), ("MFLOPs", "right"), ("error", "right"),
                             ("time ratio", "right"), ("fired", "left"), ("left", "left")):  # fmt: skip
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for file in result.files:
        label = f"{file.name}\n{file.how}"
        if file.reason:
            table.add_row(label, "", "", "", "", "", f"not made: {file.reason}")
            continue
        ratio = "–" if file.ratio is None else f"{file.ratio:.3f}"
        left = f"{len(file.left)}: {file.left[0][0]}" if file.left else ""
        table.add_row(label, _change(*(f"{count:,}" for count in file.nodes)), _megaflops(file),
                      f"{file.largest_error:.1g}", ratio, ", ".join(file.fired) or "nothing",
                      left if not file.kept else f"kept: {file.kept}")  # fmt: skip
    console.print(table, markup=False)
    console.print(
        "all that was left is in the file of --json; – : nothing changed or timed; ≥ : some shapes are unknown",
        highlight=False,
    )
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)


def _change(before: str, after: str) -> str:
    return f"{before} → {after}" if before != after else after


def _megaflops(file: FileResult) -> str:
    """With "≥" where shapes that are not known hide a part."""
    parts = zip(file.flops, file.uncounted, strict=True)
    return _change(*(f"{'≥ ' if hidden else ''}{flops / 1e6:,.2f}" for flops, hidden in parts))


def plot_ratios(result: OptimizeResult, path: Path) -> None:
    """A PNG: a bar a file, as long as time after over time before; a line where files would be dropped."""
    timed = [file for file in result.made if file.ratio is not None]
    figure = Figure(figsize=(10, 1.5 + 0.3 * len(timed)), dpi=150, layout="constrained")
    axis = figure.subplots()
    for place, file in enumerate(timed):
        axis.barh(place, file.ratio or 0.0, height=0.66, color="#2f6db3")
        nodes = f"{file.nodes[0]:,} → {file.nodes[1]:,} nodes"
        axis.text((file.ratio or 0.0) + 0.01, place, f"{file.ratio:.3f}   {nodes}", va="center", fontsize=8)
    axis.axvline(1.0, color="#222222", linewidth=0.8)
    axis.axvline(SLOWER, color="#b33a2f", linewidth=0.8, linestyle="--")
    axis.set_yticks(range(len(timed)), [f"{file.name} ({file.how})" for file in timed], fontsize=8)
    axis.set_ylim(len(timed) - 0.4, -0.6)
    axis.set_xlim(0, 1.35)
    axis.set_xlabel("time after / time before in ONNX Runtime (dashed: above it a result is not kept)", fontsize=9)
    figure.suptitle(f"samonnx optimize, target {result.target}, {result.threads} threads", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", facecolor="white")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when a file's numbers moved or it got slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks optimize",
        description="Run `samonnx optimize` on exports of other models and of this project's components.",
        epilog="example: python -m benchmarks optimize --model resnet --json optimize.json --plot optimize.png",
    )
    parser.add_argument("--recipe", type=Path, action="append", default=[], metavar="PATH",
                        help="whose components are exported; repeatable (default: scaled-down ones)")  # fmt: skip
    parser.add_argument("--model", action="append", choices=(*MODULES, "components"), default=[], metavar="NAME",
                        help=f"only these: {', '.join(MODULES)}, components; repeatable (default: all)")  # fmt: skip
    parser.add_argument("--target", choices=("ort-cpu", "onnx"), default="ort-cpu")
    parser.add_argument("--full", action="store_true", help="the sizes of published models")
    parser.add_argument("--threads", type=positive, default=physical_cores(), metavar="N", help="of the engine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as a picture (PNG)")
    args = parser.parse_args(argv)
    return run_benchmark(
        args,
        lambda progress: measure_optimize(args, progress),
        print_optimize_report,
        lambda result, args: plot_ratios(result, args.plot),
        lambda result: f"other numbers, or slower: {result.wrong}" if result.wrong else "",
    )
