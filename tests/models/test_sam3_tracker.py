"""The tracker's stateless parts: positions of memory, the frame's output, mask prompts, memory encoding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.position_encoding import sine_map
from samonnx.models.tracker import FrameOutput, Tracker, TrackerSizes
from tests.tiny_model import tiny_tracker

SIZE, GRID, LOW, WIDTH, MEMORY = 112, 8, 32, 32, 8


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def i32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


# Sizes


def test_the_grid_is_a_fourteenth_of_the_image() -> None:
    assert TrackerSizes().grid == 72
    assert TrackerSizes(image_size=112).grid == 8


@pytest.mark.parametrize("size", [1000, 1022])
def test_an_image_size_without_an_even_grid_is_refused(size: int) -> None:
    with pytest.raises(SamonnxError) as caught:
        TrackerSizes(image_size=size)
    assert str(caught.value) == (f"image_size {size}: expected a multiple of 28 (patches of 14 pixels, an even grid)")


# Memory as attention sees it


def test_a_memorys_position_is_its_cells_sine_plus_the_row_of_its_age() -> None:
    tracker = tiny_tracker()
    position = tracker.memory_position(torch.tensor([[0, 6], [3, 3]]))
    assert position.shape == (2, 2, GRID * GRID, MEMORY)
    cells = sine_map(MEMORY, GRID, GRID).flatten(1).T
    for row, column, age in ((0, 0, 0), (0, 1, 6), (1, 0, 3)):
        assert torch.allclose(position[row, column], cells + tracker.maskmem_tpos_enc[age, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("num_frames", "window"), [(0, 15), (1, 0), (2, 1), (15, 14), (16, 15), (17, 15), (5000, 15)])
def test_pointers_reach_back_the_clips_length_but_at_most_sixteen_less_one(num_frames: int, window: int) -> None:
    found = tiny_tracker().pointer_window(scalar(num_frames), most=16)
    assert found == window
    assert found.shape == ()


def test_a_pointer_is_cut_into_consecutive_tokens() -> None:
    pointer = torch.arange(2 * 3 * WIDTH, dtype=torch.float32).reshape(2, 3, WIDTH)
    tokens = tiny_tracker().pointer_tokens(pointer)
    assert tokens.shape == (2, 12, MEMORY)
    assert torch.equal(tokens[1, 4:8].flatten(), pointer[1, 1])


@given(distance=st.integers(-8, 15), window=st.integers(0, 15))
@settings(max_examples=40, deadline=None)
def test_a_pointers_position_is_the_projected_sine_of_its_share_of_the_window(distance: int, window: int) -> None:
    tracker = tiny_tracker()
    share = distance / max(window, 1)
    half = WIDTH // 2
    angles = [share / 10000.0 ** (2 * (i // 2) / half) for i in range(half)]
    sine = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
    expected = tracker.obj_ptr_tpos_proj.weight @ sine + tracker.obj_ptr_tpos_proj.bias
    found = tracker.pointer_position(i32(distance)[None], scalar(window))
    assert found.shape == (1, 4, MEMORY)
    assert torch.allclose(found, expected.expand(1, 4, -1), atol=1e-5)


def test_the_tokens_of_a_pointer_share_its_position() -> None:
    position = tiny_tracker().pointer_position(i32(3, 5)[None], scalar(15))
    assert torch.equal(position[0, :4], position[0, :1].expand(4, -1))
    assert not torch.equal(position[0, 3], position[0, 4])


def test_a_frame_without_memory_gets_one_vector_added_to_every_cell() -> None:
    features = noise(1, WIDTH, GRID, GRID)
    embedding = tiny_tracker().no_mem_embed.flatten()
    assert torch.equal(tiny_tracker().without_memory(features), features + embedding[:, None, None])


# Whether three candidates are made


@pytest.mark.parametrize("attends", [False, True])
def test_candidates_are_made_for_no_point_and_for_one(attends: bool) -> None:
    found = tiny_tracker().uses_candidates(i32(0, 1, 2, 3), torch.tensor([attends] * 4))
    assert found.tolist() == [True, True, False, False]


def test_the_pins_bound_the_number_of_points_that_get_candidates() -> None:
    tracker = tiny_tracker("pins.tracker.multimask_min_points=1", "pins.tracker.multimask_max_points=2")
    assert tracker.uses_candidates(i32(0, 1, 2, 3), torch.tensor([False] * 4)).tolist() == [False, True, True, False]


def test_frames_that_attend_memory_get_no_candidates_when_pinned_so() -> None:
    tracker = tiny_tracker("pins.tracker.multimask_for_tracking=false")
    assert tracker.uses_candidates(i32(1, 1, 2), torch.tensor([False, True, False])).tolist() == [True, False, False]


# The frame's output


def decoded(*scores: float) -> DecodedMasks:
    objects = len(scores)
    return DecodedMasks(
        noise(objects, 4, LOW, LOW), noise(objects, 4, seed=1).sigmoid(), noise(objects, 4, WIDTH, seed=2),
        torch.tensor(scores)[:, None],
    )  # fmt: skip


def test_a_present_object_gets_the_chosen_mask_enlarged_and_the_projected_token() -> None:
    tracker, given_ = tiny_tracker(), decoded(0.5)
    output = tracker.output(given_, torch.tensor([True]))
    choice = tracker.sam_mask_decoder.choose(given_, torch.tensor([True]))
    assert torch.equal(output.low_res_masks, choice.logits)
    plain = F.interpolate(choice.logits.double(), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    assert torch.allclose(output.masks.double(), plain, atol=1e-5)
    assert torch.equal(output.ious, given_.ious[:, 1:])
    assert torch.equal(output.iou, choice.iou)
    assert torch.equal(output.pointer, tracker.obj_ptr_proj(choice.token))
    assert output.mask_choice.tolist() == choice.index.tolist()


@pytest.mark.parametrize("score", [0.0, -0.1, -50.0])
def test_an_absent_object_gets_minus_1024_everywhere_and_the_pointer_of_no_object(score: float) -> None:
    tracker, given_ = tiny_tracker(), decoded(score)
    output = tracker.output(given_, torch.tensor([True]))
    assert (output.low_res_masks == -1024).all()
    assert (output.masks == -1024).all()
    assert torch.equal(output.pointer, tracker.no_obj_ptr)
    assert torch.equal(output.object_score, given_.object_score)
    assert torch.equal(output.ious, given_.ious[:, 1:])


def test_one_absent_object_leaves_the_others_alone() -> None:
    tracker, given_ = tiny_tracker(), decoded(1.0, -1.0, 2.0)
    candidates = torch.tensor([True, True, False])
    together = tracker.output(given_, candidates)
    assert (together.masks[1] == -1024).all()
    for row in (0, 2):
        rows = slice(row, row + 1)
        alone = DecodedMasks(given_.logits[rows], given_.ious[rows], given_.tokens[rows], given_.object_score[rows])
        expected = tracker.output(alone, candidates[rows])
        assert torch.allclose(together.masks[row], expected.masks[0])
        assert torch.allclose(together.pointer[row], expected.pointer[0], atol=1e-6)


# Mask prompts


def half_mask() -> Tensor:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1
    return mask


def output_of_mask(mask: Tensor, score: float = 1.0) -> tuple[FrameOutput, FrameOutput]:
    """The output, and what the decoder made."""
    tracker = tiny_tracker()
    made = tracker.output(decoded(score), torch.tensor([False]))
    return tracker.output_of_mask_prompt(mask, made), made


def test_a_mask_prompt_is_the_output_itself_as_logits_of_plus_and_minus_ten() -> None:
    output, made = output_of_mask(half_mask())
    assert torch.equal(output.masks, torch.where(half_mask() > 0, 10.0, -10.0))
    assert torch.equal(output.low_res_masks, antialiased_resize(output.masks, LOW))
    assert output.iou.tolist() == [[1.0]]
    assert output.object_score.tolist() == [[10.0]]
    assert output.mask_choice.tolist() == [-1]
    assert torch.equal(output.pointer, made.pointer)
    assert torch.equal(output.ious, made.ious)


def test_an_empty_mask_means_an_absent_object() -> None:
    output, made = output_of_mask(torch.zeros(1, 1, SIZE, SIZE))
    assert (output.masks == -10).all()
    assert output.object_score.tolist() == [[-10.0]]
    assert torch.equal(output.pointer, tiny_tracker().no_obj_ptr)
    assert not torch.equal(made.pointer, output.pointer)


def test_the_pointer_of_a_mask_is_that_of_no_object_where_the_decoder_says_absent() -> None:
    output, _ = output_of_mask(half_mask(), score=-1.0)
    assert torch.equal(output.pointer, tiny_tracker().no_obj_ptr)
    assert output.object_score.tolist() == [[10.0]]
    assert (output.masks.abs() == 10).all()


def test_one_pixel_is_enough_for_a_present_object() -> None:
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[1, 0, 5, 7] = 1
    made = tiny_tracker().output(decoded(1.0, 1.0), torch.tensor([False, False]))
    assert tiny_tracker().output_of_mask_prompt(mask, made).object_score.tolist() == [[-10.0], [10.0]]


def test_the_decoders_mask_prompt_is_the_downsampled_mask_at_four_times_the_grid() -> None:
    tracker = tiny_tracker()
    found = tracker.mask_values_as_prompt(half_mask())
    assert found.shape == (1, 1, LOW, LOW)
    state = tracker.mask_downsample.state_dict()
    quarter = F.conv2d(half_mask(), state["weight"], state["bias"], stride=4)
    assert quarter.shape[-1] == SIZE // 4
    assert torch.equal(found, antialiased_resize(quarter, LOW))


# Memory of this frame


def encoded(
    tracker: Tracker, masks: Tensor, from_points: bool | list[bool], score: float | list[float] = 1.0
) -> Tensor:
    objects = len(masks)
    points = [from_points] * objects if isinstance(from_points, bool) else from_points
    scores = [score] * objects if isinstance(score, float) else score
    features = noise(1, WIDTH, GRID, GRID)
    with torch.inference_mode():
        return tracker.encode_memory(features, masks, torch.tensor(scores)[:, None], torch.tensor(points))


def from_values(tracker: Tracker, values: Tensor) -> Tensor:
    """The memory of mask values -10…10."""
    with torch.inference_mode():
        return tracker.memory_map(noise(1, WIDTH, GRID, GRID), values)


LOGITS = noise(1, 1, SIZE, SIZE, seed=7) * 3


def test_memory_of_a_frame_with_points_comes_from_the_thresholded_mask() -> None:
    tracker = tiny_tracker()
    expected = from_values(tracker, torch.where(LOGITS > 0, 10.0, -10.0))
    assert torch.equal(encoded(tracker, LOGITS, from_points=True), expected)


def test_a_logit_of_zero_is_outside_the_mask() -> None:
    tracker, zeros = tiny_tracker(), torch.zeros(1, 1, SIZE, SIZE)
    assert torch.equal(encoded(tracker, zeros, from_points=True), from_values(tracker, zeros - 10))


def test_memory_of_any_other_frame_comes_from_the_sigmoid() -> None:
    tracker = tiny_tracker()
    expected = from_values(tracker, LOGITS.sigmoid() * 20 - 10)
    assert torch.equal(encoded(tracker, LOGITS, from_points=False), expected)
    soft = tiny_tracker("pins.tracker.binarize_mask_from_points=false")
    assert torch.equal(encoded(soft, LOGITS, from_points=True), expected)


def test_each_object_is_thresholded_or_not_by_its_own_prompt() -> None:
    tracker = tiny_tracker()
    both = encoded(tracker, LOGITS.expand(2, -1, -1, -1), [True, False])
    assert torch.allclose(both[:1], encoded(tracker, LOGITS, from_points=True), atol=1e-5)
    assert torch.allclose(both[1:], encoded(tracker, LOGITS, from_points=False), atol=1e-5)


@pytest.mark.parametrize("score", [0.0, -3.0])
def test_an_absent_object_gets_one_more_vector_added_to_every_cell(score: float) -> None:
    tracker = tiny_tracker()
    present, absent = (encoded(tracker, LOGITS, from_points=False, score=s) for s in (1.0, score))
    embedding = tracker.no_obj_embed_spatial[0, :, None, None]
    assert torch.allclose(absent, present + embedding, atol=1e-6)


def test_only_the_absent_of_several_objects_get_it() -> None:
    tracker = tiny_tracker()
    masks = LOGITS.expand(2, -1, -1, -1)
    both = encoded(tracker, masks, from_points=False, score=[1.0, -1.0])
    assert torch.allclose(both[1] - both[0], tracker.no_obj_embed_spatial[0, :, None, None].expand(-1, 8, 8), atol=1e-5)


def test_without_the_rule_of_no_overlap_objects_do_not_see_each_other() -> None:
    tracker = tiny_tracker()
    masks = noise(2, 1, SIZE, SIZE, seed=3) * 20
    both = encoded(tracker, masks, from_points=False)
    assert torch.allclose(both[:1], encoded(tracker, masks[:1], from_points=False), atol=1e-5)


@pytest.mark.parametrize("from_points", [False, True])
def test_with_the_rule_of_no_overlap_a_pixel_stays_with_the_object_of_the_largest_logit(from_points: bool) -> None:
    pinned = tiny_tracker("pins.tracker.non_overlap_masks_for_memory=true")
    masks = noise(3, 1, SIZE, SIZE, seed=3) * 20
    winner = masks.argmax(0)
    kept = torch.stack([torch.where(winner == row, masks[row], masks[row].clamp(max=-10)) for row in range(3)])
    assert not torch.equal(kept, masks)
    assert torch.equal(encoded(pinned, masks, from_points), encoded(tiny_tracker(), kept, from_points))


def test_with_the_rule_of_no_overlap_one_object_alone_keeps_everything() -> None:
    pinned = tiny_tracker("pins.tracker.non_overlap_masks_for_memory=true")
    assert torch.equal(encoded(pinned, LOGITS, False), encoded(tiny_tracker(), LOGITS, False))
