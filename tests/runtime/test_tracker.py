from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from samonnx.runtime.bank import Bank, BankError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import ObjectGroup
from samonnx.runtime.preprocessing import FrameError, network_image, resize_logits
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts, point_places
from samonnx.runtime.session import Array, Session, SessionError
from samonnx.runtime.tracker import FrameResult, Tracker, TrackerError
from tests.runtime.hand_made_artifact import LOW, PLACES, SIZE, build, clip

WIDTH, HEIGHT = 44, 30


def click(x: float, y: float, label: int = 1) -> Prompts:
    return Prompts(points=Points(((x, y),), (label,)))


def assert_equal(one: FrameResult, other: FrameResult) -> None:
    assert (one.frame_index, one.objects, one.prompted) == (other.frame_index, other.objects, other.prompted)
    for name in ("masks", "low_res_logits", "object_scores", "ious", "iou", "mask_choice", "boxes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


class PlainLoop:
    """The oracle: `track` through Session.run with a Bank passed by hand; all rows used, no `track@first`."""

    def __init__(self, folder: Path, num_frames: int = 0) -> None:
        self.session = Session(folder, "track")
        self.bank = Bank.empty(self.session.manifest)
        self.num_frames = num_frames

    def inputs(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, Prompts]) -> dict[str, Array]:
        manifest = self.session.manifest
        given: dict[str, Array] = {p.name: np.zeros(p.sides(), dtype=p.dtype) for p in self.session.program.inputs}
        given |= self.bank.tensors
        given["image"] = network_image(frame, manifest.seeing())
        given["frame_index"] = np.array(self.bank.next_frame, dtype=np.int32)
        given["num_frames"] = np.array(self.num_frames, dtype=np.int32)
        given["attend_memory"] = np.array([row not in prompts for row in range(manifest.tracking().objects)])
        given["point_labels"] = np.full((manifest.tracking().objects, PLACES), -1, dtype=np.int32)
        for row, prompt in prompts.items():
            places = point_places(prompt, width=WIDTH, height=HEIGHT, size=SIZE, places=PLACES)
            given["point_coords"][row], given["point_labels"][row] = places
        return given

    def step(self, frame: npt.NDArray[np.uint8], prompts: Mapping[int, Prompts]) -> dict[str, Array]:
        outputs = self.session.run(self.inputs(frame, prompts))
        self.bank = Bank.from_outputs(self.session.manifest, outputs, next_frame=self.bank.next_frame + 1)
        return outputs


def test_bound_buffers_give_the_same_as_a_plain_loop_over_the_session(artifact: Path) -> None:
    prompts = {0: {0: click(5, 6), 1: Prompts(boxes=(Box(3, 3, 20, 20),))}}
    tracker, loop = Tracker(artifact, num_frames=9), PlainLoop(artifact, num_frames=9)
    for frame, result in zip(clip(9), tracker.track(clip(9), prompts), strict=True):
        expected = loop.step(frame, prompts.get(result.frame_index, {}))
        np.testing.assert_array_equal(result.low_res_logits, expected["low_res_masks"][:, 0])
        np.testing.assert_array_equal(result.object_scores, expected["object_score"][:, 0])
        np.testing.assert_array_equal(result.ious, expected["ious"])
        np.testing.assert_array_equal(result.iou, expected["iou"][:, 0])
        np.testing.assert_array_equal(result.mask_choice, expected["mask_choice"])
    for name, tensor in tracker.bank().tensors.items():
        np.testing.assert_array_equal(tensor, loop.bank.tensors[name])


def test_the_bank_stays_in_two_sets_of_buffers(artifact: Path) -> None:
    """Nothing is allocated or copied for the bank between frames: the same two arrays take turns."""
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    seen = []
    for frame in clip(6)[1:]:
        tracker.step(frame)
        seen.append(tracker._seating.groups[0].bank_rows()["bank.memory"].ctypes.data)
    assert seen[0] != seen[1]
    assert seen == [seen[0], seen[1]] * 2 + [seen[0]]


def test_masks_are_low_resolution_logits_at_video_size_above_zero(artifact: Path) -> None:
    result = Tracker(artifact).step(clip(1)[0], {1: click(5, 6)})
    assert result.masks.shape == (1, HEIGHT, WIDTH)
    assert result.low_res_logits.shape == (1, LOW, LOW)
    assert 0 < result.masks.sum() < result.masks.size
    np.testing.assert_array_equal(result.masks, resize_logits(result.low_res_logits, width=WIDTH, height=HEIGHT) > 0)
    np.testing.assert_array_equal(result.logits() > 0, result.masks)


def test_an_earlier_result_is_not_overwritten_by_later_frames(artifact: Path) -> None:
    tracker = Tracker(artifact)
    first = tracker.step(clip(1)[0], {1: click(5, 6)})
    kept = first.low_res_logits.copy()
    for frame in clip(4)[1:]:
        tracker.step(frame)
    np.testing.assert_array_equal(first.low_res_logits, kept)


@pytest.mark.parametrize("others", [(3,), (3, 8), (3, 8, 1, 9)])
def test_an_object_in_company_is_tracked_as_it_is_alone(artifact: Path, others: tuple[int, ...]) -> None:
    prompts = {number: click(3.0 + 4 * number, 10) for number in (5, *others)}
    alone = list(Tracker(artifact).track(clip(6), {0: {5: prompts[5]}}))
    together = list(Tracker(artifact).track(clip(6), {0: prompts}))
    for one, many in zip(alone, together, strict=True):
        assert many.objects == (5, *others)
        np.testing.assert_array_equal(one.low_res_logits[0], many.low_res_logits[0])
        np.testing.assert_array_equal(one.ious[0], many.ious[0])


def test_a_graph_with_one_row_tracks_three_objects_like_one_with_two(artifact: Path, single_artifact: Path) -> None:
    prompts = {0: {1: click(5, 6)}, 2: {2: click(20, 9), 3: click(30, 20)}}
    for one, two in zip(
        Tracker(single_artifact).track(clip(6), prompts), Tracker(artifact).track(clip(6), prompts), strict=True
    ):
        assert_equal(one, two)


def test_an_object_added_later_starts_with_an_empty_bank_whatever_its_row_held(artifact: Path) -> None:
    frames = clip(7)
    joined = list(Tracker(artifact).track(frames, {0: {1: click(5, 6)}, 3: {2: click(20, 9)}}))
    alone = list(Tracker(artifact).track(frames, {3: {2: click(20, 9)}}))
    for one, other in zip(joined[3:], alone[3:], strict=True):
        assert one.objects == (1, 2)
        np.testing.assert_array_equal(one.low_res_logits[1], other.low_res_logits[0])


def test_frames_before_the_first_prompt_have_no_objects_and_cost_nothing(artifact: Path) -> None:
    results = list(Tracker(artifact).track(clip(3), {2: {1: click(5, 6)}}))
    assert [result.objects for result in results] == [(), (), (1,)]
    assert results[0].masks.shape == (0, HEIGHT, WIDTH)
    assert results[0].low_res_logits.shape == (0, LOW, LOW)
    assert results[0].ious.shape == (0, 3)
    assert (results[0].iou.shape, results[0].boxes.shape) == ((0,), (0, 4))
    assert [result.frame_index for result in results] == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_saving_and_restoring_mid_clip_changes_nothing(artifact: Path, tmp_path: Path, cut: int) -> None:
    frames = clip(9)
    prompts = {0: {4: click(5, 6), 2: click(30, 9)}, 2: {9: click(20, 20)}}
    whole = list(Tracker(artifact).track(frames, prompts))
    before = Tracker(artifact)
    for frame, index in zip(frames[:cut], range(cut), strict=True):
        before.step(frame, prompts.get(index))
    before.bank().save(tmp_path / "bank.npz")
    after = Tracker(artifact)
    after.restore(Bank.load(tmp_path / "bank.npz", after.manifest))
    assert after.next_frame == cut
    for one, other in zip(after.track(frames[cut:], prompts), whole[cut:], strict=True):
        assert_equal(one, other)


def test_a_bank_taken_is_not_changed_by_tracking_on(artifact: Path) -> None:
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    bank = tracker.bank()
    kept = bank.clone()
    for frame in clip(5)[1:]:
        tracker.step(frame)
    for name, tensor in bank.tensors.items():
        np.testing.assert_array_equal(tensor, kept.tensors[name])


def test_restoring_some_of_the_objects_tracks_those(artifact: Path) -> None:
    frames = clip(5)
    tracker = Tracker(artifact)
    tracker.step(frames[0], {n: click(3.0 * n, 6) for n in (1, 2, 3)})
    bank = tracker.bank()
    full = [tracker.step(frame) for frame in frames[1:]]
    tracker.restore(bank.select([3, 1]))
    for frame, expected in zip(frames[1:], full, strict=True):
        np.testing.assert_array_equal(tracker.step(frame).low_res_logits, expected.low_res_logits[[2, 0]])


def test_restoring_an_empty_bank_tracks_nothing(artifact: Path) -> None:
    tracker = Tracker(artifact)
    tracker.restore(Bank.empty(tracker.manifest))
    assert tracker.objects == ()
    assert tracker.bank().objects == ()


def test_a_bank_from_another_recipe_is_refused_and_the_tracker_goes_on(artifact: Path, single_artifact: Path) -> None:
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    other = Bank.empty(Manifest.load(single_artifact))
    with pytest.raises(BankError, match="the bank was made by recipe 'hand_made'"):
        tracker.restore(other)
    assert tracker.step(clip(2)[1]).objects == (1,)


def test_a_reset_tracker_is_as_new(artifact: Path) -> None:
    tracker = Tracker(artifact)
    first = list(tracker.track(clip(4), {0: {1: click(5, 6)}}))
    tracker.reset()
    for one, other in zip(tracker.track(clip(4), {0: {1: click(5, 6)}}), first, strict=True):
        assert_equal(one, other)


def test_a_correction_gets_the_earlier_logits_clamped_and_no_memory(artifact: Path) -> None:
    """The oracle runs the frame twice from the same bank: as it is, then with the click and the clamped logits."""
    tracker, loop = Tracker(artifact), PlainLoop(artifact)
    frames, start = clip(6), {0: click(5, 6), 1: click(30, 9)}
    tracker.step(frames[0], start)
    loop.step(frames[0], start)
    tracker.step(frames[1])
    before = loop.bank
    seen = loop.step(frames[1], {})
    result = tracker.correct({0: click(9, 9, label=0)})
    loop.bank = before
    given = loop.inputs(frames[1], {0: click(9, 9, label=0)})
    given["prev_logits"][0] = np.clip(seen["low_res_masks"][0], -32, 32)
    given["prev_logits_valid"][0] = True
    expected = loop.session.run(given)
    loop.bank = Bank.from_outputs(tracker.manifest, expected, next_frame=2)
    assert result.frame_index == 1
    assert result.prompted == (0,)
    np.testing.assert_array_equal(result.low_res_logits, expected["low_res_masks"][:, 0])
    np.testing.assert_array_equal(result.low_res_logits[1], seen["low_res_masks"][1, 0])
    for frame in frames[2:]:
        np.testing.assert_array_equal(tracker.step(frame).low_res_logits, loop.step(frame, {})["low_res_masks"][:, 0])


def test_large_logits_are_clamped_to_32_for_a_correction(tmp_path: Path) -> None:
    folder = tmp_path / "loud"
    build(folder)
    ramp = np.frombuffer((folder / "weights.bin").read_bytes(), dtype=np.float32)
    (folder / "weights.bin").write_bytes((ramp * 1000).tobytes())
    tracker = Tracker(folder)
    seen = tracker.step(clip(1)[0], {1: click(5, 6)})
    assert np.abs(seen.low_res_logits).max() > 100
    corrected = tracker.correct({1: click(5, 6)})
    np.testing.assert_allclose(
        corrected.low_res_logits - seen.low_res_logits,
        np.clip(seen.low_res_logits, -32, 32) * np.float32(0.1),
        atol=1e-4,
    )


def test_a_corrected_frame_is_held_once_as_a_conditioning_frame(artifact: Path) -> None:
    tracker = Tracker(artifact)
    for index, frame in enumerate(clip(3)):
        tracker.step(frame, {1: click(5, 6)} if index == 0 else None)
    assert tracker.bank().frames() == ((0, 1, 2),)
    tracker.correct({1: click(9, 9)})
    bank = tracker.bank()
    assert bank.frames() == ((1, 2),)  # the one conditioning slot holds frame 2 now, and the recent slot only frame 1
    assert bank.tensors["bank.memory_frame"][0, 0] == 2
    assert bank.tensors["bank.memory_conditioning"][0].tolist() == [True, False, False]


def test_a_correction_may_be_repeated_and_takes_the_latest_logits(artifact: Path) -> None:
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    first = tracker.correct({1: click(9, 9)})
    second = tracker.correct({1: click(9, 9)})
    assert not np.array_equal(first.low_res_logits, second.low_res_logits)
    np.testing.assert_allclose(
        second.low_res_logits - first.low_res_logits,
        0.1 * (first.low_res_logits - Tracker(artifact).step(clip(1)[0], {1: click(5, 6)}).low_res_logits),
        atol=1e-5,
    )


def test_correcting_with_a_mask_ignores_the_earlier_logits(artifact: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[4:12, 4:20] = True
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    corrected = tracker.correct({1: Prompts(mask=MaskPrompt(mask))})
    direct = Tracker(artifact).step(clip(1)[0], {1: Prompts(mask=MaskPrompt(mask))})
    np.testing.assert_array_equal(corrected.low_res_logits, direct.low_res_logits)


def test_an_object_may_be_added_on_the_frame_stepped_last(artifact: Path) -> None:
    """Whether it shares a group that has had the frame, or needs one of its own."""
    frames = clip(5)
    tracker = Tracker(artifact)
    tracker.step(frames[0], {1: click(5, 6)})
    tracker.step(frames[1])
    tracker.correct({2: click(20, 9), 3: click(30, 20)})
    at_once = Tracker(artifact)
    at_once.step(frames[0], {1: click(5, 6)})
    at_once.step(frames[1], {2: click(20, 9), 3: click(30, 20)})
    for frame in frames[2:]:
        assert_equal(tracker.step(frame), at_once.step(frame))


def test_track_corrects_an_object_that_is_already_tracked(artifact: Path) -> None:
    frames = clip(4)
    whole = list(Tracker(artifact).track(frames, {0: {1: click(5, 6)}, 2: {1: click(9, 9), 2: click(30, 20)}}))
    tracker = Tracker(artifact)
    tracker.step(frames[0], {1: click(5, 6)})
    tracker.step(frames[1])
    tracker.step(frames[2], {2: click(30, 20)})
    corrected = tracker.correct({1: click(9, 9)})
    np.testing.assert_array_equal(whole[2].low_res_logits, corrected.low_res_logits)
    assert set(whole[2].prompted) == {1, 2}
    assert_equal(whole[3], tracker.step(frames[3]))


def test_a_prompted_frame_attends_to_memory_only_when_asked(artifact: Path) -> None:
    frames = clip(2)
    results = []
    for use_memory in (False, True):
        tracker = Tracker(artifact)
        tracker.step(frames[0], {1: click(5, 6)})
        again = Prompts(points=Points(((9.0, 9.0),), (1,)), use_memory=use_memory)
        results.append(tracker.step(frames[1], {1: again}).low_res_logits)
    alone = Tracker(artifact)
    alone.step(frames[0])
    np.testing.assert_array_equal(results[0], alone.step(frames[1], {1: click(9, 9)}).low_res_logits)
    assert not np.array_equal(results[0], results[1])


def test_the_first_frame_needs_only_the_program_for_first_frames(artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "first"))
    (folder / "track.ort-cpu.onnx").unlink()
    tracker = Tracker(folder)
    expected = Tracker(artifact).step(clip(1)[0], {1: click(5, 6)})
    assert_equal(tracker.step(clip(1)[0], {1: click(5, 6)}), expected)
    with pytest.raises(SessionError, match=r"track\.ort-cpu\.onnx is missing"):
        tracker.step(clip(2)[1])


def test_without_a_program_for_first_frames_the_numbers_are_the_same(artifact: Path, tmp_path: Path) -> None:
    build(tmp_path / "general", first=False)
    prompts = {0: {1: click(5, 6)}, 2: {2: click(20, 9), 3: click(8, 8)}}
    general = Tracker(tmp_path / "general").track(clip(5), prompts)
    for one, other in zip(general, Tracker(artifact).track(clip(5), prompts), strict=True):
        assert_equal(one, other)


def test_num_frames_reaches_the_graph(artifact: Path) -> None:
    known = list(Tracker(artifact, num_frames=5).track(clip(3), {0: {1: click(5, 6)}}))
    unknown = list(Tracker(artifact).track(clip(3), {0: {1: click(5, 6)}}))
    assert not np.array_equal(known[2].low_res_logits, unknown[2].low_res_logits)


def test_frames_of_another_size_are_refused_and_tracking_goes_on(artifact: Path) -> None:
    frames = clip(3)
    tracker = Tracker(artifact)
    tracker.step(frames[0], {1: click(5, 6)})
    with pytest.raises(FrameError, match="frame 1 is 20 x 10 pixels, the frames before it 44 x 30"):
        tracker.step(clip(1, height=10, width=20)[0])
    other = Tracker(artifact)
    other.step(frames[0], {1: click(5, 6)})
    assert_equal(tracker.step(frames[1]), other.step(frames[1]))


def test_a_bad_prompt_names_the_object_and_changes_nothing(artifact: Path) -> None:
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    with pytest.raises(PromptError, match=r"object 8: point \(90, 6\) lies outside the frame, which is 44 x 30"):
        tracker.step(clip(2)[1], {7: click(1, 1), 8: click(90, 6)})
    assert tracker.objects == (1,)
    assert tracker.next_frame == 1
    with pytest.raises(PromptError, match="object 1: 5 points on one object, but the graph has 4 prompt places"):
        tracker.correct({1: Prompts(points=Points(((1.0, 1.0),) * 5, (1,) * 5))})
    assert tracker.step(clip(2)[1]).objects == (1,)


def test_a_prompt_beyond_the_clip_is_an_error_at_its_end(artifact: Path) -> None:
    with pytest.raises(PromptError, match="there is a prompt on frame 8, but the clip has 3 frames"):
        list(Tracker(artifact).track(clip(3), {0: {1: click(5, 6)}, 8: {1: click(5, 6)}}))


def test_correcting_before_any_frame_or_after_restoring_is_an_error(artifact: Path) -> None:
    tracker = Tracker(artifact)
    with pytest.raises(TrackerError, match="there is no frame to correct: step a frame first"):
        tracker.correct({1: click(5, 6)})
    tracker.step(clip(1)[0], {1: click(5, 6)})
    tracker.restore(tracker.bank())
    with pytest.raises(TrackerError, match="a saved bank does not hold one"):
        tracker.correct({1: click(5, 6)})


def test_an_engine_that_fails_leaves_no_half_added_object(artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "broken"))
    tracker = Tracker(folder)
    tracker.step(clip(1)[0], {1: click(5, 6)})
    (folder / "track.ort-cpu.onnx").unlink()
    with pytest.raises(SessionError, match="is missing"):
        tracker.step(clip(3)[2], {2: click(5, 6), 3: click(5, 6)})  # another image under the same index
    assert tracker.objects == (1,)
    shutil.copy(artifact / "track.ort-cpu.onnx", folder)
    other = Tracker(artifact)
    other.step(clip(1)[0], {1: click(5, 6)})
    assert_equal(tracker.step(clip(2)[1]), other.step(clip(2)[1]))


def test_a_correction_that_fails_leaves_the_frame_as_it_was(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = clip(4)
    tracker, other = Tracker(artifact), Tracker(artifact)
    for frame, prompts in zip(frames[:2], ({1: click(5, 6)}, None), strict=True):
        tracker.step(frame, prompts)
        other.step(frame, prompts)

    def fails(group: ObjectGroup, session: Session) -> None:
        raise SessionError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectGroup, "run", fails)
        with pytest.raises(SessionError, match="out of memory"):
            tracker.correct({1: click(9, 9), 2: click(1, 1)})
    assert tracker.bank().frames() == other.bank().frames()
    for frame in frames[2:]:
        assert_equal(tracker.step(frame), other.step(frame))


def test_mask_prompts_are_refused_by_a_recipe_without_them(artifact: Path, tmp_path: Path) -> None:
    tracker = Tracker(artifact)
    program = tracker.manifest.program("track")
    object.__setattr__(program, "inputs", tuple(port for port in program.inputs if "mask_prompt" not in port.name))
    mask = MaskPrompt(np.ones((HEIGHT, WIDTH), dtype=bool))
    with pytest.raises(PromptError, match="'hand_made' was compiled without mask prompts"):
        tracker.step(clip(1)[0], {1: Prompts(mask=mask)})


def test_an_unknown_kind_of_frames_is_an_error(artifact: Path) -> None:
    with pytest.raises(TrackerError, match="kind is 'stream'; expected 'video' or 'images'"):
        Tracker(artifact, kind="stream")
