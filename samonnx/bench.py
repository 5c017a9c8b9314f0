"""`samonnx bench DIR`: how fast an artifact runs on this machine, in ONNX Runtime, without PyTorch.

Every program, on every target and execution provider that fit, and the runtime's Tracker with several objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from samonnx.bench_arguments import BenchArguments, parse_arguments
from samonnx.bench_machine import this_machine
from samonnx.bench_measure import Measured, Progress, count_steps, measure
from samonnx.bench_plan import Case, make_plan, provider_names
from samonnx.bench_plot import check_plotting, plot_png
from samonnx.bench_report import print_tables
from samonnx.bench_result import Bench, BenchError, Failure, Machine, ProgramResult, TrackingResult
from samonnx.bench_worker import Job
from samonnx.exit_codes import ExitCode, run_command
from samonnx.result_file import check_output, replace_file
from samonnx.runtime import typed_json
from samonnx.runtime.extras import require_extra
from samonnx.runtime.manifest import Manifest

__all__ = ["main"]

FRAME_SIZE = (1280, 720)
"""Width and height of the frames that the Tracker gets."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments (the process's own by default); returns an ExitCode."""
    try:
        arguments = parse_arguments(argv)
    except SystemExit as exit_:  # argparse has written usage and reason, or the help
        return int(exit_.code or 0)
    return run_command(lambda: _bench(arguments))


def _bench(arguments: BenchArguments) -> int:
    manifest = Manifest.load(arguments.folder)
    present = provider_names(onnxruntime.get_available_providers())
    plan = make_plan(manifest, arguments, present)
    _check_outputs(arguments)
    machine = this_machine()
    with _progress(count_steps(plan, arguments.warm_up, arguments.repeats), quiet=arguments.quiet) as progress:
        measured = measure(
            plan,
            lambda case: _job(arguments, case, present),
            warm_up=arguments.warm_up,
            repeats=arguments.repeats,
            progress=progress,
        )
    bench = _result(arguments, manifest, machine, measured)
    if not arguments.quiet:
        print_tables(bench)
    if bench.programs or bench.tracking:
        _write(arguments, bench)
    lost = [failure for failure in bench.failures if failure.expected_to_run or not bench.programs]
    if lost:
        reasons = "; ".join(f"{f.what}, {f.target} on {f.provider}: {f.reason}" for f in lost)
        raise BenchError(f"{len(lost)} of {len(plan)} measurements failed: {reasons}")
    return int(ExitCode.OK)


def _check_outputs(arguments: BenchArguments) -> None:
    """All that would be in the way of the results is said before anything is measured."""
    if not arguments.quiet:
        require_extra("rich.console", "video")
    for path in (arguments.json, arguments.plot):
        if path is not None:
            check_output(path, arguments.folder)
    if arguments.plot is not None:
        check_plotting()


def _job(arguments: BenchArguments, case: Case, present: Mapping[str, str]) -> Job:
    return Job(
        folder=str(arguments.folder.absolute()),
        program=case.program,
        target=case.target,
        provider=present[case.provider],
        threads=arguments.threads,
        objects=case.objects,
        frame_size=FRAME_SIZE,
    )


def _result(arguments: BenchArguments, manifest: Manifest, machine: Machine, measured: Sequence[Measured]) -> Bench:
    tracking = manifest.memory or manifest.xmem
    rows = None if tracking is None else tracking.objects
    return Bench(
        recipe=manifest.recipe,
        weights_source=manifest.weights.source,
        weights_bytes=manifest.weights.bytes,
        rows=rows,
        machine=machine,
        threads=arguments.threads,
        repeats=arguments.repeats,
        warm_up=arguments.warm_up,
        frame_size=FRAME_SIZE,
        programs=tuple(
            ProgramResult(
                found.case.program,
                found.case.target,
                found.case.provider,
                found.timings[0],
                found.open_seconds,
                found.peak_bytes,
                _graph_bytes(arguments.folder, manifest, found.case),
            )
            for found in measured
            if found.reason is None and not found.case.objects
        ),
        tracking=tuple(
            TrackingResult(
                found.case.target, found.case.provider, objects, -(-objects // (rows or 1)), timing, found.peak_bytes
            )
            for found in measured
            if found.reason is None
            for objects, timing in zip(found.case.objects, found.timings, strict=False)
        ),
        failures=tuple(
            Failure(
                found.case.name,
                found.case.target,
                found.case.provider,
                found.reason,
                found.case.provider == "cpu" or found.case.provider in arguments.providers,
            )
            for found in measured
            if found.reason is not None
        ),
    )


def _graph_bytes(folder: Path, manifest: Manifest, case: Case) -> int:
    return (folder / manifest.program(case.program).files[case.target]).stat().st_size


def _write(arguments: BenchArguments, bench: Bench) -> None:
    if arguments.json is not None:
        replace_file(arguments.json, typed_json.dump(bench).encode())
    if arguments.plot is not None:
        replace_file(arguments.plot, plot_png(bench))


@contextmanager
def _progress(steps: int, *, quiet: bool) -> Iterator[Progress]:
    """A progress bar on stderr; gives what moves it on."""
    if quiet:
        yield lambda what, steps: None
        return
    progress_module, console_module = require_extra("rich.progress", "video"), require_extra("rich.console", "video")
    columns = (
        progress_module.BarColumn(),
        progress_module.MofNCompleteColumn(),
        progress_module.TimeElapsedColumn(),
        progress_module.TimeRemainingColumn(),
        progress_module.TextColumn("{task.description}", markup=False),
    )
    with progress_module.Progress(*columns, console=console_module.Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=steps)
        yield lambda what, steps: progress.update(task, description=what, advance=steps)


if __name__ == "__main__":
    sys.exit(main())
