"""The eager reference: which frames it attends, what it remembers, when it takes which path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samonnx.models.reference_tracker import (
    FramePrompt,
    FrameRecord,
    ImageFeatures,
    ReferenceTracker,
    closest_conditioning_frames,
    encode_image,
    run_clip,
)
from samonnx.models.tracker import FrameOutput
from samonnx.seeded import seeded_frame
from tests.tiny_model import tiny_model

SIZE, GRID, LOW, WIDTH, MEMORY = 112, 8, 32, 32, 8


def image(index: int) -> Tensor:
    return (torch.from_numpy(seeded_frame(index, SIZE))[None] - 0.5) / 0.5


def features(index: int) -> ImageFeatures:
    with torch.inference_mode():
        return encode_image(tiny_model(), image(index))


def click(x: float = 33.0, y: float = 45.0) -> FramePrompt:
    return FramePrompt(torch.tensor([[x, y]]), torch.tensor([1], dtype=torch.int32))


def box() -> FramePrompt:
    return FramePrompt(torch.tensor([[20.0, 30.0], [60.0, 70.0]]), torch.tensor([2, 3], dtype=torch.int32))


def half_mask() -> Tensor:
    mask = torch.zeros(SIZE, SIZE)
    mask[: SIZE // 2] = 1
    return mask


def step(
    tracker: ReferenceTracker, frame: int, prompt: FramePrompt | None = None, attend_memory: bool = True
) -> FrameRecord:
    with torch.inference_mode():
        return tracker.step(frame, features(frame), prompt, attend_memory)


def tracker_of(conditioning: int = 1, recent: int = 6, num_frames: int = 0, max_pointers: int = 16) -> ReferenceTracker:
    return ReferenceTracker(tiny_model(), conditioning, recent, num_frames, max_pointers)


def blank(number: float = 0.0) -> FrameRecord:
    """A record that shows its number: memory and pointer hold it everywhere."""
    low, full = torch.zeros(1, 1, LOW, LOW), torch.zeros(1, 1, SIZE, SIZE)
    output = FrameOutput(
        low, full, torch.zeros(1, 3), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int32), torch.ones(1, 1),
        torch.full((1, WIDTH), number),
    )  # fmt: skip
    return FrameRecord(output, torch.full((1, MEMORY, GRID, GRID), number), None)


def remembering(tracker: ReferenceTracker, conditioning: list[int], others: list[int]) -> ReferenceTracker:
    tracker.conditioning = {t: blank(t) for t in conditioning}
    tracker.others = {t: blank(t) for t in others}
    return tracker


# Which frames are attended


@pytest.mark.parametrize(
    ("frames", "limit", "expected"),
    [
        ([], 4, []),
        ([3], 4, [3]),
        ([2, 7, 14, 11], 1, [7]),
        ([2, 7, 14, 11], 2, [7, 11]),
        ([14, 11, 7, 2], 3, [7, 11, 14]),
        ([1, 9, 19, 11], 4, [9, 11, 1, 19]),
        ([10, 12], 2, [10, 12]),
        ([10, 12, 3], 2, [3, 10]),
    ],
)
def test_conditioning_frames_come_nearest_before_nearest_after_then_by_distance(
    frames: list[int], limit: int, expected: list[int]
) -> None:
    assert closest_conditioning_frames(10, frames, limit) == expected


def test_recent_frames_are_those_within_the_window_that_exist_oldest_first() -> None:
    tracker = remembering(tracker_of(recent=4), [0], [5, 7, 9, 3, 10, 11])
    assert tracker.memory_frames(10) == ([0], [7, 9])


def test_a_recent_frame_that_is_a_chosen_conditioning_frame_is_used_once() -> None:
    tracker = remembering(tracker_of(conditioning=2), [0, 9], [7, 8])
    assert tracker.memory_frames(10) == ([9, 0], [7, 8])
    assert tracker.pointer_frames(10) == [9, 0, 8, 7]


def test_a_conditioning_frame_that_is_left_out_counts_as_an_ordinary_recent_one() -> None:
    tracker = remembering(tracker_of(conditioning=1), [0, 8, 9], [7])
    assert tracker.memory_frames(10) == ([9], [7, 8])
    assert tracker.pointer_frames(10) == [9, 8, 7, 0]


def test_a_later_conditioning_frame_lends_its_map_but_not_its_pointer() -> None:
    tracker = remembering(tracker_of(conditioning=2), [2, 15], [9])
    assert tracker.memory_frames(10) == ([2, 15], [9])
    assert tracker.pointer_frames(10) == [2, 9]


@pytest.mark.parametrize(
    ("num_frames", "max_pointers", "farthest"), [(0, 16, 15), (40, 16, 15), (5, 16, 4), (0, 4, 3), (3, 4, 2)]
)
def test_pointers_reach_back_one_less_than_the_clip_or_the_limit(
    num_frames: int, max_pointers: int, farthest: int
) -> None:
    tracker = remembering(tracker_of(num_frames=num_frames, max_pointers=max_pointers), [0], list(range(1, 30)))
    assert tracker.pointer_frames(30) == [0, *range(29, 29 - farthest, -1)]


def test_attention_gets_maps_ages_and_pointers_in_that_order() -> None:
    tracker = remembering(tracker_of(conditioning=1, recent=3), [0], [17, 19])
    memory, position, pointer, pointer_position = tracker.memory_inputs(20)
    assert memory.shape == position.shape == (1, 3, GRID * GRID, MEMORY)
    assert memory[0, :, 0, 0].tolist() == [0, 17, 19]
    model = tiny_model().tracker
    assert torch.equal(position[0], model.memory_position(torch.tensor([6, 2, 0])))
    assert pointer.shape == pointer_position.shape == (1, 12, MEMORY)
    assert pointer[0, ::4, 0].tolist() == [0, 19, 17]
    distance = torch.tensor([[20, 1, 3]], dtype=torch.int32)
    assert torch.equal(pointer_position, model.pointer_position(distance, torch.tensor(15)))


def test_a_clip_of_one_frame_has_no_pointers_to_attend_but_those_of_prompts() -> None:
    tracker = remembering(tracker_of(num_frames=1), [0], [])
    _, _, pointer, position = tracker.memory_inputs(0)
    assert pointer.shape == (1, 4, MEMORY)
    assert torch.isfinite(position).all()


# What a step does


def test_a_first_frame_attends_nothing_and_becomes_a_conditioning_frame() -> None:
    tracker = tracker_of()
    record = step(tracker, 0, click())
    assert record.conditioned is None
    assert (list(tracker.conditioning), list(tracker.others)) == ([0], [])
    assert record.memory.shape == (1, MEMORY, GRID, GRID)
    assert tracker.record(0) is record


def test_a_later_frame_without_prompt_attends_memory_and_is_an_ordinary_one() -> None:
    tracker = tracker_of()
    step(tracker, 0, click())
    record = step(tracker, 1)
    assert record.conditioned is not None
    assert (list(tracker.conditioning), list(tracker.others)) == ([0], [1])


def test_a_prompted_frame_may_be_kept_from_attending_memory() -> None:
    tracker = tracker_of()
    step(tracker, 0, click())
    assert step(tracker, 1, click(), attend_memory=False).conditioned is None
    assert list(tracker.conditioning) == [0, 1]


def test_a_correction_replaces_the_frames_ordinary_record() -> None:
    tracker = tracker_of()
    step(tracker, 0, click())
    before = step(tracker, 1)
    after = step(tracker, 1, click(60, 60), attend_memory=False)
    assert (list(tracker.conditioning), list(tracker.others)) == ([0, 1], [])
    assert tracker.record(1) is after
    assert not torch.equal(after.output.masks, before.output.masks)


def test_earlier_logits_given_with_a_correction_change_what_is_decoded() -> None:
    tracker = tracker_of()
    logits = step(tracker, 0, click()).output.low_res_masks[0, 0].clamp(-32, 32)
    prompt = click(60, 60)
    with_logits = FramePrompt(prompt.coords, prompt.labels, None, logits)
    one, other = (step(tracker_of(), 0, p).output.object_score for p in (prompt, with_logits))
    assert not torch.equal(one, other)


def test_a_mask_prompt_is_the_output_and_attends_nothing() -> None:
    tracker = tracker_of()
    step(tracker, 0, click())
    record = step(tracker, 1, FramePrompt(mask=half_mask()))
    assert record.conditioned is None
    assert torch.equal(record.output.masks[0, 0], half_mask() * 20 - 10)
    assert record.output.mask_choice.tolist() == [-1]
    assert list(tracker.conditioning) == [0, 1]


def test_a_masks_memory_is_not_thresholded() -> None:
    record = step(tracker_of(), 0, FramePrompt(mask=half_mask()))
    with torch.inference_mode():
        soft, hard = (
            tiny_model().tracker.encode_memory(
                features(0).features, record.output.masks, record.output.object_score, torch.tensor([points])
            )
            for points in (False, True)
        )
    assert torch.equal(record.memory, soft)
    assert not torch.equal(record.memory, hard)


def test_a_mask_silences_points_given_with_it() -> None:
    alone, both = (
        step(tracker_of(), 0, prompt).output.pointer
        for prompt in (FramePrompt(mask=half_mask()), FramePrompt(click().coords, click().labels, half_mask()))
    )
    assert torch.equal(alone, both)


def test_a_click_chooses_among_three_masks_and_a_box_does_not() -> None:
    assert step(tracker_of(), 0, click()).output.mask_choice.item() in (0, 1, 2)
    without_fallback = tiny_model("pins.tracker.sam_mask_decoder.stability_fallback=false")
    assert step(ReferenceTracker(without_fallback, 1, 6, 0), 0, box()).output.mask_choice.item() == -1


def test_a_prompt_is_given_by_points_or_by_a_mask() -> None:
    logits_alone = FramePrompt(prev_logits=torch.zeros(LOW, LOW))
    assert [p.is_given for p in (FramePrompt(), click(), FramePrompt(mask=half_mask()), logits_alone)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_clip_is_the_same_as_its_steps() -> None:
    with torch.inference_mode():
        records = run_clip(tiny_model(), [image(t) for t in range(3)], {0: click()}, 1, 6)
    tracker = tracker_of(num_frames=3)
    stepped = [step(tracker, t, click() if t == 0 else None) for t in range(3)]
    assert all(torch.equal(a.memory, b.memory) for a, b in zip(records, stepped, strict=True))


def test_features_of_an_image_are_the_necks_levels_with_the_decoders_projections() -> None:
    model = tiny_model()
    with torch.inference_mode():
        backbone = model.detector.backbone.vision_backbone
        level_0, level_1, level_2 = backbone.tracker_maps(backbone.trunk(image(0)))
        found = encode_image(model, image(0))
        decoder = model.tracker.sam_mask_decoder
        assert torch.equal(found.high_res_0, decoder.conv_s0(level_0))
        assert torch.equal(found.high_res_1, decoder.conv_s1(level_1))
        assert torch.equal(found.features, level_2)
