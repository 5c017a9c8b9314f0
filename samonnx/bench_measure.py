"""Runs the cases of a plan: those that are compared are open together and called in turn, so that what slows the
machine for a while slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby

from samonnx.bench_plan import Case
from samonnx.bench_process import WorkerProcess, worker_process
from samonnx.bench_result import BenchError, Timing
from samonnx.bench_worker import Job

__all__ = ["Measured", "Progress", "count_steps", "measure"]

PAUSE = 0.05
"""Seconds before a call: an engine's threads look out for more work for a while, on the cores of the next one."""

Progress = Callable[[str, int], None]
"""Told what is being done, and how many steps of `count_steps` have been since the last time."""


@dataclass(frozen=True)
class Measured:
    """What became of a case."""

    case: Case
    open_seconds: float = 0.0
    timings: tuple[Timing, ...] = ()
    """One, or one for each of `case.objects`; none if it failed."""
    peak_bytes: int | None = None
    reason: str | None = None
    """Why it failed."""


@dataclass(eq=False)
class _Running:
    case: Case
    worker: WorkerProcess
    open_seconds: float
    seconds: list[list[float]]
    """Of each choice, what was timed so far."""


def count_steps(plan: Sequence[Case], warm_up: int, repeats: int) -> int:
    """Openings and calls."""
    return sum(1 + _choices(case) * (warm_up + repeats) for case in plan)


def measure(
    plan: Sequence[Case], make_job: Callable[[Case], Job], *, warm_up: int, repeats: int, progress: Progress
) -> tuple[Measured, ...]:
    """Time every case, in the order of the plan. A case that fails has a reason and no timings, and the others go on;
    a Tracker is not begun where its `track` has failed."""
    done: list[Measured] = []
    for _, cases in groupby(plan, key=lambda case: case.name):
        lost = {replace(found.case, objects=()) for found in done if found.reason is not None}
        wanted = []
        for case in cases:
            if case.objects and replace(case, objects=()) in lost:
                progress(_describe(case), count_steps([case], warm_up, repeats))
            else:
                wanted.append(case)
        done += _together(wanted, make_job, warm_up, repeats, progress)
    return tuple(done)


def _describe(case: Case, choice: int = 0) -> str:
    """For the progress bar."""
    what = f"{case.name} of {case.objects[choice]}" if case.objects else case.name
    return f"{what}, {case.target} on {case.provider}"


def _together(
    cases: Sequence[Case], make_job: Callable[[Case], Job], warm_up: int, repeats: int, progress: Progress
) -> list[Measured]:
    found: dict[Case, Measured] = {}
    with ExitStack() as stack:
        running: list[_Running] = []

        def give_up(case: Case, error: BenchError, steps_left: int) -> None:
            found[case] = Measured(case, reason=str(error))
            running[:] = [other for other in running if other.case != case]
            progress(_describe(case), steps_left)

        for case in cases:
            progress(f"opening {_describe(case)}", 0)
            worker = stack.enter_context(worker_process(make_job(case)))
            try:
                running.append(_Running(case, worker, worker.opened(), [[] for _ in range(_choices(case))]))
                progress(_describe(case), 1)
            except BenchError as error:
                worker.stop()
                give_up(case, error, count_steps([case], warm_up, repeats))
        for call in range(warm_up + repeats):
            for each in list(running):
                for choice, timed in enumerate(each.seconds):
                    progress(_describe(each.case, choice), 0)
                    try:
                        seconds = _timed(each.worker, choice)
                    except BenchError as error:
                        each.worker.stop()
                        left = _choices(each.case) * (warm_up + repeats - call) - choice
                        give_up(each.case, error, left)
                        break
                    progress(_describe(each.case, choice), 1)
                    if call >= warm_up:
                        timed.append(seconds)
        for each in list(running):
            try:
                peak = each.worker.finish()
            except BenchError as error:
                give_up(each.case, error, 0)
                continue
            timings = tuple(Timing.of(seconds) for seconds in each.seconds)
            found[each.case] = Measured(each.case, each.open_seconds, timings, peak)
    return [found[case] for case in cases]


def _choices(case: Case) -> int:
    return max(len(case.objects), 1)


def _timed(worker: WorkerProcess, choice: int) -> float:
    time.sleep(PAUSE)
    return worker.call(choice)
