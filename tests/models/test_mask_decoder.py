"""Mask decoder: padded prompts are inert, and which mask is taken."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.mask_decoder import DecodedMasks, MaskDecoder
from tests.tiny_model import tiny_tracker

LARGEST = 1e-5  # of the largest magnitude, or of 1 if that is more: a score near zero is not more exact


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoder(stability_fallback: bool = True, pointer_from_chosen_mask: bool = True) -> MaskDecoder:
    pins = {"stability_fallback": stability_fallback, "pointer_from_chosen_mask": pointer_from_chosen_mask}
    overrides = [f"pins.tracker.sam_mask_decoder.{pin}=false" for pin, value in pins.items() if not value]
    return tiny_tracker(*overrides).sam_mask_decoder


def close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= LARGEST * expected.abs().max().clamp(min=1)
    )


def decode(sparse: Tensor, valid: Tensor | None, dense: Tensor | None = None) -> DecodedMasks:
    tracker = tiny_tracker()
    objects = sparse.shape[0]
    features, high_res = noise(1, 32, 8, 8).expand(objects, -1, -1, -1), (noise(1, 4, 32, 32), noise(1, 8, 16, 16))
    dense = tracker.sam_prompt_encoder.no_mask_map() if dense is None else dense
    position = tracker.sam_prompt_encoder.dense_position()
    with torch.inference_mode():
        return tracker.sam_mask_decoder(features, position, sparse, valid, dense, *high_res)  # type: ignore[no-any-return]  # nn.Module calls are untyped


def test_four_masks_four_ious_four_tokens_and_one_score_come_for_each_object() -> None:
    decoded = decode(noise(3, 2, 32), None)
    assert decoded.logits.shape == (3, 4, 32, 32)
    assert decoded.ious.shape == (3, 4)
    assert ((decoded.ious > 0) & (decoded.ious < 1)).all()
    assert decoded.tokens.shape == (3, 4, 32)
    assert decoded.object_score.shape == (3, 1)


def test_a_dense_map_that_is_constant_over_the_grid_may_come_as_one_cell() -> None:
    whole = tiny_tracker().sam_prompt_encoder.no_mask_map().expand(1, -1, 8, 8)
    assert torch.equal(decode(noise(1, 2, 32), None).logits, decode(noise(1, 2, 32), None, whole).logits)


@given(
    labels=st.lists(st.integers(-1, 3), min_size=1, max_size=6),
    garbage=st.sampled_from([0.0, -40.0, 1e4]),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_empty_prompt_places_do_not_change_what_is_decoded(labels: list[int], garbage: float, seed: int) -> None:
    encoder = tiny_tracker().sam_prompt_encoder
    label = torch.tensor(labels, dtype=torch.int32)
    used = label >= 0
    coords = torch.rand(len(labels), 2, generator=torch.Generator().manual_seed(seed)) * 112
    padded = encoder.padded_point_tokens(torch.where(used[:, None], coords, garbage)[None], label[None])
    # the original: the points (or one empty point in their place), then the padding point
    points = max(int(used.sum()), 1)
    exact = torch.full((points + 1,), -1, dtype=torch.int32)
    exact[: int(used.sum())] = label[used]
    exact_coords = torch.zeros(points + 1, 2)
    exact_coords[: int(used.sum())] = coords[used]
    expected = decode(encoder.point_tokens(exact_coords[None], exact[None]), None)
    found = decode(*padded)
    for name in ("logits", "ious", "tokens", "object_score"):
        assert close(getattr(found, name), getattr(expected, name)), name


def test_objects_with_different_numbers_of_points_decode_as_each_alone() -> None:
    encoder = tiny_tracker().sam_prompt_encoder
    labels = torch.tensor([[-1, -1, -1], [1, -1, -1], [2, 3, 0]], dtype=torch.int32)
    coords = torch.rand(3, 3, 2, generator=torch.Generator().manual_seed(0)) * 112
    tokens, valid = encoder.padded_point_tokens(coords, labels)
    together = decode(tokens, valid)
    for row in range(3):
        alone = decode(tokens[row : row + 1], valid[row : row + 1])
        assert close(together.logits[row], alone.logits[0])
        assert close(together.object_score[row], alone.object_score[0])


# Which mask is taken: masks that are constant on a 2 x 2 map, so that each shows its number.

SINGLE, TRUE, FALSE = -1, torch.tensor([True]), torch.tensor([False])
STABLE, UNSTABLE, NOWHERE = 7.0, 0.0, -7.0


def hand_made(ious: tuple[float, float, float, float], single: float | Tensor = STABLE) -> DecodedMasks:
    """One object; mask i > 0 is i everywhere, token i is i. The single mask (0) is `single`: 0.0 lies between -0.05 and
    0.05, so its stability is 0."""
    logits = torch.arange(4.0)[None, :, None, None].repeat(1, 1, 2, 2)
    logits[0, 0] = single
    tokens = torch.arange(4.0)[None, :, None].expand(1, 4, 3)
    return DecodedMasks(logits, torch.tensor([ious]), tokens, torch.ones(1, 1))


def taken(decoded: DecodedMasks, multimask: Tensor, from_: MaskDecoder) -> tuple[int, float, float, float]:
    """index, mask value, IoU, number of the token."""
    choice = from_.choose(decoded, multimask)
    assert choice.logits.shape == (1, 1, 2, 2)
    assert choice.iou.shape == (1, 1)
    assert choice.index.dtype == torch.int32
    token = set(choice.token[0].tolist())
    (value,) = set(choice.logits.flatten().tolist())
    return int(choice.index), value, round(float(choice.iou), 6), token.pop()


def test_with_candidates_the_largest_iou_among_the_three_is_taken_with_its_token() -> None:
    assert taken(hand_made((0.9, 0.2, 0.8, 0.3)), TRUE, decoder()) == (1, 2.0, 0.8, 2.0)


@pytest.mark.parametrize(
    ("ious", "first"),
    [((0, 0.5, 0.5, 0.5), 0), ((0, 0.1, 0.5, 0.5), 1), ((0, 0.5, 0.1, 0.5), 0), ((0, 0.1, 0.2, 0.5), 2)],
)
def test_the_first_of_equal_ious_is_taken(ious: tuple[float, float, float, float], first: int) -> None:
    assert taken(hand_made(ious), TRUE, decoder())[0] == first


@pytest.mark.parametrize("single", [UNSTABLE, STABLE])
def test_with_candidates_the_stability_of_the_single_mask_does_not_matter(single: float) -> None:
    for fallback in (True, False):
        assert taken(hand_made((0.9, 0.2, 0.1, 0.3), single), TRUE, decoder(fallback))[0] == 2


def test_the_pointer_comes_from_the_single_masks_token_when_pinned_so() -> None:
    assert taken(hand_made((0.9, 0.2, 0.8, 0.3)), TRUE, decoder(pointer_from_chosen_mask=False)) == (1, 2.0, 0.8, 0.0)


def test_without_candidates_a_stable_single_mask_is_kept() -> None:
    for fallback in (True, False):
        found = taken(hand_made((0.4, 0.2, 0.8, 0.3)), FALSE, decoder(fallback))
        assert found == (SINGLE, STABLE, 0.4, 0.0)


def test_without_candidates_an_unstable_single_mask_is_replaced_with_its_iou_but_keeps_its_token() -> None:
    for pointer in (True, False):
        decoded = hand_made((0.9, 0.2, 0.8, 0.3), UNSTABLE)
        assert taken(decoded, FALSE, decoder(pointer_from_chosen_mask=pointer)) == (1, 2.0, 0.8, 0.0)


def test_an_unstable_single_mask_is_kept_when_the_fallback_is_pinned_off() -> None:
    decoded = hand_made((0.9, 0.2, 0.8, 0.3), UNSTABLE)
    assert taken(decoded, FALSE, decoder(stability_fallback=False)) == (SINGLE, UNSTABLE, 0.9, 0.0)


@pytest.mark.parametrize("preferred", [0, 1, 2])
def test_with_candidates_a_preferred_one_is_taken_whatever_the_ious(preferred: int) -> None:
    decoded, given_ = hand_made((0.9, 0.2, 0.8, 0.3), UNSTABLE), torch.tensor([preferred], dtype=torch.int32)
    choice = decoder().choose(decoded, TRUE, given_)
    assert choice.index.tolist() == [preferred]
    assert (choice.logits == preferred + 1).all()
    assert (choice.token == preferred + 1).all()
    assert torch.equal(choice.iou, decoded.ious[:, preferred + 1, None])


def test_without_candidates_no_preference_counts() -> None:
    given_ = torch.zeros(1, dtype=torch.int32)
    assert decoder().choose(hand_made((0.9, 0.2, 0.8, 0.3), UNSTABLE), FALSE, given_).index.tolist() == [1]
    assert decoder().choose(hand_made((0.9, 0.2, 0.8, 0.3)), FALSE, given_).index.tolist() == [SINGLE]


def test_a_mask_that_covers_nothing_is_stable() -> None:
    assert MaskDecoder.stability(torch.full((1, 2, 2), NOWHERE)).tolist() == [1.0]
    assert taken(hand_made((0.9, 0.2, 0.8, 0.3), NOWHERE), FALSE, decoder())[0] == SINGLE


@given(inside=st.integers(0, 100), edge=st.integers(0, 100))
def test_stability_is_the_area_above_delta_over_the_area_above_minus_delta(inside: int, edge: int) -> None:
    logits = torch.cat((torch.full((inside,), 0.06), torch.full((edge,), 0.04), torch.full((50,), -0.06)))[None, None]
    expected = inside / (inside + edge) if inside + edge else 1.0
    assert MaskDecoder.stability(logits).tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize(("inside", "kept"), [(97, False), (98, True), (99, True)])
def test_a_stability_of_98_percent_is_enough(inside: int, kept: bool) -> None:
    values = torch.cat((torch.full((inside,), 1.0), torch.zeros(100 - inside))).reshape(1, 1, 10, 10)
    decoded = DecodedMasks(values.expand(1, 4, 10, 10), torch.ones(1, 4), torch.zeros(1, 4, 3), torch.ones(1, 1))
    assert (int(decoder().choose(decoded, FALSE).index) == SINGLE) is kept


def test_the_delta_itself_is_on_neither_side() -> None:
    logits = torch.tensor([[[0.05, -0.05, 1.0]]])
    assert MaskDecoder.stability(logits).tolist() == [0.5]


def test_each_object_is_judged_alone() -> None:
    parts = (
        (hand_made((0.9, 0.2, 0.8, 0.3)), True),
        (hand_made((0.9, 0.2, 0.1, 0.3), UNSTABLE), False),
        (hand_made((0.9, 0.2, 0.1, 0.3)), False),
    )
    fields = ("logits", "ious", "tokens", "object_score")
    decoded = DecodedMasks(*(torch.cat([getattr(part, name) for part, _ in parts]) for name in fields))
    choice = decoder().choose(decoded, torch.tensor([multimask for _, multimask in parts]))
    assert choice.index.tolist() == [1, 2, SINGLE]
    assert choice.token[:, 0].tolist() == [2.0, 0.0, 0.0]
    assert choice.iou[:, 0].tolist() == pytest.approx([0.8, 0.3, 0.9])
