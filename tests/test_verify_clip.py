"""Verify a clip: the reference's bank as the graph holds it, the feeds for comparing passes, and what counts as equal.

The graph is stood in for by the eager components, joined by the program's wires, so that nothing is traced here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import pytest
import torch

from samonnx.errors import VerificationError
from samonnx.graph_session import Array, GraphSession
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ReferenceTracker
from samonnx.models.tracker import FrameOutput
from samonnx.programs.program import Port, Program
from samonnx.recipe import MemorySpec
from samonnx.reference_bank import bank_of_reference
from samonnx.seeded import seeded_frame
from samonnx.verify import Comparison
from samonnx.verify_clip import MASK_SHARE, propagation_feeds, verify_clip
from tests.programs.eager_program import program_of, run_program
from tests.tiny_model import tiny_model, tiny_recipe

SIZE, GRID, LOW, WIDTH, MEMORY = 112, 8, 32, 32, 8
FRAMES = 4
SEED = "weights.seed=5"  # the object is clearly present in every frame

Outputs = dict[str, Array]
Spoil = Callable[[int, Outputs], None]


def model() -> EfficientSAM3:
    return tiny_model(SEED)


def program(*overrides: str) -> Program:
    return program_of(tiny_recipe(SEED, *overrides), model())


def ports(*overrides: str) -> tuple[Port, ...]:
    return program(*overrides).inputs


def blank(number: float) -> FrameRecord:
    """A record that shows its number in memory and pointer."""
    zeros = torch.zeros(1, 1)
    output = FrameOutput(zeros, zeros, zeros, zeros, zeros, torch.ones(1, 1), torch.full((1, WIDTH), number))
    return FrameRecord(output, torch.full((1, MEMORY, GRID, GRID), number), None)


def bank_before(
    frame: int, conditioning: Sequence[int], others: Sequence[int], memory: MemorySpec, objects: int = 1
) -> dict[str, Array]:
    tracker = ReferenceTracker(model(), memory.conditioning_slots, memory.recent_slots, 0, memory.pointer_slots)
    tracker.conditioning = {t: blank(t) for t in conditioning}
    tracker.others = {t: blank(t) for t in others}
    overrides = (
        f"memory.conditioning_slots={memory.conditioning_slots}",
        f"memory.recent_slots={memory.recent_slots}",
        f"memory.pointer_slots={memory.pointer_slots}",
        f"programs.track.objects={objects}",
    )
    return bank_of_reference(tracker, {port.name: port for port in ports(*overrides)}, frame, memory)


SMALL = MemorySpec(conditioning_slots=1, recent_slots=2, pointer_slots=4)


# The reference's bank


def test_the_bank_before_the_first_frame_is_empty() -> None:
    bank = bank_before(0, [], [], SMALL)
    assert set(bank) == {
        f"bank.{kind}{part}" for kind in ("memory", "pointer") for part in ("", "_frame", "_conditioning")
    }
    assert (bank["bank.memory_frame"] == -1).all()
    assert (bank["bank.pointer_frame"] == -1).all()
    assert not bank["bank.memory"].any()
    assert not bank["bank.memory_conditioning"].any()


def test_the_bank_holds_the_kept_conditioning_frames_then_the_nearest_others() -> None:
    bank = bank_before(20, [0], range(1, 20), SMALL)
    assert bank["bank.memory_frame"].tolist() == [[0, 19, 18]]
    assert bank["bank.memory_conditioning"].tolist() == [[True, False, False]]
    assert bank["bank.memory"][0, :, 0, 0, 0].tolist() == [0, 19, 18]
    assert bank["bank.pointer_frame"].tolist() == [[0, 19, 18, 17]]
    assert bank["bank.pointer"][0, :, 0].tolist() == [0, 19, 18, 17]


def test_a_conditioning_frame_that_is_not_kept_holds_its_place_among_the_others_with_its_flag() -> None:
    bank = bank_before(20, [0, 18, 19], [17], SMALL)
    assert bank["bank.memory_frame"].tolist() == [[19, 18, 17]]
    assert bank["bank.memory_conditioning"].tolist() == [[True, True, False]]


def test_a_bank_that_is_not_full_has_empty_slots_at_the_end() -> None:
    bank = bank_before(2, [0], [1], MemorySpec(conditioning_slots=2, recent_slots=3, pointer_slots=4))
    assert bank["bank.memory_frame"].tolist() == [[0, 1, -1, -1, -1]]
    assert bank["bank.memory_conditioning"].tolist() == [[True, False, False, False, False]]


def test_every_object_of_the_program_gets_the_same_bank() -> None:
    bank = bank_before(3, [0], [1, 2], SMALL, objects=2)
    assert bank["bank.memory_frame"].tolist() == [[0, 2, 1]] * 2
    assert bank["bank.pointer"].shape == (2, 4, WIDTH)
    assert (bank["bank.pointer"][0] == bank["bank.pointer"][1]).all()


# Feeds for comparing before and after a pass


def test_the_feeds_of_a_propagated_frame_are_every_input_in_its_dtype_and_shape() -> None:
    for overrides in ((), ("programs.track.objects=2", "memory.conditioning_slots=2")):
        feeds = propagation_feeds(ports(*overrides))
        for port in ports(*overrides):
            assert (str(feeds[port.name].dtype), feeds[port.name].shape) == (port.dtype, port.shape), port.name


def test_a_propagated_frame_has_a_full_bank_of_different_earlier_frames_the_first_prompted() -> None:
    feeds = propagation_feeds(ports())
    now = int(feeds["frame_index"])
    for kind in ("memory", "pointer"):
        frames = feeds[f"bank.{kind}_frame"][0].tolist()
        assert frames[0] == 0
        assert frames[-1] == now - 1
        assert len(set(frames)) == len(frames)
        assert feeds[f"bank.{kind}_conditioning"][0].tolist() == [True] + [False] * (len(frames) - 1)
        assert feeds[f"bank.{kind}"].std() == pytest.approx(1, abs=0.1)
    assert (feeds["point_labels"] == -1).all()
    assert feeds["attend_memory"].all()
    assert now < int(feeds["num_frames"])


def test_the_feeds_are_the_same_each_time_and_another_seed_gives_others() -> None:
    one, again, other = propagation_feeds(ports()), propagation_feeds(ports()), propagation_feeds(ports(), seed=1)
    assert all((one[name] == again[name]).all() for name in one)
    assert (one["bank.memory"] != other["bank.memory"]).any()


# The clip


def click() -> FramePrompt:
    return FramePrompt(torch.tensor([[33.0, 45.0]]), torch.tensor([1], dtype=torch.int32))


def untouched(frame: int, outputs: Outputs) -> None:
    """A graph that is right."""


class EagerSession(GraphSession):
    """Answers each step with the eager components' numbers, after `spoil` has had them (frame, outputs)."""

    def __init__(self, wired: Program, spoil: Spoil) -> None:
        self.wired, self.spoil = wired, spoil
        self.asked: list[Mapping[str, Array]] = []

    def run(self, feeds: Mapping[str, Array]) -> Outputs:
        self.asked.append(dict(feeds))
        found = run_program(self.wired, {name: torch.from_numpy(array) for name, array in feeds.items()})
        outputs = {name: tensor.numpy().copy() for name, tensor in found.items()}
        self.spoil(int(feeds["frame_index"]), outputs)
        return outputs


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> dict[str, EagerSession]:
    """Graphs' names → the sessions that stand for them, to be filled by `verified`."""
    known: dict[str, EagerSession] = {}
    monkeypatch.setattr("samonnx.verify_clip.GraphSession", lambda graph: known[graph.graph.name])
    return known


def named(name: str) -> ir.Model:
    graph: ir.Model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]>\ng (float[2] x) => (float[2] y) { y = Neg(x) }'
    )
    graph.graph.name = name
    return graph


def verified(
    sessions: dict[str, EagerSession],
    spoil: Spoil = untouched,
    tolerance: float = 1e-4,
    overrides: tuple[str, ...] = (),
    names: tuple[str, ...] = ("track",),
) -> dict[str, Comparison]:
    wired = program(*overrides)
    sessions |= {name: EagerSession(wired, spoil) for name in names}
    memory = tiny_recipe(*overrides).memory
    graphs = {name: named(name) for name in names}
    found = verify_clip(graphs, model(), wired, memory, {0: click()}, FRAMES, tolerance)
    return {comparison.what: comparison for comparison in found}


def failed(comparisons: Mapping[str, Comparison]) -> list[str]:
    return [name for name, comparison in comparisons.items() if not comparison.ok]


Sessions = dict[str, EagerSession]
SHARE = "track: thresholded masks, share of pixels that differ"


def test_a_right_graph_passes_in_every_figure(sessions: Sessions) -> None:
    found = verified(sessions)
    assert list(found) == [
        "track: low_res_masks",
        "track: masks",
        "track: ious",
        "track: iou",
        "track: mask_choice",
        "track: object_score",
        "track: object_pointer",
        "track: frames written",
        "track: next_bank.pointer",
        SHARE,
        "track: next_bank.memory",
        *(
            f"track: next_bank.{kind}{part}, other slots"
            for kind in ("memory", "pointer")
            for part in ("", "_frame", "_conditioning")
        ),
        *(f"track: image encoder: {name}" for name in ("high_res_0", "high_res_1", "features")),
    ]
    assert failed(found) == []


def test_a_slot_of_another_frame_that_changes_is_found(sessions: Sessions) -> None:
    def spoil(frame: int, outputs: Outputs) -> None:
        outputs["next_bank.pointer_conditioning"][outputs["next_bank.pointer_frame"] != frame] ^= True

    assert failed(verified(sessions, spoil)) == ["track: next_bank.pointer_conditioning, other slots"]


def test_each_step_gets_its_synthetic_frame_its_prompt_and_the_references_bank(sessions: Sessions) -> None:
    verified(sessions)
    steps = sessions["track"].asked
    assert [int(step["frame_index"]) for step in steps] == list(range(FRAMES))
    assert {int(step["num_frames"]) for step in steps} == {FRAMES}
    expected = (seeded_frame(3, SIZE)[None] - np.float32(0.5)) / np.float32(0.5)
    np.testing.assert_array_equal(steps[3]["image"], expected)
    assert [step["point_labels"].tolist() for step in steps[:2]] == [[[1, -1, -1, -1]], [[-1, -1, -1, -1]]]
    assert steps[0]["point_coords"][0, 0].tolist() == [33, 45]
    assert all(step["attend_memory"].all() and not step["mask_prompt_valid"].any() for step in steps)
    assert [step["bank.memory_frame"][0, :4].tolist() for step in steps] == [
        [-1, -1, -1, -1],
        [0, -1, -1, -1],
        [0, 1, -1, -1],
        [0, 2, 1, -1],
    ]


def test_the_reference_takes_the_graphs_own_feature_maps(sessions: Sessions) -> None:
    def shift(frame: int, outputs: Outputs) -> None:
        outputs["tracker_neck/features"] += 0.5

    found = failed(verified(sessions, shift))
    assert "track: low_res_masks" in found
    assert "track: next_bank.memory" in found


def test_without_the_graphs_feature_maps_the_reference_encodes_the_frame_itself(sessions: Sessions) -> None:
    def fold(frame: int, outputs: Outputs) -> None:
        del outputs["tracker_neck/high_res_0"]
        outputs["tracker_neck/features"] += 0.5  # not looked at then

    assert failed(verified(sessions, fold)) == []


def test_each_output_is_given_its_worst_frame(sessions: Sessions) -> None:
    def spoil(frame: int, outputs: Outputs) -> None:
        outputs["object_score"] += {1: 0.1, 2: 0.3, 3: 0.2}.get(frame, 0.0)

    found = verified(sessions, spoil)
    assert failed(found) == ["track: object_score"]
    assert found["track: object_score"].largest_error == pytest.approx(0.3, rel=1e-2)  # of 1, as the score is smaller


@pytest.mark.parametrize("name", ["low_res_masks", "masks", "ious", "iou", "object_score", "object_pointer"])
def test_a_number_that_is_not_finite_fails(sessions: Sessions, name: str) -> None:
    def spoil(frame: int, outputs: Outputs) -> None:
        if frame == 3:
            outputs[name].flat[0] = np.nan

    assert f"track: {name}" in failed(verified(sessions, spoil))


def test_another_choice_of_mask_fails_at_any_tolerance(sessions: Sessions) -> None:
    def spoil(frame: int, outputs: Outputs) -> None:
        if frame == 2:
            outputs["mask_choice"] += 1

    assert failed(verified(sessions, spoil, tolerance=10.0)) == ["track: mask_choice"]


def test_a_frame_written_twice_or_not_at_all_is_found(sessions: Sessions) -> None:
    def twice(frame: int, outputs: Outputs) -> None:
        if frame == 2:
            outputs["next_bank.memory_frame"][0, -1] = 2

    with pytest.raises(VerificationError, match=r"next_bank\.memory: found float32 \[2, 8, 8, 8\]"):
        verified(sessions, twice)

    def never(frame: int, outputs: Outputs) -> None:
        if frame == 2:
            outputs["next_bank.pointer_frame"][:] = -1

    with pytest.raises(VerificationError, match=r"next_bank\.pointer: found float32 \[0, 32\], expected .* \[1, 32\]"):
        verified(sessions, never)


def test_memory_and_pointer_are_looked_for_in_the_slot_of_their_frame(sessions: Sessions) -> None:
    def spoil(frame: int, outputs: Outputs) -> None:
        if frame == 3:
            for kind in ("memory", "pointer"):
                slot = outputs[f"next_bank.{kind}_frame"][0] == 3
                outputs[f"next_bank.{kind}"][0, slot] += 1

    assert failed(verified(sessions, spoil)) == ["track: next_bank.pointer", "track: next_bank.memory"]


def flipped(outputs: Outputs, pixels: int) -> None:
    """Turn the pixels nearest to the threshold."""
    flat = outputs["masks"].reshape(-1)
    nearest = np.argsort(np.abs(flat))[:pixels]
    flat[nearest] *= -1


def test_a_pixel_on_the_edge_excuses_the_memory_of_a_frame_with_points_and_of_no_other(sessions: Sessions) -> None:
    def turned(only: int, pixels: int) -> Spoil:
        def spoil(frame: int, outputs: Outputs) -> None:
            if frame == only:
                outputs["next_bank.memory"][outputs["next_bank.memory_frame"] == frame] += 1
                flipped(outputs, pixels)

        return spoil

    assert failed(verified(sessions, turned(0, pixels=1), 0.1)) == []
    assert failed(verified(sessions, turned(0, pixels=0), 0.1)) == ["track: next_bank.memory"]
    assert failed(verified(sessions, turned(1, pixels=1), 0.1)) == ["track: next_bank.memory"]


def test_more_pixels_across_the_threshold_than_the_share_fail(sessions: Sessions) -> None:
    def turned(pixels: int) -> Spoil:
        def spoil(frame: int, outputs: Outputs) -> None:
            if frame == 1:
                flipped(outputs, pixels)

        return spoil

    assert 1 / SIZE**2 < MASK_SHARE < 2 / SIZE**2
    found = verified(sessions, turned(1), 0.1)
    assert failed(found) == []
    assert found[SHARE].largest_error == pytest.approx(1 / SIZE**2)
    assert failed(verified(sessions, turned(2), 0.1)) == [SHARE]


def test_the_first_frames_program_runs_frame_0_and_the_general_one_the_frames_after_it(sessions: Sessions) -> None:
    found = verified(sessions, names=("track", "track@first"))
    assert [int(step["frame_index"]) for step in sessions["track"].asked] == list(range(1, FRAMES))
    assert [int(step["frame_index"]) for step in sessions["track@first"].asked] == [0]
    assert {what.split(":")[0] for what in found} == {"track", "track@first"}
    assert failed(found) == []


@pytest.mark.parametrize(
    ("filled", "ran"),
    [
        ((1, 2), {"track@first": [0], "track@1": [1], "track@2": [2], "track": [3]}),
        ((2,), {"track@first": [0], "track@2": [1, 2], "track": [3]}),
        ((2, 4), {"track@first": [0], "track@2": [1, 2], "track@4": [3], "track": [3]}),
        ((3, 5), {"track@first": [0], "track@3": [1, 2, 3], "track@5": [3], "track": [3]}),
    ],
)
def test_each_frame_is_run_by_the_smallest_graph_that_may_and_every_graph_runs_one(
    sessions: Sessions, filled: tuple[int, ...], ran: dict[str, list[int]]
) -> None:
    found = verified(sessions, overrides=(f"programs.track.filled={list(filled)}",), names=tuple(ran))
    asked = {name: [int(step["frame_index"]) for step in sessions[name].asked] for name in ran}
    assert asked == ran
    for k in filled:
        assert all((step["bank.memory_frame"][:, k:] == -1).all() for step in sessions[f"track@{k}"].asked)
    assert {what.split(":")[0] for what in found} == set(ran)
    assert failed(found) == []


def test_every_object_of_a_program_is_held_against_the_one_reference(sessions: Sessions) -> None:
    two = ("programs.track.objects=2",)
    assert failed(verified(sessions, overrides=two)) == []

    def spoil(frame: int, outputs: Outputs) -> None:
        if frame == 1:
            outputs["object_score"][1] += 100

    assert failed(verified(sessions, spoil, overrides=two)) == ["track: object_score"]
