from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime import open_tracker
from samonnx.runtime.manifest import ManifestError
from samonnx.runtime.object_tracker import ObjectTracker, TrackedFrame, load_bank
from samonnx.runtime.tracker import Tracker, TrackerError
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_artifact import build as build_sam
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_segment_artifact import build as build_detector
from tests.runtime.hand_made_xmem import build as build_xmem
from tests.runtime.xmem_by_hand import click


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    build_sam(folder / "sam2")
    build_xmem(folder / "xmem")
    build_detector(folder / "detector")
    return {name: folder / name for name in ("sam2", "xmem", "detector")}


def test_each_artifact_gets_its_tracker(artifacts: dict[str, Path]) -> None:
    assert type(open_tracker(artifacts["sam2"], num_frames=3, threshold=0.4)) is Tracker
    assert type(open_tracker(artifacts["xmem"], num_frames=3, keep_sessions=True)) is XMemTracker


@pytest.mark.parametrize("kind", ["sam2", "xmem"])
def test_one_program_drives_all_of_them(artifacts: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """What a caller may do without knowing which tracker it has: a click, a correction, another object, a saved bank,
    a removal."""
    frames, results = clip(8), []
    tracker: ObjectTracker = open_tracker(artifacts[kind])
    tracker.check_prompts({1: click(20, 12)}, width=44, height=30)
    for result in tracker.track(frames[:4], {0: {1: click(20, 12)}, 2: {2: click(9, 20)}}):
        results.append(result)
    results.append(tracker.correct({1: click(22, 10)}))
    bank = tracker.bank()
    bank.save(tmp_path / "bank.npz")
    straight = [tracker.step(frame) for frame in frames[4:6]]
    again = open_tracker(artifacts[kind])
    again.restore(load_bank(tmp_path / "bank.npz", again.manifest))
    assert (again.next_frame, again.objects) == (4, (1, 2))
    for frame, expected in zip(frames[4:6], straight, strict=True):
        np.testing.assert_array_equal(again.step(frame).masks, expected.masks)
    again.remove(1)
    last: TrackedFrame = again.step(frames[6])
    assert last.objects == (2,)
    for found in (*results, *straight, last):
        objects = len(found.objects)
        assert found.masks.shape == (objects, 30, 44)
        assert found.boxes.shape == (objects, 4)
        assert found.scores.shape == found.present.shape == (objects,)
        assert found.scores.dtype == np.float32
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert found.searches == ()
    assert again.open_programs
    again.reset()
    assert (again.next_frame, again.objects) == (0, ())


def test_options_of_a_detector_are_refused_where_there_is_none(artifacts: dict[str, Path]) -> None:
    for name, value in (("threshold", 0.3), ("vocabulary", Path("merges.txt"))):
        message = f"{name} belongs to a detector, and the artifact of recipe 'hand_made_xmem'"
        with pytest.raises(TrackerError, match=message):
            open_tracker(artifacts["xmem"], **{name: value})  # type: ignore[arg-type]  # one of two options


def test_artifacts_that_do_not_track_say_so(artifacts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has no program that tracks"):
        open_tracker(artifacts["detector"])
    with pytest.raises(ManifestError, match="does not exist"):
        open_tracker(tmp_path / "nothing")
    with pytest.raises(ManifestError, match=r"tracks by XMem's memory, .*samonnx\.runtime\.open_tracker"):
        Tracker(artifacts["xmem"])
    with pytest.raises(ManifestError, match="has no program that tracks by XMem's memory"):
        XMemTracker(artifacts["sam2"])


def test_an_xmem_artifact_must_be_able_to_consolidate(tmp_path: Path) -> None:
    build_xmem(tmp_path / "half", only=("track",))
    with pytest.raises(ManifestError, match="has `track`, but not `consolidate`"):
        XMemTracker(tmp_path / "half")
    build_xmem(tmp_path / "none", only=("consolidate",))
    with pytest.raises(ManifestError, match="has no program 'track'"):
        XMemTracker(tmp_path / "none")


def test_track_stands_in_for_the_specialisations_that_are_not_there(artifacts: dict[str, Path], tmp_path: Path) -> None:
    build_xmem(tmp_path / "plain", only=("track", "consolidate", "start"))
    general, special = XMemTracker(tmp_path / "plain"), XMemTracker(artifacts["xmem"])
    for index, frame in enumerate(clip(12)):
        given = {0: {1: click(20, 12)}}.get(index, {})
        found, expected = general.step(frame, given), special.step(frame, given)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert general.open_programs == ("track", "consolidate")
