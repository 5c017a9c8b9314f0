"""The graph that runs a step is one that may: results do not depend on which graphs an artifact has."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.bank import Bank
from samonnx.runtime.object_group import ObjectGroup
from samonnx.runtime.prompts import Points, Prompts
from samonnx.runtime.session import Array, Session, SessionError
from samonnx.runtime.tracker import FrameResult, Tracker
from tests.runtime.hand_made_artifact import build, clip
from tests.runtime.test_tracker import assert_equal

FRAMES = 8


def click(x: float, y: float, label: int = 1) -> Prompts:
    return Prompts(points=Points(((x, y),), (label,)))


@pytest.fixture(scope="module")
def filled_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One object a call; graphs for 1 and for 2 of the 3 slots."""
    folder = tmp_path_factory.mktemp("artifact") / "filled"
    build(folder, objects=1, filled=(1, 2))
    return folder


@pytest.fixture(scope="module")
def filled_pair_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for two objects a call."""
    folder = tmp_path_factory.mktemp("artifact") / "filled_pair"
    build(folder, objects=2, filled=(1, 2))
    return folder


class Watched:
    """What every call of the graph ran, and whether it was allowed to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.programs: list[str] = []
        run = ObjectGroup.run

        def watched(group: ObjectGroup, session: Session) -> None:
            frames = group.bank_rows()["bank.memory_frame"]
            program = session.program
            if program.name == "track@first":
                rows = group.bank_rows()
                assert all(np.all(rows[pair.input] == pair.empty) for pair in session.manifest.bank)
            elif program.filled is not None:
                assert np.all(frames[:, program.filled :] == -1), (program.name, frames)
            self.programs.append(program.name)
            run(group, session)

        patch.setattr(ObjectGroup, "run", watched)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def run_clip(tracker: Tracker, joins: dict[int, int], again: frozenset[int], corrected: int) -> Iterator[FrameResult]:
    """Objects join by number → frame; those of `again` are prompted on the frame after too, and all of the objects are
    corrected on frame `corrected`."""
    for t, frame in enumerate(clip(FRAMES)):
        prompts = {n: click(3.0 + 4 * n, 6 + t) for n, start in joins.items() if t == start}
        prompts |= {n: click(5.0 + 4 * n, 9) for n, start in joins.items() if n in again and t == start + 1}
        yield tracker.step(frame, prompts)
        if t == corrected and tracker.objects:
            yield tracker.correct({n: click(9.0 + n, 9, 0) for n in tracker.objects})


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    starts=st.lists(st.integers(0, FRAMES - 2), min_size=1, max_size=3),
    again=st.frozensets(st.integers(0, 2)),
    corrected=st.integers(-1, FRAMES - 1),
    pair=st.booleans(),
    keep=st.booleans(),
)
def test_no_graph_runs_on_a_bank_that_it_was_not_made_for_and_the_results_are_those_of_the_general_one(
    filled_artifact: Path,
    filled_pair_artifact: Path,
    single_artifact: Path,
    starts: list[int],
    again: frozenset[int],
    corrected: int,
    pair: bool,
    keep: bool,
) -> None:
    joins = dict(enumerate(starts))
    tracker = Tracker(filled_pair_artifact if pair else filled_artifact, keep_sessions=keep)
    expected = list(run_clip(Tracker(single_artifact), joins, again, corrected))
    with pytest.MonkeyPatch.context() as patch:
        watched = Watched(patch)
        for one, other in zip(run_clip(tracker, joins, again, corrected), expected, strict=True):
            assert_equal(one, other)
    assert watched.programs[0] == "track@first"


def test_a_graph_for_too_few_slots_would_be_noticed(filled_artifact: Path) -> None:
    """The oracle above can fail: `track@1` on a bank with a memory in another slot gives other numbers."""
    tracker = Tracker(filled_artifact)
    tracker.step(clip(2)[0], {1: click(5, 6)})
    tracker.step(clip(2)[1])
    manifest = tracker.manifest
    feeds: dict[str, Array] = {
        port.name: np.zeros(port.sides(), port.dtype) for port in manifest.program("track").inputs
    }
    feeds |= {**tracker.bank().tensors, "attend_memory": np.ones(1, dtype=bool)}
    few, whole = (Session(filled_artifact, name).run(feeds)["low_res_masks"] for name in ("track@1", "track"))
    assert not np.array_equal(few, whole)


def test_each_frame_gets_the_smallest_graph_that_may_run(filled_artifact: Path, watched: Watched) -> None:
    """Prompts on the first two frames take slot 0 again, frame 2 the one after, so that the bank fills slowly."""
    tracker = Tracker(filled_artifact)
    again = click(5, 6)
    for frame, prompts in zip(clip(6), ({1: again}, {1: again}, {1: again}, None, None, None), strict=True):
        tracker.step(frame, prompts)
    assert watched.programs == ["track@first", "track@1", "track@1", "track@1", "track", "track"]


def test_an_artifact_without_small_graphs_runs_the_general_one(single_artifact: Path, watched: Watched) -> None:
    tracker = Tracker(single_artifact)
    for frame in clip(3):
        tracker.step(frame, {1: click(5, 6)})
    assert watched.programs == ["track@first", "track", "track"]


def test_memories_at_the_back_of_a_restored_bank_take_the_general_graph(filled_artifact: Path) -> None:
    tracker = Tracker(filled_artifact)
    tracker.step(clip(2)[0], {1: click(5, 6)})
    bank = tracker.bank()
    turned = {name: np.ascontiguousarray(tensor[:, ::-1]) for name, tensor in bank.tensors.items()}
    results = {}
    for tensors in (bank.tensors, turned):
        tracker.restore(Bank(tensors, bank.objects, 1, bank.recipe, bank.weights, bank.digest))
        result = tracker.step(clip(2)[1])
        results[tracker.open_programs[-1]] = result.low_res_logits
    assert set(results) == {"track@1", "track"}
    np.testing.assert_array_equal(results["track@1"], results["track"])


def test_one_session_is_open_at_a_time_and_the_one_before_is_gone(
    filled_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Session]] = []
    alive: list[int] = []

    def open_session(*arguments: Any, **options: Any) -> Session:
        alive.append(sum(ref() is not None for ref in opened))
        session = Session(*arguments, **options)
        opened.append(weakref.ref(session.engine))
        return session

    monkeypatch.setattr("samonnx.runtime.tracker.Session", open_session)
    tracker = Tracker(filled_artifact)
    for t, frame in enumerate(clip(7)):
        tracker.step(frame, {1: click(5, 6)} if t < 2 else {2: click(9, 9)} if t == 5 else None)
    assert alive == [0, 0, 0, 0], "track@first, track@1, track@2 and track: each after the one before had gone"
    assert tracker.open_programs == ("track",), "object 2 joined in the graph that was open"


def test_sessions_that_are_kept_are_opened_once_and_serve_the_next_clip(
    filled_artifact: Path, watched: Watched
) -> None:
    tracker = Tracker(filled_artifact, keep_sessions=True)
    results = []
    for _ in range(2):
        results.append([tracker.step(frame, {1: click(5, 6)} if t < 2 else None) for t, frame in enumerate(clip(5))])
        tracker.reset()
    assert tracker.open_programs == ("track@first", "track@1", "track@2", "track")
    assert watched.programs == 2 * ["track@first", "track@1", "track@1", "track@2", "track"]
    for one, other in zip(*results, strict=True):
        assert_equal(one, other)


def test_after_a_reset_early_frames_run_in_small_graphs_again(filled_artifact: Path, watched: Watched) -> None:
    tracker = Tracker(filled_artifact)
    for _ in range(2):
        for t, frame in enumerate(clip(4)):
            tracker.step(frame, {1: click(5, 6)} if t < 2 else None)
        tracker.reset()
        assert tracker.open_programs == ()
    assert watched.programs == 2 * ["track@first", "track@1", "track@1", "track@2"]


def test_a_small_graph_that_is_missing_leaves_the_tracker_as_it_was(filled_artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(filled_artifact, tmp_path / "broken"))
    (folder / "track@1.ort-cpu.onnx").unlink()
    tracker, other = Tracker(folder), Tracker(filled_artifact)
    for one in (tracker, other):
        one.step(clip(1)[0], {1: click(5, 6)})
    with pytest.raises(SessionError, match=r"track@1\.ort-cpu\.onnx is missing"):
        tracker.step(clip(2)[1])
    shutil.copy(filled_artifact / "track@1.ort-cpu.onnx", folder)
    assert_equal(tracker.step(clip(2)[1]), other.step(clip(2)[1]))
