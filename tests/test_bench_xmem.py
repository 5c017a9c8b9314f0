from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from samonnx.bench import main
from samonnx.bench_inputs import program_inputs, video_frame
from samonnx.bench_xmem import full_xmem_bank
from samonnx.errors import SamonnxError
from samonnx.exit_codes import ExitCode
from samonnx.runtime.session import Session
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_xmem import SLOTS, build


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build(folder)
    return folder


def test_the_timed_frame_is_an_ordinary_one_with_a_full_memory(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    bank = full_xmem_bank(tracker.manifest, 1)
    assert np.count_nonzero(np.asarray(bank.tensors["bank.working_frame"], dtype=np.int32) >= 0) == SLOTS - 1
    tracker.restore(bank)
    assert tracker.objects == (1,)
    assert np.isfinite(tracker.step(video_frame(64, 48)).probabilities).all()
    assert tracker.open_programs == ("track@plain",)
    assert full_xmem_bank(tracker.manifest).objects == (1, 2)


def test_every_program_runs_on_the_made_up_inputs(artifact: Path) -> None:
    for name in ("start", "track", "track@plain", "track@memory", "consolidate"):
        session = Session(artifact, name)
        found = session.run(program_inputs(session.manifest, session.program))
        assert all(np.isfinite(array.astype(np.float64)).all() for array in found.values()), name


def test_more_objects_than_rows_say_so(artifact: Path) -> None:
    with pytest.raises(SamonnxError, match=r"3 objects: the graph has 2 rows .* --set programs\.track\.objects=3"):
        full_xmem_bank(XMemTracker(artifact).manifest, 3)


def test_the_command_times_the_tracker_with_as_many_objects_as_there_are_rows(artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    options = ("--program", "track", "--repeats", "1", "--warm-up", "1", "--quiet", "--json", str(out))
    assert main([str(artifact), *options]) == ExitCode.OK
    found = json.loads(out.read_text())
    assert [(result["objects"], result["calls"]) for result in found["tracking"]] == [(1, 1), (2, 1)]
    assert found["rows"] == 2
