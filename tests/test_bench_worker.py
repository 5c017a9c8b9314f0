from __future__ import annotations

import os
import sys
from pathlib import Path

import onnxruntime
import pytest

from samonnx import bench_worker
from samonnx.bench_worker import Job
from samonnx.runtime.session import SessionError
from tests.runtime.hand_made_artifact import build

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "tracks"
    build(folder)
    return folder


def test_a_provider_that_cannot_start_is_an_error_and_not_the_cpu_under_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("here it can start")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with (
        pytest.warns(UserWarning, match=CUDA),
        pytest.raises(SessionError, match=f"could not start the execution provider {CUDA}"),
    ):
        bench_worker._ProgramWork(Job(str(folder), "track", "onnx", CUDA, 1, (), (8, 8)))


def test_the_cpu_stands_behind_every_provider_and_once() -> None:
    assert Job("x", "track", "onnx", CUDA, None, (), (8, 8)).providers == [CUDA, CPU]
    assert Job("x", "track", "onnx", CPU, None, (), (8, 8)).providers == [CPU]


def test_every_frame_of_the_tracker_starts_from_the_same_full_bank(folder: Path) -> None:
    work = bench_worker._TrackerWork(Job(str(folder), "track", "onnx", CPU, 1, (3, 1), (40, 24)))
    for choice, objects in ((0, 3), (1, 1), (0, 3)):
        assert work.call(choice) > 0
        assert len(work._tracker.objects) == objects
        assert work._tracker.next_frame == 4
    assert work._tracker.open_programs == ("track@first", "track")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the peak since the process began only")
def test_the_peak_of_memory_sees_what_was_allocated() -> None:
    before = bench_worker.peak_bytes()
    assert before is not None
    held = bytearray(os.urandom(1)) * (before + 50_000_000)
    after = bench_worker.peak_bytes()
    assert after is not None
    assert after - before > 30_000_000
    assert len(held) > before
