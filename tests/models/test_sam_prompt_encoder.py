"""SAM's prompt encoder: which tokens a prompt has, and how points, boxes and masks become numbers (the original's)."""

from __future__ import annotations

import json
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.prompt_encoder import PromptEncoder, SamPromptEncoder
from samonnx.models.sam import corner_places
from samonnx.pins import apply_pins
from samonnx.seeded import seeded_tensor
from tests.models.sam_reference_tensors import GOLDEN, PROMPTS, largest, places_of, reference

GARBAGE = st.sampled_from([0.0, -5.0, 1e6, 37.25])
PIXELS = st.floats(0, 1023, width=32)


@cache
def encoder() -> SamPromptEncoder:
    """As vit_b, vit_l and vit_h have it, with the weights of the reference tensors."""
    made = SamPromptEncoder(256, 64, 1024).eval().requires_grad_(False)
    state = {
        key: torch.from_numpy(seeded_tensor(f"prompt_encoder.{key}", tuple(value.shape)))
        for key, value in made.state_dict().items()
    }
    made.load_state_dict(state)
    return made


def test_the_reference_files_are_those_of_vit_b_with_seed_0() -> None:
    recipe = json.loads((GOLDEN / "sam_vit_b.json").read_text(encoding="utf-8"))
    assert (recipe["weights_seed"], recipe["frame"], recipe["frame_seed"]) == (0, 0, 0)


def test_the_tokens_that_count_are_the_originals_for_every_kind_of_prompt() -> None:
    for prompt in PROMPTS:
        tokens, valid = encoder().padded_point_tokens(*places_of(prompt, garbage=1e6))
        assert tokens.shape == (1, 5, 256)
        assert largest(tokens[valid][None], f"{prompt}.sparse") < 1e-5, prompt


def test_the_dense_position_is_the_originals() -> None:
    assert largest(encoder().dense_position()[..., ::4, ::4], "dense_pe_s4") < 1e-5


def test_a_mask_and_the_lack_of_one_become_the_originals_maps() -> None:
    mask = torch.from_numpy(reference()["maskclick.in_mask"]).reshape(1, 1, 256, 256)
    assert largest(encoder().mask_map(mask)[..., ::4, ::4], "maskclick.dense_s4") < 1e-5
    without = encoder().no_mask_map().expand(1, -1, 64, 64)
    assert largest(without[..., ::4, ::4], "click.dense_s4") == 0


def originals_tokens(points: list[tuple[int, float, float]], box: tuple[float, ...] | None) -> Tensor:
    """One prompt as the original embeds it, f32 [tokens, 256]: points, then the padding point unless there is a box or
    no point, then corners."""
    places = [(label, x, y) for label, x, y in points]
    if points and box is None:
        places.append((-1, 0.0, 0.0))
    if box is not None:
        places += [(2, box[0], box[1]), (3, box[2], box[3])]
    coords = torch.tensor([place[1:] for place in places]).reshape(1, -1, 2)
    return encoder().point_tokens(coords, torch.tensor([[place[0] for place in places]], dtype=torch.int32))[0]


@given(
    points=st.lists(st.tuples(st.integers(-1, 1), PIXELS, PIXELS), max_size=5),
    box=st.none() | st.tuples(PIXELS, PIXELS, PIXELS, PIXELS),
    garbage=GARBAGE,
)
@settings(deadline=None, max_examples=60)
def test_the_tokens_that_count_are_the_originals_whatever_lies_in_empty_places(
    points: list[tuple[int, float, float]], box: tuple[float, float, float, float] | None, garbage: float
) -> None:
    labels = torch.tensor([[p[0] for p in points]], dtype=torch.int32)
    coords = torch.tensor([p[1:] for p in points], dtype=torch.float32).reshape(1, -1, 2)
    coords = torch.where((labels >= 0)[..., None], coords, garbage)
    corners = corner_places(torch.tensor([box or (garbage,) * 4]), torch.tensor([box is not None]))
    tokens, valid = encoder().padded_point_tokens(
        torch.cat((coords, corners[0]), dim=1), torch.cat((labels, corners[1]), dim=1)
    )
    expected = originals_tokens([p for p in points if p[0] >= 0], box)
    assert tokens[valid].shape == expected.shape
    assert torch.allclose(tokens[valid], expected, atol=1e-5)


def test_the_number_of_tokens_that_count_follows_the_prompt() -> None:
    rows = {"none": [-1, -1, -1, -1], "click": [1, -1, -1, -1], "box": [2, 3, -1, -1], "box and click": [2, 3, 0, -1]}
    _, valid = encoder().padded_point_tokens(torch.zeros(4, 4, 2), torch.tensor(list(rows.values()), dtype=torch.int32))
    assert valid.sum(1).tolist() == [0, 2, 2, 3]


def test_sam_2s_encoder_has_the_same_parameters_and_another_padding() -> None:
    later = PromptEncoder(256, 64, 1024)
    apply_pins(later, {"pad_with_empty_point": True})
    later.load_state_dict(encoder().state_dict())
    coords, labels = places_of("boxclick")
    (tokens, valid), (other, other_valid) = (of.padded_point_tokens(coords, labels) for of in (encoder(), later))
    assert torch.equal(tokens[valid], other[other_valid][:-1])
    assert torch.equal(other[other_valid][-1], encoder().not_a_point_embed.weight[0])
