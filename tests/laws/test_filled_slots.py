"""`track@k` is `track` for every bank whose memories lie in its first k slots; what is written is the same too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Session
from samonnx.runtime.tracker import Tracker
from tests.test_tracker_on_artifact import clicked, frame

from .scenario import Array, box, click, ellipse, give, idle_feeds, next_bank, relative

Artifacts = Callable[..., Path]
Outputs = dict[str, Array]
LAW = settings(max_examples=25, deadline=None, derandomize=True)
FILLED = (1, 3)
OBJECTS, SLOTS = 2, 5
VARIANT = (
    "memory.recent_slots=4",
    "memory.pointer_slots=5",
    f"programs.track.objects={OBJECTS}",
    f"programs.track.filled={list(FILLED)}",
)
TOKENS, CELLS = 5 * 4, 64
TARGETS = ("onnx", "ort-cpu")
NOW = 9


@pytest.fixture(scope="module")
def folder(artifacts: Artifacts) -> Path:
    return artifacts(*VARIANT, programs=("track", *(f"track@{k}" for k in FILLED)))


@pytest.fixture(scope="module")
def open_(folder: Path) -> Callable[[str, str], Session]:
    sessions: dict[tuple[str, str], Session] = {}

    def session(program: str, target: str) -> Session:
        if (program, target) not in sessions:
            sessions[program, target] = Session(folder, program, target=target, threads=1)
        return sessions[program, target]

    return session


@st.composite
def admissible(draw: st.DrawFn, k: int) -> tuple[list[list[int]], list[list[int]], list[bool], int]:
    """Frames of each object's slots (any of the first k filled, with holes, objects unlike), of its pointers, whether
    objects attend their memory, and a seed for all that is floating-point."""
    frames = st.one_of(st.just(-1), st.integers(0, NOW - 1))
    slots = draw(st.lists(st.lists(frames, min_size=k, max_size=k), min_size=OBJECTS, max_size=OBJECTS))
    pointers = draw(st.lists(st.lists(frames, min_size=5, max_size=5), min_size=OBJECTS, max_size=OBJECTS))
    attends = draw(st.lists(st.booleans(), min_size=OBJECTS, max_size=OBJECTS))
    return slots, pointers, attends, draw(st.integers(0, 999))


def feeds_of(
    session: Session, slots: list[list[int]], pointers: list[list[int]], attends: list[bool], seed: int
) -> dict[str, Array]:
    """A frame with that bank and seeded prompts: none, a click, a box or a mask for each object."""
    random = np.random.default_rng(seed)
    feeds = idle_feeds(session, NOW, 0)
    for pair in session.manifest.bank:
        feeds[pair.input] = np.full(pair.shape, pair.empty, pair.dtype)
    for name, rows in (("memory", slots), ("pointer", pointers)):
        held = feeds[f"bank.{name}_frame"]
        for row, frames in enumerate(rows):
            distinct = [t if t not in frames[:place] else -1 for place, t in enumerate(frames)]
            held[row, : len(frames)] = distinct
        # Empty places hold something too.
        feeds[f"bank.{name}"] = np.asarray(random.standard_normal(feeds[f"bank.{name}"].shape), np.float32)
        feeds[f"bank.{name}_conditioning"] = np.asarray(random.random(held.shape) < 0.3)
    prompts = (None, click(33.6, 44.8), box(20.0, 30.0, 70.0, 80.0), type(click(0, 0))(mask=ellipse(112)))
    for row in range(OBJECTS):
        prompt = prompts[int(random.integers(0, len(prompts)))]
        if prompt is not None:
            give(feeds, row, prompt, None)
    feeds["attend_memory"][:] = attends
    return feeds


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("k", FILLED)
def test_a_graph_for_k_filled_slots_gives_what_track_gives(
    open_: Callable[[str, str], Session], k: int, target: str
) -> None:
    general, special = open_("track", target), open_(f"track@{k}", target)

    @LAW
    @given(state=admissible(k))
    def law(state: tuple[list[list[int]], list[list[int]], list[bool], int]) -> None:
        feeds = feeds_of(general, *state)
        expected: Outputs = dict(general.run(feeds))
        found: Outputs = dict(special.run(feeds))
        assert set(found) == set(expected)
        for name, array in expected.items():
            if array.dtype.kind != "f":
                np.testing.assert_array_equal(found[name], array, err_msg=name)
            elif name != "next_bank.memory":
                assert relative(found[name], array) <= 1e-5, name
        # Memory is encoded from the mask cut at 0: rounding may turn a pixel that lies on it.
        same = ((found["masks"] > 0) == (expected["masks"] > 0)).all(axis=(1, 2, 3))
        for row in range(OBJECTS):
            error = relative(found["next_bank.memory"][row], expected["next_bank.memory"][row])
            assert error <= (1e-5 if same[row] else 1e-1)
        assert np.mean((found["masks"] > 0) != (expected["masks"] > 0)) <= 1e-4

    law()


@pytest.mark.parametrize("k", FILLED)
def test_a_full_front_is_followed_by_slot_k_and_kept(open_: Callable[[str, str], Session], k: int) -> None:
    special = open_(f"track@{k}", "onnx")
    frames = [list(range(NOW - k, NOW))] * OBJECTS
    feeds = feeds_of(special, frames, [[0] + [-1] * 4] * OBJECTS, [True] * OBJECTS, 0)
    feeds["bank.memory_conditioning"][:] = False
    after = next_bank(dict(special.run(feeds)))
    assert after["bank.memory_frame"].tolist() == [[*frames[0], NOW] + [-1] * (SLOTS - k - 1)] * OBJECTS
    np.testing.assert_array_equal(after["bank.memory"][:, :k], feeds["bank.memory"][:, :k])
    assert not np.array_equal(after["bank.memory"][:, k], feeds["bank.memory"][:, k])


@pytest.mark.parametrize("k", FILLED)
def test_a_memory_beyond_slot_k_makes_a_difference(open_: Callable[[str, str], Session], k: int) -> None:
    """So the condition is needed, and the law above can fail."""
    general, special = open_("track", "onnx"), open_(f"track@{k}", "onnx")
    slots = [list(range(k + 1))] * OBJECTS
    feeds = feeds_of(general, slots, [[-1] * 5] * OBJECTS, [True] * OBJECTS, 3)
    feeds["point_labels"][:], feeds["mask_prompt_valid"][:] = -1, False
    feeds["attend_memory"][:] = True
    masks = [session.run(feeds)["low_res_masks"] for session in (general, special)]
    assert relative(masks[1], masks[0]) > 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_graphs_for_filled_slots_have_the_ports_of_track_fewer_keys_and_no_weights_of_their_own(
    folder: Path, target: str
) -> None:
    manifest = Manifest.load(folder)
    general = manifest.program("track")
    known = _regions(folder / general.files[target])
    for k in FILLED:
        program = manifest.program(f"track@{k}")
        assert (program.specialises, program.filled, program.pinned) == ("track", k, ())
        assert (program.inputs, program.outputs) == (general.inputs, general.outputs)
        assert _regions(folder / program.files[target]) <= known
        keys = {k * CELLS + TOKENS, SLOTS * CELLS + TOKENS}
        assert keys & _sides(folder / program.files[target]) == {k * CELLS + TOKENS}
        assert keys & _sides(folder / general.files[target]) == {SLOTS * CELLS + TOKENS}


def _regions(path: Path) -> set[tuple[str, str]]:
    """Of float tensors that are not fills: a column of ones and the integer positions have a row for each key."""
    found = set()
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if not entries or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        array = onnx.numpy_helper.to_array(tensor, str(path.parent))
        if (array != array.flat[0]).any():
            found.add((entries["offset"], entries["length"]))
    return found


def _sides(path: Path) -> set[int]:
    """All sizes of axes that occur in a graph."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False), data_prop=True)
    return {side.dim_value for value in model.graph.value_info for side in value.type.tensor_type.shape.dim}


@pytest.mark.parametrize("target", TARGETS)
def test_tracking_with_graphs_for_filled_slots_equals_tracking_without(
    artifacts: Artifacts, tmp_path: Path, target: str
) -> None:
    """A clip longer than the bank, an object that joins on frame 3, corrections early and late."""
    whole = artifacts()
    bare = Path(shutil.copytree(whole, tmp_path / "bare"))
    document = json.loads((bare / "manifest.json").read_text())
    document["programs"] = [program for program in document["programs"] if program["filled"] is None]
    (bare / "manifest.json").write_text(json.dumps(document))
    trackers = [Tracker(path, target=target, threads=1, num_frames=11) for path in (whole, bare)]
    ran: list[str] = []
    for t in range(11):
        prompts = {0: {1: clicked(60.0, 40.0)}, 3: {2: clicked(150.0, 70.0)}}.get(t)
        one, other = (tracker.step(frame(t), prompts) for tracker in trackers)
        ran += [name for name in trackers[0].open_programs if name not in ran]
        assert len(trackers[0].open_programs) == 1
        assert relative(one.low_res_logits, other.low_res_logits) <= 1e-4, f"frame {t}"
        if t in (2, 8):
            again = {1: clicked(100.0, 60.0, 0)}
            one, other = (tracker.correct(again) for tracker in trackers)
            # The earlier logits come back as a prompt.
            assert relative(one.low_res_logits, other.low_res_logits) <= 1e-3, f"frame {t}, corrected"
        np.testing.assert_array_equal(one.mask_choice, other.mask_choice)
    assert ran == ["track@first", "track@3", "track"]
