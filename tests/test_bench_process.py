from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from samonnx.bench_process import worker_process
from samonnx.bench_result import BenchError
from samonnx.bench_worker import Job
from tests.runtime.hand_made_artifact import build

CPU = "CPUExecutionProvider"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "tracks"
    build(folder)
    return folder


def job(folder: Path, *, program: str = "track", provider: str = CPU, objects: tuple[int, ...] = ()) -> Job:
    return Job(str(folder), program, "onnx", provider, 1, objects, (40, 24))


def test_a_program_is_opened_called_and_its_memory_told(folder: Path) -> None:
    with worker_process(job(folder)) as worker:
        assert 0 < worker.opened() < 60
        assert 0 < worker.call() < 60
        assert 0 < worker.call() < 60
        peak = worker.finish()
    assert peak is not None
    assert 20e6 < peak < 2e9


def test_a_tracker_is_asked_for_one_number_of_objects_after_the_other(folder: Path) -> None:
    with worker_process(job(folder, objects=(1, 3))) as worker:
        worker.opened()
        assert all(0 < worker.call(choice) < 60 for choice in (0, 1, 0, 1))


def test_an_error_of_the_runtime_arrives_with_its_words(folder: Path) -> None:
    with worker_process(job(folder, provider="CUDAExecutionProvider")) as worker:
        with pytest.raises(BenchError) as caught:
            worker.opened()
        worker.stop()
    assert "CUDAExecutionProvider" in str(caught.value)


def test_leaving_the_block_ends_the_process(folder: Path) -> None:
    with worker_process(job(folder)) as worker:
        process = worker._process
    assert process.returncode is not None


SCRIPT = """
import os, signal, sys
sys.stderr.write("first\\nlast words\\n")
sys.stderr.flush()
{end}
"""


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("sys.exit(7)", "the process that measured ended with exit code 7: last words"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "ended with signal 9: last words. Memory may have run out: time one --target at a time",
        ),
    ],
)
def test_a_process_that_ends_by_itself_is_quoted(
    end: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n{SCRIPT.format(end=end)}")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with worker_process(job(folder)) as worker:
        with pytest.raises(BenchError) as caught:
            worker.opened()
        with pytest.raises(BenchError, match="the process that measured ended"):
            worker.call()
    assert message in str(caught.value)


def test_a_job_survives_the_way_to_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    answer = "import sys, json\nprint(json.dumps(dict(open_seconds=1, sent=sys.argv[-1])))\n"
    program.write_text(f"#!{sys.executable}\n{answer}")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with worker_process(job(folder, objects=(1, 2))) as worker:
        line = json.loads(worker._answers.readline())
    sent = json.loads(line["sent"])
    assert sent["objects"] == [1, 2]
    assert sent["folder"] == str(folder)
    assert os.path.isabs(sent["folder"])
