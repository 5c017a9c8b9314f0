"""Compile: a recipe → an artifact folder, by way of recipe, build, pin, trace, link, passes, verify and emit.

python -m samonnx.compile recipes/efficientsam3_m0_9.yaml --output dist/efficientsam3_m0_9
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from samonnx.build_model import build_model
from samonnx.callable_module import make_callable
from samonnx.checkpoint_files import Checkpoint, checkpoint_argument
from samonnx.compile_summary import Figures, Reports, print_summary
from samonnx.component_tracer import ComponentTracer
from samonnx.describe import describe
from samonnx.emit import Verified, emit
from samonnx.engines import verifying_engine
from samonnx.errors import SamonnxError, VerificationError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.graph_session import Array
from samonnx.link import link
from samonnx.pass_pipelines import LOWERINGS, apply_general_passes, component_passes, lower, specialise
from samonnx.passes.interface import GraphPass
from samonnx.passes.lower import runnable
from samonnx.passes.observers import DumpAfter, VerifyEach, seeded_feeds
from samonnx.passes.pipeline import PassObserver, run_passes
from samonnx.passes.registry import pass_by_name, pass_problems, pass_summaries
from samonnx.passes.stand_in import StandIn, bind_stand_in
from samonnx.passes.symbolic_again import symbolic_again
from samonnx.passes.unroll_memory import UnrollMemory
from samonnx.programs.call import call_programs
from samonnx.programs.program import Component, Program, Specialisation
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import load_recipe
from samonnx.recipe_passes import passes_by_name
from samonnx.road import Road
from samonnx.tensor_pool import TensorPool
from samonnx.trace import TracedComponent
from samonnx.verification_record import verification_record
from samonnx.verify_clip import propagation_feeds
from samonnx.verify_recipe import RecipeVerifier

__all__ = ["CompileOptions", "bind_components", "compile_recipe", "main"]

Graphs = dict[str, dict[str, ir.Model]]
"""Program name → target → graph."""


@dataclass(frozen=True)
class CompileOptions:
    """What the command line adds to a recipe. Empty `targets` or `programs`: all that the recipe and the program
    have."""

    checkpoint: Checkpoint | None = None
    output: Path | None = None
    overrides: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    verify_each: bool = False
    dump_after: str | None = None


def bind_components(
    components: Iterable[Component], traced: Mapping[str, TracedComponent], observers: Sequence[PassObserver] = ()
) -> Reports:
    """Bind the symbolic axes of the traced components and fold what is constant inside each, in place: programs that
    share a component share its folded weights."""
    reports: Reports = []
    for component in {component.name: component for component in components}.values():
        passes: list[GraphPass] = []
        if component.bindings:
            passes.append(UnrollMemory(bindings=dict(component.bindings), validity=dict(component.validity)))
        result = run_passes(traced[component.name].model, (*passes, *component_passes()), observers=observers)
        reports += [(component.name, report) for report in result.reports]
    return reports


def compile_recipe(
    path: Path, options: CompileOptions = CompileOptions(), console: Console | None = None
) -> Path:  # frozen
    """Compile the recipe at `path` and return the artifact folder (`dist/<name>` unless `options.output` says
    otherwise).

    Raises SamonnxError (its message is for the person at the keyboard); a failure leaves an earlier artifact untouched.
    """
    console = console or Console(stderr=True)
    start = time.perf_counter()
    _check_options(options)
    recipe = load_recipe(path, options.overrides)
    further = passes_by_name(recipe.passes)
    targets = options.targets or tuple(recipe.targets)
    output = options.output or Path("dist") / recipe.name
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        road = Road(console, progress)
        road.step("build the module, pin its branches, fill its weights")
        built = build_model(recipe, options.checkpoint)
        known_programs = recipe_programs(built.module, recipe)
        if recipe.calls:
            road.step("run the calls once, look for branches")
            asked = [name for name in recipe.calls if not options.programs or name in options.programs]
            calls = {name: recipe.calls[name] for name in asked}
            known_programs += call_programs(built.module, built.traced, calls)
        programs, wanted = _wanted(known_programs, options.programs, tuple(recipe.calls))
        reports: Reports = []
        graphs: Graphs = {}
        pool_of_weights = TensorPool()
        figures: Figures = []
        verifier = RecipeVerifier(recipe, built.module)
        # Tracing, linking and passes are Python on one core; the engines verify what is done on the other.
        with ThreadPoolExecutor(max_workers=1) as pool:
            tracer = ComponentTracer(built.module, pool, programs=[program.name for program in programs])
            verified: list[tuple[str, str, Future[Figures]]] = []

            def known() -> Verified:
                tracer.require()
                for name, target, future in verified:
                    road.step(f"{name}: verify target {target} in {verifying_engine(target)}")
                    try:
                        figures.extend(future.result())
                    except VerificationError as error:
                        raise tracer.explained(error) from error
                road.step(f"put {output} in place")
                return Verified(describe(recipe, built, programs, graphs, figures), verification_record(figures))

            try:
                for program in programs:
                    fresh = tracer.unknown(program.components_of(wanted))
                    if fresh:
                        road.step(f"{program.name}: trace {len(fresh)} components, unroll the memory, fold constants")
                        tracer.trace(fresh)
                        reports += bind_components(fresh, tracer.traced, _observers(options, fresh))
                    road.step(f"{program.name}: link, passes")
                    observers = _observers(options, program.components, program, recipe.calls)
                    made, done = _optimized(
                        program, tracer.traced, wanted, targets, observers, further, pool_of_weights
                    )
                    reports += done
                    graphs |= made
                    for target in targets:
                        by_name = {name: by_target[target] for name, by_target in made.items()}
                        verified.append((program.name, target, pool.submit(verifier.verify, by_name, target, program)))
                road.step(f"write {output}, beside the verification")
                emit(graphs, describe(recipe, built, programs, graphs, ()), output, known, recipe.to_json())
            finally:
                pool.shutdown(cancel_futures=True)
        road.finish()
    print_summary(console, built.pins, built.weights, reports, figures)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(
        f"[bold]{output}[/]: compiled in {time.perf_counter() - start:.1f} s, peak memory {peak:.2f} GiB",
        highlight=False,
    )
    return output


def _check_options(options: CompileOptions) -> None:
    """What can be known to be wrong before any work."""
    for target in options.targets:
        if target not in LOWERINGS:
            raise SamonnxError(f"--target {target}: unknown target; known: {', '.join(LOWERINGS)}")
    if options.dump_after is not None:
        pass_by_name(options.dump_after)


def _wanted(
    programs: Sequence[Program], names: Sequence[str], calls: Sequence[str] = ()
) -> tuple[tuple[Program, ...], frozenset[str]]:
    """The programs to link, and the names (specialisations among them) of the graphs to make."""
    known = list(dict.fromkeys((*(name for program in programs for name in program.names), *calls)))
    for name in names:
        if name not in known:
            raise SamonnxError(f"--program {name}: this recipe has no such program; it has: {', '.join(known)}")
    wanted = frozenset(names or known)
    return tuple(program for program in programs if wanted.intersection(program.names)), wanted


def _observers(
    options: CompileOptions,
    components: Iterable[Component],
    program: Program | None = None,
    calls: Collection[str] = (),
) -> tuple[PassObserver, ...]:
    observers: list[PassObserver] = []
    if options.verify_each:
        bounds = {name: bound for component in components for name, bound in component.integers.items()}
        feeds: Mapping[str, Array] = {}
        if program is not None and program.name in calls:
            feeds = {name: tensor.numpy() for part in program.components for name, tensor in part.inputs.items()}
        elif program is not None and any(tensor.name == "memory_frame" for tensor in program.bank):
            feeds = propagation_feeds(program.inputs)

        def known_feeds(model: ir.Model) -> Mapping[str, Array]:
            inputs = [str(value.name) for value in model.graph.inputs]
            # Without a bank, or for a component on its own: seeded values, every place filled.
            seeded = seeded_feeds(model, symbolic=2)
            filled = {name: np.ones_like(array) if array.dtype == np.bool_ else array for name, array in seeded.items()}
            filled |= {
                name: low + filled[name] % (high - low) for name, (low, high) in bounds.items() if name in filled
            }
            return {name: feeds[name] if name in feeds else filled[name] for name in inputs}

        observers.append(VerifyEach(feeds=known_feeds, runnable=runnable))
    if options.dump_after is not None:
        observers.append(DumpAfter(options.dump_after, Path(f"{options.dump_after}.onnx")))
    return tuple(observers)


def _optimized(
    program: Program,
    traced: Mapping[str, TracedComponent],
    wanted: Collection[str],
    targets: Sequence[str],
    observers: Sequence[PassObserver],
    further: Sequence[GraphPass],
    pool: TensorPool,
) -> tuple[Graphs, Reports]:
    """Program name → target → graph, and the report of each pass with the graph it ran on. Weights that are in `pool`
    are taken from there."""
    reports: Reports = []
    general: dict[str, ir.Model] = {}
    stand_ins: dict[str, StandIn | None] = {}
    for special in (Specialisation(program.name, ""), *program.specialisations):
        if special.name not in (program.name, *wanted):
            continue
        if special.name == program.name or special.components:
            parts = {part.name: traced[special.components.get(part.name, part).name] for part in program.components}
            linked, pinned = link(replace(program, name=special.name), parts), {**program.pinned, **special.pinned}
            stand_ins[special.name] = bind_stand_in(linked)
            if pinned:
                result = specialise(linked, pinned, observers, further)
            else:
                result = apply_general_passes(linked, observers, further)
        else:
            result = specialise(general[program.name], special.pinned, observers, further, special.unchanged)
            stand_ins[special.name] = stand_ins[program.name]
        general[special.name] = result.model
        reports += [(special.name, report) for report in result.reports]
    graphs: Graphs = {}
    for name in [name for name in program.names if name in wanted]:
        graphs[name] = {}
        for target in targets:
            lowered = lower(general[name], target, observers)
            stand_in = stand_ins[name]
            if stand_in is not None:
                symbolic_again(lowered.model, stand_in)
            pool.share(lowered.model)
            graphs[name][target] = lowered.model
            reports += [(f"{name}, {target}", report) for report in lowered.reports]
    return graphs, reports


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx compile",
        description="Compile a recipe into one stateless ONNX graph per program and target, with one weights file "
        "and a manifest.",
        epilog="example: python -m samonnx.compile recipes/efficientsam3_m0_9.yaml --checkpoint efficientsam3.pth "
        "--set memory.recent_slots=4",
    )
    parser.add_argument("recipe", type=Path, nargs="?", help="a recipe, e.g. recipes/efficientsam3_m0_9.yaml")
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="[PART=]PATH",
        help=".pth, .pt or .safetensors; a model of several parts takes one for each: sam=FILE (repeatable). Without "
        "one the weights are seeded",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="artifact folder (default: dist/<recipe name>)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipe; repeatable"
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="T",
        help="onnx, ort-cpu or openvino; repeatable (default: the recipe's)",
    )
    parser.add_argument(
        "--program",
        action="append",
        default=[],
        metavar="P",
        help="segment, track, track@first, track@3, …; repeatable (default: all of the recipe)",
    )
    parser.add_argument("--verify-each", action="store_true", help="compare the numbers before and after every pass")
    parser.add_argument("--dump-after", metavar="PASS", help="write PASS.onnx into this folder after PASS has run")
    parser.add_argument("--list-passes", action="store_true", help="list the passes and what they promise")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`."""
    parser = _arguments()
    args = parser.parse_args(argv)
    console = Console(stderr=True, quiet=args.quiet)
    if args.list_passes:
        return run_command(lambda: _list_passes(Console()))
    if args.recipe is None:
        parser.error("a recipe is needed, e.g. recipes/efficientsam3_m0_9.yaml")

    def body() -> int:
        options = CompileOptions(
            checkpoint_argument(args.checkpoint),
            args.output,
            tuple(args.set),
            tuple(args.target),
            tuple(args.program),
            args.verify_each,
            args.dump_after,
        )
        compile_recipe(args.recipe, options, console)
        return ExitCode.OK

    return run_command(body)


def _list_passes(console: Console) -> int:
    table = Table(title="Passes", title_justify="left")
    for name in ("name", "exactness", "tolerance", "from", "what it does"):
        table.add_column(name)
    for summary in pass_summaries():
        table.add_row(summary.name, summary.exactness.value, f"{summary.tolerance:g}", summary.origin, summary.summary)
    console.print(table)
    for problem in pass_problems():
        console.print(f"not listed: {problem}", highlight=False, markup=False)
    return ExitCode.OK


make_callable(__name__, "compile_recipe")

if __name__ == "__main__":
    sys.exit(main())
