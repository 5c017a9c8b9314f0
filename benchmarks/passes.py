"""What each pass is worth: the tracking step without it beside the step with all passes.

python -m benchmarks passes recipes/efficientsam3_m0_9.yaml --target ort-cpu --json passes.json --plot passes.png

Components are traced once. For each pass the graph is made again without it, and the two graphs, with the same full
bank, are run in turn in one process. Passes that build on each other take each other's work over or spoil it, so the
gains do not multiply up to that of all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import onnx_ir as ir
import torch

from benchmarks.arguments import basic_parser
from benchmarks.engines import ENGINE_OF_TARGET, Engine, open_graph
from benchmarks.graph_facts import graph_facts
from benchmarks.graph_step import Array
from benchmarks.machine import machine_facts, physical_cores
from benchmarks.measure import alternate
from benchmarks.output_agreement import output_errors
from benchmarks.pass_pipeline import graph_without, optional_passes
from benchmarks.passes_report import plot_passes, print_passes_report
from benchmarks.passes_result import PassesResult, PassResult
from benchmarks.reporting import run_benchmark
from benchmarks.situation import full_bank_length, make_situation
from benchmarks.work_variant import Progress
from samonnx.build_model import build_model
from samonnx.component_tracer import trace_components
from samonnx.errors import SamonnxError
from samonnx.models.tracker import TrackedModel
from samonnx.programs.track import track_program
from samonnx.recipe import load_recipe

__all__ = ["PassesOptions", "main", "measure_passes"]

ALL = "all passes"


@dataclass(frozen=True)
class PassesOptions:
    """`passes`: names to leave out, one at a time; empty: every optional one."""

    recipe: Path
    target: str = "ort-cpu"
    passes: tuple[str, ...] = ()
    checkpoint: Path | None = None
    repeats: int = 5
    threads: int = field(default_factory=physical_cores)


def measure_passes(options: PassesOptions, progress: Progress = lambda _: None) -> PassesResult:
    """Run the benchmark. Raises SamonnxError for a target that no engine here runs and for a pass that does not run
    for it or may not be left out."""
    engine, names = _engine(options.target), _names(options)
    torch.set_num_threads(options.threads)
    machine = machine_facts()
    progress("build the module")
    recipe = load_recipe(options.recipe, ("programs.track.objects=1",))
    module = build_model(recipe, options.checkpoint).module
    model = cast(TrackedModel, module)
    program = track_program(model, recipe.memory, recipe.programs["track"])
    situation = make_situation(model, recipe.memory, full_bank_length(recipe.memory))
    feeds = situation.program_feeds(program, recipe.memory)
    progress("trace the components")
    traced = trace_components(program.components, module, tolerance=None)
    found: list[PassResult] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        everything = _written(graph_without(program, traced, options.target), Path(scratch) / "all")
        with_all = open_graph(engine, everything, feeds, options.threads)
        expected = with_all()
        for name in names:
            progress(f"{name}: make the graph without it")
            try:
                path = _written(graph_without(program, traced, options.target, name), Path(scratch) / name)
                without = open_graph(engine, path, feeds, options.threads)
            except Exception as refusal:  # an engine's refusal of a graph is a finding here
                failed[name] = str(refusal).partition("\n")[0]
                continue
            error = _largest_error(without(), expected)
            times = alternate({name: without.run, ALL: with_all.run}, options.repeats, progress)
            gain = times[name].median / times[ALL].median
            found.append(PassResult(name, times[name], times[ALL], gain, graph_facts(path), error))
            del without
            for file in path.parent.iterdir():
                file.unlink()
        facts = graph_facts(everything)
    return PassesResult(
        recipe.name, options.target, engine, options.repeats, options.threads, machine, facts, tuple(found), failed
    )


def _engine(target: str) -> Engine:
    if target not in ENGINE_OF_TARGET:
        raise SamonnxError(f"--target {target}: measured are {', '.join(ENGINE_OF_TARGET)}")
    return ENGINE_OF_TARGET[target]


def _names(options: PassesOptions) -> tuple[str, ...]:
    known = optional_passes(options.target)
    for name in options.passes:
        if name not in known:
            raise SamonnxError(
                f"--pass {name}: no pass of target {options.target} that can be left out; those are {', '.join(known)}"
            )
    return options.passes or known


def _written(model: ir.Model, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "track.onnx"
    ir.save(model, path, external_data="weights.bin")
    return path


def _largest_error(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    return max(output_errors(found, expected).values())


def _arguments() -> argparse.ArgumentParser:
    parser = basic_parser(
        "passes",
        "Measure what each pass is worth: the tracking step without it beside the step with all.",
        "--repeats 3",
    )
    parser.add_argument("--target", default="ort-cpu", metavar="T", help="what is lowered for (default: ort-cpu)")
    parser.add_argument(
        "--pass",
        action="append",
        default=[],
        dest="passes",
        metavar="NAME",
        help="leave out this pass only; repeatable (default: each that can be left out)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`."""
    args = _arguments().parse_args(argv)
    options = PassesOptions(args.recipe, args.target, tuple(args.passes), args.checkpoint, args.repeats, args.threads)
    return run_benchmark(
        args,
        lambda progress: measure_passes(options, progress),
        print_passes_report,
        lambda result, args: plot_passes(result, args.plot),
    )
