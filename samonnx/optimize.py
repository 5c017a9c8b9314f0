"""`samonnx optimize in.onnx -o out.onnx`: the exact passes on any ONNX file, with the numbers compared.

    load, check ─► original ─► outputs on made-up inputs ─┐ held to
                       └─► passes, one by one ─► candidate ┴─► faster or as fast? ─► result

Never a wrong graph: a pass after which an output differs is found by bisection and left out. Never a worse one: where
the result is slower, first the target's own passes are left out, then all that are not bit-exact, then all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from rich.console import Console

from samonnx.callable_module import make_callable
from samonnx.errors import VerificationError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.optimize_arguments import OptimizeArguments, parse_arguments
from samonnx.optimize_baseline import Baseline, make_baseline
from samonnx.optimize_feeds import FeedChoices
from samonnx.optimize_left import figures, left_parts
from samonnx.optimize_load import LEAST_OPSET, load_model
from samonnx.optimize_plan import Plan, make_plan
from samonnx.optimize_report import print_report
from samonnx.optimize_result import Kept, Left, Optimized, OptimizeError, Timing, VerifiedBy
from samonnx.optimize_run import Candidate, run_verified
from samonnx.optimize_save import check_destination, save_model
from samonnx.optimize_timing import SLOWER, compare_times
from samonnx.optimize_versions import ConvertVersion, gains_by_attention
from samonnx.passes.evaluation import EngineError
from samonnx.passes.graph_values import constant_array
from samonnx.passes.interface import Array
from samonnx.passes.pin_inputs import PinInputs
from samonnx.passes.pipeline import run_passes
from samonnx.result_file import replace_file

__all__ = ["main", "optimize"]

Fixed = Array | bool | int | float | None


def optimize(
    model: str | Path | onnx.ModelProto | ir.Model,
    target: str = "ort-cpu",
    passes: Sequence[str] | None = None,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    fixed: Mapping[str, Fixed] | None = None,
    timed: bool = True,
    threads: int | None = None,
    seed: int = 0,
) -> Optimized:
    """A graph that gives the numbers of `model` with less work, and an account of what was done and what was not.

    Args:
        model: a file, a proto or a graph in memory; it is not changed, and its weights are shared, not copied.
        target: the engine: `onnx` (any), `ort-cpu` or `openvino`.
        passes: names in order (`fold_constants`, or `package.module:Pass`); None: the pipeline of `target`.
        shapes: sizes that inputs have in the comparison and the timing; by default symbolic axes get small ones.
        ranges: input → smallest and largest value in the comparison; by default floats are normal and integers small,
            or rows of the table that they index.
        fixed: inputs that become constants: an array, a number for all elements, or None for the input's own default.
        timed: whether both graphs are timed, and the slower one is dropped.
        threads: of the timed sessions; None: the engine's choice.
        seed: of the made-up inputs.

    Raises:
        OptimizeError: no model, or one that the ONNX checker refuses, with its words; arguments that do not fit.
        UnknownPassError, PinInputError: likewise for `passes` and `fixed`.
    """
    plan = make_plan(target, passes)
    loaded = load_model(model)
    original = loaded.model
    declared = loaded.declared
    _fix(original, fixed or {})
    choices = FeedChoices(dict(shapes or {}), dict(ranges or {}))
    choices.check(original.graph)
    baseline = make_baseline(original, choices, seed)
    left = list(loaded.left)
    if baseline.verified_by is VerifiedBy.NOTHING:
        left.append(Left("all passes that are not bit-exact", f"no numbers can be compared: {baseline.why}"))
        plan = plan.bit_exact()
    if original.graph.opset_imports.get("", LEAST_OPSET) < LEAST_OPSET:
        plan = Plan(())
    elif passes is None and gains_by_attention(original, target):
        plan = plan.preceded_by(ConvertVersion())
    if timed and target == "openvino":
        left.append(Left("the time", "graphs for OpenVINO are not timed: ONNX Runtime would say nothing about it"))
    timed = timed and target != "openvino" and baseline.verified_by is VerifiedBy.ORT
    kept, candidate, timing, slow = _choose(original, plan, baseline, timed, threads)
    _restore_outputs(candidate.model, declared)
    return Optimized(
        model=candidate.model,
        target=target,
        kept=kept,
        reports=candidate.reports,
        left=tuple(dict.fromkeys((*left, *candidate.left, *slow, *left_parts(original, candidate.model)))),
        comparisons=candidate.comparisons,
        verified_by=baseline.verified_by,
        timing=timing,
        before=figures(original),
        after=figures(candidate.model),
        size_choice=baseline.sizes,
    )


def _fix(model: ir.Model, fixed: Mapping[str, Fixed]) -> None:
    """Inputs become constants, in place."""
    values: dict[str, Array | bool | int | float] = {}
    for name, value in fixed.items():
        if value is not None:
            values[name] = value
            continue
        default = model.graph.initializers.get(name)
        if default is None or default.const_value is None or not default.is_graph_input():
            raise OptimizeError(f"--fix {name}: the input has no default; give {name}=value")
        values[name] = default.const_value.numpy()
    run_passes(model, (PinInputs(values=values),))


def _choose(
    original: ir.Model, plan: Plan, baseline: Baseline, timed: bool, threads: int | None
) -> tuple[Kept, Candidate, Timing | None, list[Left]]:
    """The first candidate that is not slower than the original; the original itself, if all are."""
    slow: list[Left] = []
    for kept, passes in plan.candidates:
        candidate = run_verified(original, passes, baseline)
        if not all(error.ok for error in candidate.comparisons):
            slow += candidate.left
            break
        if not timed or not any(report.modified for report in candidate.reports):
            return kept, candidate, None, slow
        timing = _timing(original, candidate.model, baseline, threads)
        if timing is None:
            slow.append(Left(f"{kept.value}", "the result does not run with the engine's own optimisation"))
        elif timing.ratio <= SLOWER:
            return kept, candidate, timing, slow
        else:
            slow.append(Left(f"{kept.value}", f"the result takes {timing.ratio:.3f} times as long as the original"))
    errors = baseline.errors(original)
    return Kept.ORIGINAL, Candidate(original.clone(), (), (), errors), None, slow


def _timing(original: ir.Model, model: ir.Model, baseline: Baseline, threads: int | None) -> Timing | None:
    """None where the engine refuses one. What looks slower is timed once more, three times as long: medians of short
    calls stray by a few per cent on a machine with other work."""
    feeds = baseline.trials[0].feeds
    try:
        timing = compare_times(original, model, feeds, threads)
        return timing if timing.ratio <= SLOWER else compare_times(original, model, feeds, threads, patience=3)
    except EngineError:
        return None


def _restore_outputs(model: ir.Model, declared: Mapping[str, ir.Shape | None]) -> None:
    """The outputs' declarations are the graph's contract."""
    for value in model.graph.outputs:
        shape = declared.get(str(value.name))
        if shape is not None and constant_array(value) is None and not value.is_graph_input():
            value.shape = shape.copy()


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = parse_arguments(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _command(arguments))


def _command(arguments: OptimizeArguments) -> int:
    check_destination(arguments.source, arguments.output)
    if arguments.json is not None:
        check_destination(arguments.source, arguments.json)
    found = optimize(
        arguments.source,
        arguments.target,
        arguments.passes,
        shapes=arguments.shapes,
        ranges=arguments.ranges,
        fixed=arguments.fixed,
        timed=arguments.timed,
        threads=arguments.threads,
    )
    written = save_model(found.model, arguments.output)
    console = Console()
    print_report(found, console)
    console.print(f"written: {', '.join(map(str, written))}", highlight=False, markup=False, soft_wrap=True)
    if arguments.json is not None:
        replace_file(arguments.json, found.to_json().encode())
    if found.verified_by is VerifiedBy.NOTHING:
        raise VerificationError(f"{arguments.output} is written, but no numbers were compared; the table says why")
    return int(ExitCode.OK)


make_callable(__name__, "optimize")

if __name__ == "__main__":
    sys.exit(main())
