"""Prompt encoder: tokens of points, padded places, masks."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.prompt_encoder import PromptEncoder
from tests.tiny_model import tiny_tracker

PIXELS = st.floats(0, 111, width=32)
EMPTY_COORDS = st.sampled_from([0.0, -5.0, 1e6, 37.25])


def encoder(pad: bool = True) -> PromptEncoder:
    override = () if pad else ("pins.tracker.sam_prompt_encoder.pad_with_empty_point=false",)
    return tiny_tracker(*override).sam_prompt_encoder


def not_a_point() -> Tensor:
    return encoder().not_a_point_embed.weight[0]


def embedding(label: int) -> Tensor:
    return encoder().point_embeddings.get_parameter(f"{label}.weight")[0]


def test_a_point_is_sines_and_cosines_of_its_centred_place_plus_its_labels_embedding() -> None:
    x, y, size = 30.0, 71.5, 112
    matrix = encoder().pe_layer.positional_encoding_gaussian_matrix
    for label in range(4):
        across, down = (2 * (p + 0.5) / size - 1 for p in (x, y))
        angles = [2 * math.pi * (across * float(a) + down * float(b)) for a, b in matrix.T]
        expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]) + embedding(label)
        token = encoder().point_tokens(torch.tensor([[[x, y]]]), torch.tensor([[label]], dtype=torch.int32))
        assert torch.allclose(token[0, 0], expected, atol=1e-5)


def test_an_empty_point_is_not_a_point_alone_wherever_it_lies() -> None:
    coords = torch.tensor([[[0.0, 0.0], [50.0, 60.0]]])
    tokens = encoder().point_tokens(coords, torch.tensor([[-1, -1]], dtype=torch.int32))
    assert torch.equal(tokens, not_a_point().expand(1, 2, -1))


def test_the_dense_position_of_a_cell_is_that_of_a_point_at_its_centre() -> None:
    grid, size = encoder().grid, encoder().image_size
    dense = encoder().dense_position()
    assert dense.shape == (1, 32, grid, grid)
    for row, column in ((0, 0), (0, grid - 1), (3, 5)):
        # point_tokens adds half a pixel, which the centre of a cell must not get
        centre = torch.tensor([[[(column + 0.5) / grid * size - 0.5, (row + 0.5) / grid * size - 0.5]]])
        token = encoder().point_tokens(centre, torch.tensor([[1]], dtype=torch.int32)) - embedding(1)
        assert torch.allclose(dense[0, :, row, column], token[0, 0], atol=1e-5)


def originals_tokens(coords: Tensor, labels: Tensor, pad: bool) -> Tensor:
    """One object, as the original makes them: a point at (0, 0) with label -1 where there is none, then the padding
    point."""
    if len(labels) == 0:
        coords, labels = torch.zeros(1, 2), torch.tensor([-1], dtype=torch.int32)
    if pad:
        coords = torch.cat((coords, torch.zeros(1, 2)))
        labels = torch.cat((labels, torch.tensor([-1], dtype=torch.int32)))
    return encoder().point_tokens(coords[None], labels[None])[0]


@given(
    places=st.lists(st.tuples(st.integers(-1, 3), PIXELS, PIXELS), max_size=6),
    pad=st.booleans(),
    garbage=EMPTY_COORDS,
)
@settings(deadline=None)
def test_the_tokens_that_count_are_the_originals_whatever_lies_in_empty_places(
    places: list[tuple[int, float, float]], pad: bool, garbage: float
) -> None:
    labels = torch.tensor([p[0] for p in places], dtype=torch.int32).reshape(-1)
    coords = torch.tensor([p[1:] for p in places], dtype=torch.float32).reshape(-1, 2)
    used = labels >= 0
    filled = torch.where(used[:, None], coords, garbage)
    tokens, valid = encoder(pad).padded_point_tokens(filled[None], labels[None])
    assert tokens.shape == (1, len(places) + 1 + pad, 32)
    assert torch.allclose(tokens[valid], originals_tokens(coords[used], labels[used], pad), atol=1e-5)


def test_the_number_of_tokens_that_count_follows_the_prompt() -> None:
    rows = {"none": [-1, -1, -1, -1], "click": [1, -1, -1, -1], "box": [2, 3, -1, -1], "box and click": [2, 3, 1, -1]}
    labels = torch.tensor(list(rows.values()), dtype=torch.int32)
    _, valid = encoder().padded_point_tokens(torch.zeros(4, 4, 2), labels)
    assert valid.sum(1).tolist() == [2, 2, 3, 4]
    _, unpadded = encoder(pad=False).padded_point_tokens(torch.zeros(4, 4, 2), labels)
    assert unpadded.sum(1).tolist() == [1, 1, 2, 3]


def test_a_mask_is_resized_to_four_times_the_grid_first() -> None:
    mask = torch.rand(2, 1, 112, 112, generator=torch.Generator().manual_seed(0))
    found = encoder().mask_map(mask)
    assert found.shape == (2, 32, 8, 8)
    assert torch.equal(found, encoder().mask_downscaling(antialiased_resize(mask, 32)))
    small = mask[..., :32, :32]
    assert torch.equal(encoder().mask_map(small), encoder().mask_downscaling(small))


def test_no_mask_is_one_embedding_everywhere() -> None:
    assert encoder().no_mask_map().shape == (1, 32, 1, 1)
    assert torch.equal(encoder().no_mask_map().flatten(), encoder().no_mask_embed.weight[0])
