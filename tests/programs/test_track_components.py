"""The components of `track`, each against the tracker's parts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.bank_policies import Recent
from samonnx.models.position_encoding import sine_map
from samonnx.models.reference_tracker import encode_image
from samonnx.programs import track_components as parts
from samonnx.programs.bank_components import ReadBank, WriteBank
from samonnx.programs.image_encoder import TrackerNeck
from samonnx.seeded import seeded_frame
from tests.tiny_model import tiny_model, tiny_tracker

SIZE, GRID, LOW, WIDTH, MEMORY = 112, 8, 32, 32, 8
CELLS, PARTS = GRID * GRID, WIDTH // MEMORY


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def i32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def flags(*values: bool) -> Tensor:
    return torch.tensor(values)


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude of `expected`."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def image(index: int) -> Tensor:
    return (torch.from_numpy(seeded_frame(index, SIZE))[None] - 0.5) / 0.5


# Encode image


def test_the_image_is_encoded_as_the_reference_encodes_it() -> None:
    model = tiny_model()
    with torch.inference_mode():
        trunk_map = model.detector.backbone.vision_backbone.trunk.encode(image(0))
        found, expected = TrackerNeck(model)(trunk_map), encode_image(model, image(0))
    wanted = (expected.high_res_0, expected.high_res_1, expected.features)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


# Read the bank


@dataclass(frozen=True)
class Read:
    """What `ReadBank` returns."""

    slots: Tensor
    memory_position: Tensor
    memory_valid: Tensor
    tokens: Tensor
    pointer_position: Tensor
    pointer_valid: Tensor
    attends: Tensor


def read(
    memory_frames: list[tuple[int, bool]],
    pointer_frames: list[tuple[int, bool]],
    frame: int = 20,
    num_frames: int = 0,
    attend: bool = True,
    conditioning_slots: int = 1,
    recent_slots: int = 6,
) -> Read:
    """One object; memory and pointer of a slot hold its frame's number everywhere."""

    def rows(given_: list[tuple[int, bool]]) -> tuple[Tensor, Tensor]:
        return i32(*(t for t, _ in given_))[None], flags(*(flag for _, flag in given_))[None]

    frames, conditioning = rows(memory_frames)
    pointers, pointer_conditioning = rows(pointer_frames)
    memory = frames[:, :, None, None, None].float().expand(-1, -1, MEMORY, GRID, GRID)
    pointer = pointers[:, :, None].float().expand(-1, -1, WIDTH)
    component = ReadBank(tiny_tracker(), Recent(conditioning_slots, recent_slots, 16))
    bank = (memory, frames, conditioning, pointer, pointers, pointer_conditioning)
    with torch.inference_mode():
        return Read(*component(scalar(frame), scalar(num_frames), flags(attend), *bank))


EMPTY = (-1, False)


def test_slots_are_given_cell_by_cell_with_the_position_of_their_age() -> None:
    found = read([(5, True), (19, False), EMPTY, (16, False)], [EMPTY])
    assert found.slots.shape == found.memory_position.shape == (1, 4, CELLS, MEMORY)
    assert found.slots[0, :, 3, 2].tolist() == [5, 19, -1, 16]
    assert found.memory_valid.tolist() == [[True, True, False, True]]
    table = tiny_tracker().maskmem_tpos_enc[:, 0, 0]
    cells = sine_map(MEMORY, GRID, GRID).flatten(1).T
    # a conditioning frame has the last row whatever its distance; the previous frame has row 0
    for slot, row in ((0, 6), (1, 0), (3, 3)):
        assert torch.allclose(found.memory_position[0, slot], cells + table[row], atol=1e-6)


def test_frames_beyond_the_window_are_not_valid() -> None:
    found = read([(5, True), (13, False), (14, False), (20, False), (21, False)], [EMPTY])
    assert found.memory_valid.tolist() == [[True, False, True, False, False]]


def test_an_empty_bank_and_a_frame_told_not_to_attend_take_the_path_without_memory() -> None:
    filled = [(19, True), EMPTY]
    assert read(filled, [EMPTY]).attends.tolist() == [True]
    assert read(filled, [EMPTY], attend=False).attends.tolist() == [False]
    assert read([EMPTY, EMPTY], [EMPTY]).attends.tolist() == [False]
    assert read([(3, False), EMPTY], [(3, False)]).attends.tolist() == [False]  # nothing in reach


def test_the_path_without_memory_has_finite_positions() -> None:
    found = read([EMPTY, (-1, True)], [EMPTY, (-1, True)], num_frames=1)
    assert torch.isfinite(found.memory_position).all()
    assert torch.isfinite(found.pointer_position).all()


def test_every_token_of_a_pointer_is_valid_with_it_and_has_the_position_of_its_distance() -> None:
    found = read([(5, True)], [(5, True), (18, False), EMPTY])
    assert found.tokens.shape == found.pointer_position.shape == (1, 3 * PARTS, MEMORY)
    assert found.pointer_valid.tolist() == [[True] * 2 * PARTS + [False] * PARTS]
    assert found.tokens[0, ::PARTS, 0].tolist() == [5, 18, -1]
    expected = tiny_tracker().pointer_position(i32(15, 2)[None], scalar(15))
    assert torch.equal(found.pointer_position[:, : 2 * PARTS], expected)


def test_a_later_conditioning_frame_lends_its_map_but_not_its_pointer() -> None:
    slots = [(3, True), (25, True)]
    found = read(slots, slots, conditioning_slots=2)
    assert found.memory_valid.tolist() == [[True, True]]
    assert found.pointer_valid.tolist() == [[True] * PARTS + [False] * PARTS]


@pytest.mark.parametrize(
    ("num_frames", "valid"),
    [(0, [True, True, True]), (40, [True, True, True]), (4, [True, True, False]), (1, [True, False, False])],
)
def test_a_short_clip_narrows_the_window_of_pointers(num_frames: int, valid: list[bool]) -> None:
    found = read([(0, True)], [(0, True), (18, False), (16, False)], num_frames=num_frames)
    assert found.pointer_valid[0, ::PARTS].tolist() == valid


def test_what_lies_in_empty_slots_does_not_move_the_others() -> None:
    one = read([(5, True), (19, False), (-1, False)], [(5, True), (-1, True)])
    other = read([(5, True), (19, False), (-1, True)], [(5, True), (-1, False)])
    assert torch.equal(one.memory_valid, other.memory_valid)
    assert torch.equal(one.pointer_valid, other.pointer_valid)
    assert torch.equal(one.memory_position[:, :2], other.memory_position[:, :2])


@given(order=st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_a_permutation_of_slots_permutes_what_is_read(order: list[int]) -> None:
    slots = [(5, True), (19, False), EMPTY, (16, False)]
    expected, found = read(slots, slots), read([slots[i] for i in order], [slots[i] for i in order])
    for name in ("slots", "memory_position", "memory_valid"):
        assert torch.equal(getattr(found, name), getattr(expected, name)[:, order]), name
    for name in ("tokens", "pointer_position", "pointer_valid"):
        regrouped = getattr(expected, name).unflatten(1, (4, PARTS))[:, order].flatten(1, 2)
        assert torch.equal(getattr(found, name), regrouped), name


# Encode prompts


def prompt(
    labels: list[int], mask: bool = False, logits: bool = False, fill: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One object; `fill` lies in whatever is not valid."""
    used = i32(*labels) >= 0
    coords = torch.where(used[:, None], torch.arange(2.0 * len(labels)).reshape(-1, 2) * 9, fill)[None]
    masks = noise(1, 1, SIZE, SIZE).sign().clamp(min=0) if mask else torch.full((1, 1, SIZE, SIZE), fill)
    earlier = noise(1, 1, LOW, LOW, seed=1) * 5 if logits else torch.full((1, 1, LOW, LOW), fill)
    with torch.inference_mode():
        sparse, valid, dense, count = parts.EncodePrompt(tiny_tracker())(
            coords, i32(*labels)[None], masks, flags(mask), earlier, flags(logits)
        )
    return sparse, valid, dense, count


def test_points_are_counted_and_a_frame_without_mask_has_the_embedding_for_none() -> None:
    sparse, valid, dense, count = prompt([1, 0, -1])
    assert sparse.shape == (1, 5, WIDTH)
    assert valid.tolist() == [[True, True, False, False, True]]
    assert torch.equal(dense, tiny_tracker().sam_prompt_encoder.no_mask_map().expand(1, -1, GRID, GRID))
    assert count.tolist() == [2]
    assert count.dtype == torch.int32


def test_a_mask_silences_the_points_of_its_object_and_earlier_logits() -> None:
    silenced, nothing = prompt([1, 0, -1], mask=True), prompt([-1, -1, -1], mask=True)
    assert silenced[3].tolist() == [0]
    assert torch.equal(silenced[1], nothing[1])
    assert torch.equal(silenced[0][silenced[1]], nothing[0][nothing[1]])
    tracker = tiny_tracker()
    mask = noise(1, 1, SIZE, SIZE).sign().clamp(min=0)
    expected = tracker.sam_prompt_encoder.mask_map(tracker.mask_values_as_prompt(mask))
    assert relative(silenced[2], expected) < 1e-6
    assert torch.equal(prompt([-1], mask=True, logits=True)[2], prompt([-1], mask=True)[2])


def test_earlier_logits_are_the_decoders_mask_and_the_points_stay() -> None:
    _, _, dense, count = prompt([1, -1], logits=True)
    expected = tiny_tracker().sam_prompt_encoder.mask_map(noise(1, 1, LOW, LOW, seed=1) * 5)
    assert relative(dense, expected) < 1e-6
    assert count.tolist() == [1]


@pytest.mark.parametrize("given_", [{}, {"mask": True}, {"logits": True}])
@pytest.mark.parametrize("fill", [1e6, float("nan")])
def test_what_lies_where_nothing_is_valid_changes_nothing(given_: dict[str, bool], fill: float) -> None:
    clean, filled = prompt([1, -1], **given_), prompt([1, -1], **given_, fill=fill)
    assert torch.equal(clean[0][clean[1]], filled[0][filled[1]])
    assert torch.equal(clean[2], filled[2])


# Decode


@pytest.mark.parametrize(
    ("attends", "mask", "expected"),
    [(True, False, "conditioned"), (False, False, "without memory"), (True, True, "raw"), (False, True, "raw")],
)
def test_the_decoder_sees_raw_features_for_a_mask_else_conditioned_ones_or_those_without_memory(
    attends: bool, mask: bool, expected: str
) -> None:
    tracker = tiny_tracker()
    raw, conditioned = noise(1, WIDTH, GRID, GRID), noise(1, WIDTH, GRID, GRID, seed=1)
    chosen = {"raw": raw, "conditioned": conditioned, "without memory": tracker.without_memory(raw)}[expected]
    sparse, valid, dense, _ = prompt([1, -1])
    high_res = noise(1, WIDTH // 8, LOW, LOW), noise(1, WIDTH // 4, 2 * GRID, 2 * GRID)
    with torch.inference_mode():
        found = parts.DecodeMasks(tracker)(
            raw, conditioned, flags(attends), flags(mask), sparse, valid, dense, *high_res
        )
        position = tracker.sam_prompt_encoder.dense_position()
        decoded = tracker.sam_mask_decoder(chosen, position, sparse, valid, dense, *high_res)
    wanted = (decoded.logits, decoded.ious, decoded.tokens, decoded.object_score)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_conditioned_features_that_are_not_finite_do_not_reach_a_frame_without_memory() -> None:
    """An empty bank leaves attention without a key; whatever it then gives must not be seen."""
    tracker = tiny_tracker()
    sparse, valid, dense, _ = prompt([1, -1])
    high_res = noise(1, WIDTH // 8, LOW, LOW), noise(1, WIDTH // 4, 2 * GRID, 2 * GRID)
    nothing = torch.full((1, WIDTH, GRID, GRID), torch.nan)
    features = noise(1, WIDTH, GRID, GRID)
    with torch.inference_mode():
        found = parts.DecodeMasks(tracker)(
            features, nothing, flags(False), flags(False), sparse, valid, dense, *high_res
        )
    assert all(torch.isfinite(tensor).all() for tensor in found)


# Take the mask


def take(
    points: int, mask: bool, attends: bool = False, score: float = 1.0, empty: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    masks = torch.zeros(1, 1, SIZE, SIZE) if empty else noise(1, 1, SIZE, SIZE).sign().clamp(min=0)
    with torch.inference_mode():
        low, full, ious, iou, choice, object_score, pointer = parts.TakeMask(tiny_tracker())(
            noise(1, 4, LOW, LOW) + 5,
            noise(1, 4).sigmoid(),
            noise(1, 4, WIDTH),
            torch.tensor([[score]]),
            i32(points),
            flags(attends),
            masks,
            flags(mask),
        )
    return low, full, ious, iou, choice, object_score, pointer


def test_one_point_takes_a_candidate_and_two_take_the_single_mask() -> None:
    assert take(points=1, mask=False)[4].tolist()[0] >= 0
    assert take(points=0, mask=False, attends=True)[4].tolist()[0] >= 0
    assert take(points=2, mask=False)[4].tolist() == [-1]


def test_a_mask_is_the_output_itself_and_its_pointer_comes_from_the_single_mask() -> None:
    _, full, ious, iou, choice, score, pointer = take(points=0, mask=True)
    assert set(full.flatten().tolist()) == {-10.0, 10.0}
    assert (iou.tolist(), choice.tolist(), score.tolist()) == ([[1.0]], [-1], [[10.0]])
    tracker = tiny_tracker()
    assert relative(pointer, tracker.obj_ptr_proj(noise(1, 4, WIDTH)[:, 0])) < 1e-6
    assert torch.equal(ious, noise(1, 4).sigmoid()[:, 1:])


def test_an_empty_mask_and_an_absent_object_have_the_pointer_of_no_object() -> None:
    for output in (take(0, mask=True, empty=True), take(1, mask=False, score=-1.0), take(0, mask=True, score=-1.0)):
        assert torch.equal(output[6], tiny_tracker().no_obj_ptr)
    assert take(0, mask=True, empty=True)[5].tolist() == [[-10.0]]
    assert (take(1, mask=False, score=-1.0)[1] == -1024).all()


# Encode memory


@pytest.mark.parametrize("points", [0, 1, 2])
def test_memory_is_encoded_as_from_points_when_there_are_any(points: int) -> None:
    tracker, masks, features = tiny_tracker(), noise(1, 1, SIZE, SIZE), noise(1, WIDTH, GRID, GRID)
    with torch.inference_mode():
        found = parts.EncodeMemory(tracker)(features, masks, torch.ones(1, 1), i32(points), flags(False))
        expected = tracker.encode_memory(features, masks, torch.ones(1, 1), flags(points > 0))
    assert torch.equal(found, expected)


# Write the bank


@dataclass(frozen=True)
class Written:
    """The next bank, memory and pointer of a slot as one number."""

    memory: list[list[float]]
    memory_frame: list[list[int]]
    memory_conditioning: list[list[bool]]
    pointer: list[list[float]]
    pointer_frame: list[list[int]]
    pointer_conditioning: list[list[bool]]


def write(
    frames: list[list[int]], conditioning: list[list[bool]], points: list[int], masks: list[bool], frame: int = 20
) -> Written:
    """The new memory holds 100, the new pointer 200; a slot's memory holds its frame, its pointer ten times that.
    Pointers have one place more than memory, which is empty."""
    memory_frame, flag = torch.tensor(frames, dtype=torch.int32), torch.tensor(conditioning)
    pointer_frame = torch.cat((memory_frame, torch.full_like(memory_frame[:, :1], -1)), dim=1)
    pointer_flag = torch.cat((flag, torch.zeros_like(flag[:, :1])), dim=1)
    objects = len(frames)
    memory = memory_frame[:, :, None, None, None].float().expand(-1, -1, MEMORY, GRID, GRID)
    pointer = 10 * pointer_frame[:, :, None].float().expand(-1, -1, WIDTH)
    bank = (memory, memory_frame, flag, pointer, pointer_frame, pointer_flag)
    new = torch.full((objects, MEMORY, GRID, GRID), 100.0), torch.full((objects, WIDTH), 200.0)
    out = WriteBank(Recent(1, 6, 16))(scalar(frame), i32(*points), flags(*masks), *new, *bank)
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(out, bank, strict=True))
    return Written(_number(out[0]), out[1].tolist(), out[2].tolist(), _number(out[3]), out[4].tolist(), out[5].tolist())


def _number(filled: Tensor) -> list[list[float]]:
    """The one value of each slot."""
    values = filled.flatten(2)
    assert torch.equal(values.amin(2), values.amax(2))
    numbers: list[list[float]] = values[..., 0].tolist()
    return numbers


def test_a_prompt_fills_the_first_slot_of_an_empty_bank_as_a_conditioning_frame() -> None:
    found = write([[-1, -1]], [[False, False]], [1], [False])
    assert (found.memory, found.memory_frame, found.memory_conditioning) == ([[100, -1]], [[20, -1]], [[True, False]])
    assert found.pointer == [[200, -10, -10]]
    assert found.pointer_frame == [[20, -1, -1]]
    assert found.pointer_conditioning == [[True, False, False]]


def test_a_mask_is_a_prompt_too() -> None:
    assert write([[-1, -1]], [[False, False]], [0], [True]).memory_conditioning == [[True, False]]


def test_an_object_that_is_not_tracked_yet_leaves_its_bank_empty() -> None:
    found = write([[-1, -1], [-1, -1]], [[False, False]] * 2, [0, 1], [False, False])
    assert found.memory_frame == [[-1, -1], [20, -1]]
    assert found.memory == [[-1, -1], [100, -1]]
    assert found.pointer_frame == [[-1, -1, -1], [20, -1, -1]]


def test_a_tracked_frame_is_written_without_the_flag() -> None:
    found = write([[0, -1]], [[True, False]], [0], [False])
    assert (found.memory_frame, found.memory_conditioning) == ([[0, 20]], [[True, False]])
    assert (found.pointer_frame, found.pointer_conditioning) == ([[0, 20, -1]], [[True, False, False]])


def test_a_correction_replaces_the_frames_slot_and_sets_its_flag() -> None:
    found = write([[0, 20, 19]], [[True, False, False]], [1], [False])
    assert found.memory == [[0, 100, 19]]
    assert found.memory_conditioning == [[True, True, False]]


def test_a_full_bank_loses_its_farthest_recent_frame_and_keeps_its_conditioning_frame() -> None:
    found = write([[19, 0, 17, 18]], [[False, True, False, False]], [0], [False])
    assert found.memory_frame == [[19, 0, 20, 18]]
    assert found.pointer_frame == [[19, 0, 17, 18, 20]]


def test_an_old_conditioning_frame_gives_way_when_a_new_one_takes_its_place_among_the_kept() -> None:
    found = write([[19, 0, 17, 18]], [[False, True, False, False]], [1], [False])
    assert found.memory_frame == [[19, 20, 17, 18]]
    assert found.memory_conditioning == [[False, True, False, False]]
