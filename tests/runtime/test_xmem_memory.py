from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.manifest import Manifest, ManifestError
from samonnx.runtime.object_group import BoundArray
from samonnx.runtime.session import Session, SessionError
from samonnx.runtime.xmem_bank import XMemBank
from samonnx.runtime.xmem_memory import XMemMemory
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_xmem import PLAIN_CHANGES, build
from tests.runtime.xmem_by_hand import by_mask


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build(folder)
    return folder


def test_an_ordinary_frame_moves_the_counters_and_the_sensory_state_alone(artifact: Path) -> None:
    """The large tensors are neither copied nor given a second buffer before something writes to them."""
    tracker = XMemTracker(artifact)
    frames = clip(12)
    tracker.step(frames[0], {1: by_mask(5, 5, 12, 15)})
    memory = tracker._memory
    two = {name.removeprefix("bank.") for name, buffers in memory._buffers.items() if len(buffers) == 2}
    assert not two & {"long_value", "long_frame", "long_count"}
    before = dict(memory._current)
    tracker.step(frames[1])
    assert tracker.open_programs[-1] == "track@plain"
    moved = {name.removeprefix("bank.") for name, place in memory._current.items() if place != before[name]}
    assert moved == set(PLAIN_CHANGES)
    for frame in frames[2:]:
        tracker.step(frame)
    assert all(len(memory._buffers[f"bank.{name}"]) == 2 for name in ("long_value", "long_frame", "long_count"))


def test_a_program_whose_ports_cannot_be_filled_is_named(artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    memory, session = XMemMemory(manifest), Session(artifact, "track@plain")
    with pytest.raises(SessionError, match=r"'track@plain' has an input 'image' .* that the tracker cannot fill"):
        memory.run(session, {}, {})
    inputs = {
        name: BoundArray(np.zeros(shape, dtype=dtype))
        for name, shape, dtype in (("image", (1, 3, 24, 32), np.float32), ("last_frame", (), np.bool_))
    }
    with pytest.raises(SessionError, match="'track@plain' has no output 'prompt_masks', which the tracker needs"):
        memory.run(session, inputs, {"prompt_masks": BoundArray(np.zeros((2, 24, 32), dtype=np.float32))})


def test_a_call_that_is_not_accepted_changes_nothing(artifact: Path) -> None:
    memory, session = XMemMemory(Manifest.load(artifact)), Session(artifact, "consolidate")
    before = memory.bank()
    memory.run(session, {}, {})
    for name, tensor in memory.bank().tensors.items():
        np.testing.assert_array_equal(tensor, before.tensors[name])
    assert not memory.rewind()


def test_a_bank_without_xmems_tensors_is_refused(artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    text = manifest.to_json().replace("bank.last_memory", "bank.latest")
    with pytest.raises(ManifestError, match="has XMem's memory, but its bank lacks last_memory"):
        XMemMemory(Manifest.from_json(text))


def test_the_empty_bank_is_that_of_a_fresh_tracker(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    empty, fresh = XMemBank.empty(tracker.manifest), tracker.bank()
    assert (empty.rows, empty.objects, empty.next_frame) == (fresh.rows, fresh.objects, 0)
    for name, tensor in empty.tensors.items():
        np.testing.assert_array_equal(tensor, fresh.tensors[name])
