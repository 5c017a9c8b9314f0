from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from samonnx import bench_measure
from samonnx.bench_measure import count_steps, measure
from samonnx.bench_plan import Case
from samonnx.bench_result import BenchError
from samonnx.bench_worker import Job

LOG: list[str] = []


class FakeWorker:
    """Takes the time that its target's name says; `broken` names the calls that fail."""

    def __init__(self, job: Job, broken: tuple[str, ...]) -> None:
        self.name = f"{job.program}/{job.target}{'+' if job.objects else ''}"
        self._broken, self._calls = broken, 0

    def opened(self) -> float:
        LOG.append(f"open {self.name}")
        self._fail("open")
        return 0.5

    def call(self, choice: int = 0) -> float:
        LOG.append(f"{self.name}:{choice}")
        self._calls += 1
        self._fail(f"call {self._calls}")
        return self._calls + 100.0 * choice

    def finish(self) -> int | None:
        self._fail("end")
        return 1000

    def stop(self) -> None:
        LOG.append(f"stop {self.name}")

    def _fail(self, when: str) -> None:
        if f"{self.name} {when}" in self._broken:
            raise BenchError(f"{when} went wrong")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts fake workers in the place of processes; name in it what is to fail."""
    LOG.clear()
    monkeypatch.setattr(bench_measure, "PAUSE", 0.0)
    failing: list[str] = []

    @contextmanager
    def worker_process(job: Job) -> Iterator[FakeWorker]:
        worker = FakeWorker(job, tuple(failing))
        yield worker
        worker.stop()

    monkeypatch.setattr(bench_measure, "worker_process", worker_process)
    return failing


def run(*plan: Case, warm_up: int = 1, repeats: int = 2) -> tuple[tuple[bench_measure.Measured, ...], int]:
    """What was measured, and how far the progress bar came."""
    steps: list[int] = []

    def job(case: Case) -> Job:
        return Job("x", case.program, case.target, case.provider, None, case.objects, (8, 8))

    found = measure(plan, job, warm_up=warm_up, repeats=repeats, progress=lambda what, count: steps.append(count))
    return found, sum(steps)


A, B = Case("track", "a", "cpu"), Case("track", "b", "cpu")
TRACKER_A, TRACKER_B = Case("track", "a", "cpu", (1, 4)), Case("track", "b", "cpu", (1, 4))


def test_what_is_compared_is_called_in_turn(broken: list[str]) -> None:
    run(A, B, TRACKER_A, warm_up=0)
    expected = [
        "open track/a",
        "open track/b",
        *["track/a:0", "track/b:0"] * 2,
        "stop track/b",
        "stop track/a",
        "open track/a+",
        *["track/a+:0", "track/a+:1"] * 2,
        "stop track/a+",
    ]
    assert expected == LOG


def test_calls_to_warm_up_are_not_counted(broken: list[str]) -> None:
    (found, tracker), _ = run(A, TRACKER_A, warm_up=2, repeats=3)
    assert [timing.seconds for timing in found.timings] == [(3, 4, 5)]
    assert [timing.seconds for timing in tracker.timings] == [(5, 7, 9), (106, 108, 110)]
    assert (found.open_seconds, found.peak_bytes, found.reason) == (0.5, 1000, None)


@pytest.mark.parametrize("when", ["open", "call 1", "call 3", "end"])
def test_one_that_fails_is_ended_and_the_others_go_on(broken: list[str], when: str) -> None:
    broken.append(f"track/a {when}")
    (first, second), steps = run(A, B)
    assert (first.reason, first.timings) == (f"{when} went wrong", ())
    assert second.reason is None
    assert [timing.seconds for timing in second.timings] == [(2, 3)]
    assert steps == count_steps([A, B], 1, 2) == 8


def test_the_tracker_is_not_begun_where_track_failed(broken: list[str]) -> None:
    broken.append("track/a open")
    found, steps = run(A, B, TRACKER_A, TRACKER_B)
    assert [measured.case for measured in found] == [A, B, TRACKER_B]
    assert "open track/a+" not in LOG
    assert steps == count_steps([A, B, TRACKER_A, TRACKER_B], 1, 2)


def test_a_tracker_that_fails_in_the_middle_fills_the_progress_bar(broken: list[str]) -> None:
    broken.append("track/a+ call 4")
    found, steps = run(A, TRACKER_A)
    assert found[1].reason == "call 4 went wrong"
    assert steps == count_steps([A, TRACKER_A], 1, 2)
