"""The runtime takes a bank as the manifest lists it: tensors of any name, rank and dtype, all treated alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.bank import Bank, BankError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.prompts import Box, Points, Prompts
from samonnx.runtime.tracker import Tracker
from tests.runtime.hand_made_artifact import build, clip
from tests.runtime.test_tracker import PlainLoop, assert_equal

MOTION = {
    "bank.kalman_mean": ("float32", (8,)),
    "bank.kalman_covariance": ("float32", (8, 8)),
    "bank.stable_frames": ("int32", ()),
    "bank.memory_accepted": ("bool", (3,)),
    "bank.pointer_accepted": ("bool", (3,)),
}


def click(x: float, y: float) -> Prompts:
    return Prompts(points=Points(((x, y),), (1,)))


def test_every_tensor_of_the_bank_changes_the_logits(motion_artifact: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    loop = PlainLoop(motion_artifact)
    for t, frame in enumerate(clip(3)):
        loop.step(frame, {0: click(5, 6), 1: click(30, 9)} if t == 0 else {})
    given = loop.inputs(clip(4)[3], {})
    expected = loop.session.run(given)["low_res_masks"]
    for name in MOTION:
        emptied = loop.session.run(given | {name: np.zeros_like(given[name])})
        assert not np.array_equal(emptied["low_res_masks"], expected), name


def test_bound_buffers_give_the_same_as_a_plain_loop(motion_artifact: Path) -> None:
    prompts = {0: {0: click(5, 6), 1: Prompts(boxes=(Box(3, 3, 20, 20),))}}
    tracker, loop = Tracker(motion_artifact), PlainLoop(motion_artifact)
    for frame, result in zip(clip(9), tracker.track(clip(9), prompts), strict=True):
        expected = loop.step(frame, prompts.get(result.frame_index, {}))
        np.testing.assert_array_equal(result.low_res_logits, expected["low_res_masks"][:, 0])
    bank = tracker.bank()
    for name, tensor in bank.tensors.items():
        np.testing.assert_array_equal(tensor, loop.bank.tensors[name], err_msg=name)
        assert tensor.dtype == loop.bank.tensors[name].dtype
    assert {name: (str(bank.tensors[name].dtype), bank.tensors[name].shape[1:]) for name in MOTION} == MOTION
    assert bank.tensors["bank.stable_frames"].tolist() == [9, 9]


@pytest.mark.parametrize("cut", [1, 4])
def test_saving_and_restoring_mid_clip_changes_nothing(motion_artifact: Path, tmp_path: Path, cut: int) -> None:
    frames, prompts = clip(8), {0: {4: click(5, 6), 2: click(30, 9)}, 2: {9: click(20, 20)}}
    whole = list(Tracker(motion_artifact).track(frames, prompts))
    before, after = Tracker(motion_artifact), Tracker(motion_artifact)
    for frame, index in zip(frames[:cut], range(cut), strict=True):
        before.step(frame, prompts.get(index))
    before.bank().save(tmp_path / "bank.npz")
    after.restore(Bank.load(tmp_path / "bank.npz", after.manifest))
    for one, other in zip(after.track(frames[cut:], prompts), whole[cut:], strict=True):
        assert_equal(one, other)


def test_graphs_for_a_bank_that_holds_little_see_all_of_its_other_tensors(
    motion_artifact: Path, tmp_path: Path
) -> None:
    build(tmp_path / "general", motion=True, first=False)
    prompts = {0: {1: click(5, 6)}, 1: {1: click(9, 9), 2: click(20, 9)}, 3: {3: click(8, 8)}}
    small, general = Tracker(motion_artifact), Tracker(tmp_path / "general")
    opened = set()
    for one, other in zip(small.track(clip(7), prompts), general.track(clip(7), prompts), strict=True):
        assert_equal(one, other)
        opened |= set(small.open_programs)
    assert opened == {"track@first", "track@2", "track"}


def test_an_object_that_joins_later_has_nothing_in_any_tensor(motion_artifact: Path) -> None:
    frames = clip(7)
    joined = list(Tracker(motion_artifact).track(frames, {0: {1: click(5, 6)}, 3: {2: click(20, 9)}}))
    alone = list(Tracker(motion_artifact).track(frames, {3: {2: click(20, 9)}}))
    for one, other in zip(joined[3:], alone[3:], strict=True):
        np.testing.assert_array_equal(one.low_res_logits[1], other.low_res_logits[0])


def test_a_correction_goes_back_to_the_whole_bank_before_the_frame(motion_artifact: Path) -> None:
    corrected, at_once = Tracker(motion_artifact), Tracker(motion_artifact)
    for tracker in (corrected, at_once):
        tracker.step(clip(1)[0], {1: click(5, 6)})
    corrected.step(clip(2)[1])
    corrected.correct({2: click(20, 9)})
    at_once.step(clip(2)[1], {2: click(20, 9)})
    for name, tensor in corrected.bank().tensors.items():
        np.testing.assert_array_equal(tensor, at_once.bank().tensors[name], err_msg=name)


@pytest.mark.parametrize("name", MOTION)
def test_a_bank_without_one_of_the_tensors_or_with_another_shape_is_refused(motion_artifact: Path, name: str) -> None:
    bank = Bank.empty(Manifest.load(motion_artifact))
    rest = {other: tensor for other, tensor in bank.tensors.items() if other != name}
    with pytest.raises(BankError, match=f"it differs in {name}"):
        Tracker(motion_artifact).restore(replace(bank, tensors=rest))
    with pytest.raises(BankError, match=f"{name}: expected"):
        Tracker(motion_artifact).restore(replace(bank, tensors={**rest, name: bank.tensors[name][..., None]}))


def test_rows_are_chosen_and_joined_in_every_tensor(motion_artifact: Path) -> None:
    tracker = Tracker(motion_artifact)
    for t, frame in enumerate(clip(4)):
        tracker.step(frame, {5: click(5, 6)} if t == 0 else {7: click(30, 9)} if t == 2 else None)
    bank = tracker.bank()
    swapped = bank.select([7]).with_object_rows(bank.select([5]))
    for name, tensor in swapped.tensors.items():
        np.testing.assert_array_equal(tensor, bank.tensors[name][::-1], err_msg=name)
