"""SAM 2.1: the released names, its branches, and a tiny one against a plain recomputation from its weights."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures, ReferenceTracker, encode_image
from samonnx.models.sam2 import IMAGE_MEAN, IMAGE_STD, TRUNKS, Sam2, build
from samonnx.pins import PinError, PinValue, UnpinnedBranchError, apply_pins
from samonnx.seeded import seeded_frame
from samonnx.weights import fill_seeded
from tests.models.plain_sam2 import PlainSam2

SIZE, GRID, LOW, WIDTH, MEMORY = 128, 8, 32, 32, 8
RELEASED: dict[str, PinValue] = {
    "multimask_min_points": 0,
    "multimask_max_points": 1,
    "multimask_for_tracking": True,
    "binarize_mask_from_points": True,
    "non_overlap_masks_for_memory": False,
    "presence_threshold": 0.0,
    "memory_presence_threshold": 0.0,
    "mask_prompt_round_trip": True,
    "sam_mask_decoder.stability_fallback": True,
    "sam_mask_decoder.pointer_from_chosen_mask": True,
    "sam_prompt_encoder.pad_with_empty_point": True,
    "memory_attention.position_at_input": True,
    "memory_attention.layers.*.pre_norm": True,
    "memory_attention.layers.*.position_at_self_attention": False,
    "memory_attention.layers.*.position_at_cross_attention_queries": False,
    "memory_attention.layers.*.position_at_cross_attention_keys": True,
    "memory_encoder.mask_downsampler.resize_to_16x_grid": False,
}
KEYS = {  # entries of the released state dict, and the digest of their names, dtypes and shapes
    "t": (471, "8238315dc78ee49b0bfde5971e79607b101ea57c8327e2758281bf92d0e89422"),
    "s": (519, "c8e86b13795d0b660ed2b9a19c6f951537d62d253627d94a5dde4b61ebfa9dc9"),
    "b+": (615, "1159312c5484c25242e74e362ed6b9febf21142ba93c464f84c892e6978aa2bf"),
    "l": (903, "1335898afbd0b3b3c084d1845b199740ec31050cd35f9fb88dd4a697c02eae18"),
}


def tiny() -> Sam2:
    return build("tiny", image_size=SIZE, hidden_dim=WIDTH, memory_dim=MEMORY, ffn_dim=64).requires_grad_(False)


@lru_cache(maxsize=8)
def pinned(seed: int = 0, **changed: PinValue) -> Sam2:
    model = tiny()
    apply_pins(model, RELEASED | changed)
    fill_seeded(model, seed, components=model.components)
    return model


@lru_cache(maxsize=16)
def features(index: int, seed: int = 0) -> ImageFeatures:
    frame = torch.from_numpy(seeded_frame(index, SIZE))
    mean, std = (torch.tensor(of_rgb)[:, None, None] for of_rgb in (IMAGE_MEAN, IMAGE_STD))
    with torch.inference_mode():
        return encode_image(pinned(seed), ((frame - mean) / std)[None])


def points_of(*points: tuple[float, float, int]) -> FramePrompt:
    return FramePrompt(
        torch.tensor([[x, y] for x, y, _ in points]), torch.tensor([label for _, _, label in points], dtype=torch.int32)
    )


CLICK = ((38.4, 51.2, 1),)
BOX = ((20.0, 30.0, 2), (70.0, 75.0, 3))


def ellipse() -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return ((((x - 50) / 21) ** 2 + ((y - 60) / 13) ** 2) < 1).float()


# Names


@pytest.mark.parametrize("size", KEYS)
def test_every_weight_has_the_name_shape_and_dtype_of_the_released_file_and_no_other_is_there(size: str) -> None:
    with torch.device("meta"):
        state = build(size).state_dict()
    entries = [f"{key} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}\n" for key, t in sorted(state.items())]
    assert (len(entries), hashlib.sha256("".join(entries).encode()).hexdigest()) == KEYS[size]


def test_the_components_of_the_report_own_every_weight_and_each_has_some() -> None:
    model = tiny()
    keys = list(model.state_dict())
    owners = [
        max((p for prefixes in model.components.values() for p in prefixes if key.startswith(p)), key=len)
        for key in keys
    ]
    assert set(owners) == {prefix for prefixes in model.components.values() for prefix in prefixes}
    assert {key.split(".")[0] for key, owner in zip(keys, owners, strict=True) if owner == ""} == {
        *("maskmem_tpos_enc", "no_mem_embed", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial"),
        *("mask_downsample", "obj_ptr_proj", "obj_ptr_tpos_proj"),
    }


def test_the_model_comes_in_eval_mode_and_is_its_own_tracker() -> None:
    model = tiny()
    assert not any(module.training for module in model.modules())
    assert model.tracker is model
    assert model.sizes.grid == GRID


def test_the_image_is_encoded_to_three_levels() -> None:
    with torch.inference_mode():
        levels = pinned().tracker_levels(torch.zeros(1, 3, SIZE, SIZE))
    assert [tuple(level.shape) for level in levels] == [(1, WIDTH, side, side) for side in (32, 16, 8)]


# Errors


def test_an_unknown_trunk_is_refused_with_those_there_are() -> None:
    with pytest.raises(SamonnxError, match=r"model\.args\.trunk: 'h' found, one of t, s, b\+, l, tiny expected"):
        build("h")
    assert list(TRUNKS) == ["t", "s", "b+", "l", "tiny"]


@pytest.mark.parametrize("size", [1000, 1040])
def test_an_image_size_that_is_no_multiple_of_32_is_refused(size: int) -> None:
    with pytest.raises(SamonnxError, match=f"image_size {size}: expected a multiple of 32 .*an even grid"):
        build("tiny", image_size=size)


# Branches


def test_every_branch_must_be_pinned() -> None:
    model = tiny()
    with pytest.raises(PinError) as caught:
        apply_pins(model, {})
    message = str(caught.value)
    assert all(f"{name.replace('*', '0')}: not pinned" in message for name in RELEASED)
    with pytest.raises(UnpinnedBranchError, match=r"Sam2\.presence_threshold"):
        model.candidate_masks(decoded(0.5))


@pytest.mark.parametrize("name", ["presence_threshold", "memory_presence_threshold"])
def test_the_threshold_of_presence_is_that_of_sam_2_or_that_of_samurai(name: str) -> None:
    with pytest.raises(PinError, match=f"{name}: found 0.5"):
        apply_pins(tiny(), {**RELEASED, name: 0.5})


def decoded(*scores: float) -> DecodedMasks:
    objects, noise = len(scores), torch.Generator().manual_seed(0)
    logits, ious, tokens = (torch.randn(objects, 4, *of, generator=noise) for of in ((LOW, LOW), (), (WIDTH,)))
    return DecodedMasks(logits, ious.sigmoid(), tokens, torch.tensor(scores)[:, None])


@given(score=st.sampled_from([-2.0, -1.0, -0.999, -0.5, 0.0, 0.001, 3.0]), samurai=st.booleans())
@settings(max_examples=20, deadline=None)
def test_samurai_moves_the_presence_of_masks_and_pointer_but_not_that_of_the_memory(
    score: float, samurai: bool
) -> None:
    model, raw = pinned(presence_threshold=-1.0 if samurai else 0.0), decoded(score)
    output = model.output(raw, torch.tensor([True]))
    present = score > (-1 if samurai else 0)
    assert bool((output.masks == -1024).all()) is not present
    assert bool((output.low_res_masks == -1024).all()) is not present
    assert bool((model.candidate_masks(raw) == -1024).all()) is not present
    assert torch.equal(output.pointer, model.no_obj_ptr) is not present
    memory, known = (
        model.encode_memory(features(0).features, output.masks, torch.tensor([[of]]), torch.tensor([False]))
        for of in (score, 5.0)
    )
    absent = 0 if score > 0 else model.no_obj_embed_spatial[..., None, None]
    assert torch.equal(memory, known + absent)


def test_the_memorys_threshold_can_be_moved_as_well() -> None:
    model = pinned(memory_presence_threshold=-1.0)
    masks = antialiased_resize(decoded(1.0).logits[:, :1], SIZE)
    one, other = (
        model.encode_memory(features(0).features, masks, torch.tensor([[score]]), torch.tensor([False]))
        for score in (-0.5, 5.0)
    )
    assert torch.equal(one, other)


def test_the_candidates_are_the_decoders_masks_one_to_three() -> None:
    raw = decoded(1.0, -1.0)
    found = pinned().candidate_masks(raw)
    assert torch.equal(found[0], raw.logits[0, 1:])
    assert (found[1] == -1024).all()


def record_of_mask(**changed: PinValue) -> FrameRecord:
    with torch.inference_mode():
        return ReferenceTracker(pinned(**changed), None, 6, 0).step(0, features(0), FramePrompt(mask=ellipse()))


def memory_of(masks: Tensor) -> Tensor:
    """From mask values 0…1."""
    with torch.inference_mode():
        return pinned().memory_map(features(0).features, masks * 20 - 10)


def test_a_mask_prompts_output_and_memory_go_by_its_low_resolution_logits() -> None:
    record = record_of_mask()
    given_ = (ellipse() * 20 - 10)[None, None]
    low = antialiased_resize(given_, LOW)
    assert torch.equal(record.output.low_res_masks, low)
    assert torch.equal(record.output.masks, antialiased_resize(low, SIZE))
    assert not torch.equal(record.output.masks > 0, given_ > 0)
    assert torch.equal(record.memory, memory_of((record.output.masks > 0).float()))


def test_a_mask_prompts_output_and_memory_go_by_the_mask_itself_when_pinned_so() -> None:
    record = record_of_mask(mask_prompt_round_trip=False)
    assert torch.equal(record.output.masks[0, 0], ellipse() * 20 - 10)
    assert torch.equal(record.memory, memory_of(record.output.masks.sigmoid()))


# Clips


def plain(seed: int, presence: float, num_frames: int) -> PlainSam2:
    return PlainSam2(dict(pinned(seed).state_dict()), GRID, num_frames, presence)


def largest(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("seed", "presence"), [(1, 0.0), (5, 0.0), (2, -1.0)])
@pytest.mark.parametrize("start", [CLICK, BOX])
def test_a_clip_equals_the_plain_recomputation_from_the_weights(
    start: tuple[tuple[float, float, int], ...], seed: int, presence: float
) -> None:
    """A click or a box, tracked frames, a mask on a later frame, tracked frames after both. The object's scores are
    above 0 with seed 1, on both sides of it with seed 5, between -1 and 0 with seed 2."""
    frames = 6
    model = pinned(seed, presence_threshold=presence)
    tracker, other = ReferenceTracker(model, None, 6, frames), plain(seed, presence, frames)
    for t in range(frames):
        maps = features(t, seed)
        points, mask = (start if t == 0 else ()), (ellipse() if t == 3 else None)
        prompt = points_of(*points) if points else FramePrompt(mask=mask)
        with torch.inference_mode():
            found = tracker.step(t, maps, prompt)
            expected = other.step(t, (maps.high_res_0, maps.high_res_1, maps.features), list(points), mask)
        errors = {
            "low_res": largest(found.output.low_res_masks, expected.low_res),
            "ious": largest(found.output.ious[0], expected.ious),
            "score": largest(found.output.object_score, expected.score),
            "pointer": largest(found.output.pointer, expected.pointer),
            "memory": largest(found.memory, expected.memory),
        }
        assert max(errors.values()) < 2e-5, (t, errors)


def test_all_conditioning_frames_are_attended_in_the_order_of_their_prompts_when_none_is_left_out() -> None:
    tracker = ReferenceTracker(pinned(), None, 6, 0)
    with torch.inference_mode():
        for t in (0, 7, 3, 12, 7):
            tracker.step(t, features(0), points_of(*CLICK), attend_memory=False)
        tracker.step(4, features(0))
    assert tracker.memory_frames(5) == ([0, 7, 3, 12], [4])
    assert tracker.pointer_frames(5) == [0, 3, 4]
