"""The parent's end of a process that measures (samonnx.bench_worker)."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import samonnx
from samonnx.bench_result import BenchError
from samonnx.bench_worker import END, Job

__all__ = ["WorkerProcess", "worker_process"]

SHUTDOWN_SECONDS = 10
KILLED = -9


@contextmanager
def worker_process(job: Job) -> Iterator[WorkerProcess]:
    """A process that runs the job; leaving the block ends it, whatever it is doing."""
    above = str(Path(samonnx.__file__).resolve().parents[1])  # a checkout need not be installed
    paths = [above, *filter(None, [os.environ.get("PYTHONPATH")])]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", "samonnx.bench_worker", json.dumps(dataclasses.asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the parent, which ends this one
        ) as process,
    ):
        worker = WorkerProcess(process, errors)
        try:
            yield worker
        finally:
            worker.stop()


class WorkerProcess:
    """`process` runs samonnx.bench_worker, its standard error goes to the file `errors`."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._errors = process, errors
        self._questions, self._answers = process.stdin, process.stdout

    def opened(self) -> float:
        """Wait until the graph is open; seconds that it took to open it. Raises BenchError."""
        return float(self._answer("open_seconds"))

    def call(self, choice: int = 0) -> float:
        """Seconds of one call; `choice` is the place in the job's `objects`. Raises BenchError."""
        self._say(str(choice))
        return float(self._answer("seconds"))

    def finish(self) -> int | None:
        """No more calls; the process's peak of memory in bytes, as far as the system tells. Raises BenchError."""
        self._say(END)
        peak = self._answer("peak_bytes")
        return None if peak is None else int(peak)

    def stop(self) -> None:
        """End the process, and give back its memory; may be called again."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with suppress(BrokenPipeError):  # a line that it did not read any more
            self._questions.close()

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # it has ended: `_answer` says how
            self._questions.write(f"{line}\n")
            self._questions.flush()

    def _answer(self, key: str) -> Any:
        line = self._answers.readline()
        if not line.endswith("\n"):
            raise BenchError(self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(answer["error"])
        return answer[key]

    def _end(self) -> str:
        """How the process ended, and the last that it said."""
        try:
            code = self._process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process that measured does not answer any more, and does not end"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        advice = ". Memory may have run out: time one --target at a time" if code == KILLED else ""
        return f"the process that measured ended with {how}: {last}{advice}"
