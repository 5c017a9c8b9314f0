"""The process that measures one case, so that its peak of memory is its own: `python -m samonnx.bench_worker JOB`.

JOB is JSON. Talks in lines of JSON over its standard streams: says what opening took, then does a call for each line
that it reads and says how long that took, and in the end what memory it needed. An error is said in the same way.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from samonnx.bench_inputs import full_bank, program_inputs, video_frame
from samonnx.bench_xmem import full_xmem_bank
from samonnx.errors import SamonnxError
from samonnx.runtime import typed_json
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_tracker import open_tracker
from samonnx.runtime.session import Session

__all__ = ["END", "Job", "main"]

END = "end"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Job:
    folder: str
    program: str
    target: str
    provider: str
    """ONNX Runtime's name of it."""
    threads: int | None
    objects: tuple[int, ...]
    """Empty: calls of the program."""
    frame_size: tuple[int, int]
    """Width and height of the Tracker's frames."""

    @property
    def providers(self) -> list[str]:
        """With the CPU behind it, for operators that the provider does not have."""
        return list(dict.fromkeys((self.provider, CPU)))


class _Work(Protocol):
    open_seconds: float

    def call(self, choice: int) -> float:
        """Seconds that it took."""
        ...


class _ProgramWork:
    """Calls of one program."""

    def __init__(self, job: Job) -> None:
        manifest = Manifest.load(job.folder)
        self._inputs = program_inputs(manifest, manifest.program(job.program))  # before the peak of loading
        started = time.perf_counter()
        self._session = Session(
            job.folder,
            job.program,
            target=job.target,
            threads=job.threads,
            providers=job.providers,
            manifest=manifest,
        )
        self.open_seconds = time.perf_counter() - started

    def call(self, choice: int) -> float:
        started = time.perf_counter()
        self._session.run(self._inputs)
        return time.perf_counter() - started


class _TrackerWork:
    """Frames of one tracker; each starts from a full bank of as many objects as `choice` says. Going back to that bank
    is not timed. Sessions stay open, as going back would close them otherwise."""

    def __init__(self, job: Job) -> None:
        self._frame = video_frame(*job.frame_size)
        manifest = Manifest.load(job.folder)
        filled = full_bank if manifest.xmem is None else full_xmem_bank
        self._banks = [filled(manifest, objects) for objects in job.objects]
        started = time.perf_counter()
        self._tracker = open_tracker(
            job.folder, target=job.target, threads=job.threads, providers=job.providers, keep_sessions=True
        )
        self.open_seconds = time.perf_counter() - started

    def call(self, choice: int) -> float:
        self._tracker.restore(self._banks[choice])
        started = time.perf_counter()
        self._tracker.step(self._frame)
        return time.perf_counter() - started


def peak_bytes() -> int | None:
    """Largest resident memory of this process so far; None where the system does not tell.

    On Linux from /proc: `ru_maxrss` survives `exec` there, so that it may be that of the parent.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(argv: Sequence[str] | None = None) -> int:
    """Measure until END is read, or the parent is gone; returns an exit code."""
    (text,) = sys.argv[1:] if argv is None else argv
    job = typed_json.parse(Job, json.loads(text))
    # what a library prints must not get between the answers
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)

        def answer(**values: object) -> None:
            answers.write(json.dumps(values) + "\n")
            answers.flush()

        try:
            work: _Work = _TrackerWork(job) if job.objects else _ProgramWork(job)
            answer(open_seconds=work.open_seconds)
            for line in sys.stdin:
                if line.strip() == END:
                    answer(peak_bytes=peak_bytes())
                    break
                answer(seconds=work.call(int(line)))
        except SamonnxError as error:
            answer(error=str(error))
        except BrokenPipeError:
            return 1  # the parent has been ended
    return 0


if __name__ == "__main__":
    sys.exit(main())
