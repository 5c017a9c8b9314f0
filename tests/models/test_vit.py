"""SAM 3's image trunk against a plain definition: row-major cells, masks for windows, complex rotations."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.vit import PATCH, VIT_SIZES, ViTSize, ViTTrunk, from_windows, in_windows
from samonnx.models.vit_attention import ViTAttention, ViTBlock, scaled_rotary_table
from samonnx.pins import UnpinnedBranchError, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

TINY = VIT_SIZES["sam3_vit_tiny"]
CROPPED = ViTSize(width=16, depth=3, heads=2, hidden=24, window=3, position_side=4, global_blocks=(1,))


@cache
def trunk_of(size: ViTSize, grid: int, tiled: bool = True, rotary: bool = True) -> ViTTrunk:
    trunk = ViTTrunk(size, grid).eval().requires_grad_(False)
    fill_seeded(trunk)
    apply_pins(trunk, {"tile_positions": tiled, "blocks.*.attn.rotary": rotary})
    return trunk


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image_of(grid: int) -> Tensor:
    return noise(1, 3, PATCH * grid, PATCH * grid)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# The plain definition: cells f64 [grid², width], row-major.


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * weight + bias


def plain_rotation(grid: int, places: int, stretch: float, head_width: int) -> Tensor:
    """Unit complex numbers [grid², head_width // 2]; a cell's place is counted from the begin of its `places` cells."""
    angles = torch.zeros(grid * grid, head_width // 2, dtype=torch.float64)
    for cell in range(grid * grid):
        row, column = divmod(cell, grid)
        for i in range(head_width // 4):
            frequency = 10000.0 ** (-4 * i / head_width)
            for half, place in enumerate((column % places, row % places)):
                angles[cell, half * head_width // 4 + i] = place * stretch * frequency
    return torch.polar(torch.ones_like(angles), angles)


def plain_attention(x: Tensor, state: dict[str, Tensor], heads: int, turn: Tensor | None, together: Tensor) -> Tensor:
    """`together` bool [cells, cells]: which cells attend to each other."""
    width = x.shape[1]
    q, k, v = (x @ state["attn.qkv.weight"].T + state["attn.qkv.bias"]).split(width, dim=1)
    merged = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        a, b = q[:, part], k[:, part]
        if turn is not None:
            a, b = (torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) * turn for y in (a, b))
            logits = (a @ b.conj().T).real
        else:
            logits = a @ b.T
        logits = (logits / math.sqrt(width // heads)).masked_fill(~together, -math.inf)
        merged.append(torch.softmax(logits, dim=1) @ v[:, part])
    return torch.cat(merged, dim=1) @ state["attn.proj.weight"].T + state["attn.proj.bias"]


def plain_positions(trunk: ViTTrunk) -> Tensor:
    side, grid = trunk.size.position_side, trunk.grid
    rows = [1 + row % side * side + column % side for row in range(grid) for column in range(grid)]
    return trunk.pos_embed[0, rows].double()


def plain_trunk(trunk: ViTTrunk, image: Tensor, rotary: bool = True) -> Tensor:
    size, grid = trunk.size, trunk.grid
    state = {key: value.double() for key, value in trunk.state_dict().items()}
    patches = image[0].double().unflatten(2, (grid, PATCH)).unflatten(1, (grid, PATCH)).permute(1, 3, 0, 2, 4)
    x = patches.flatten(2).flatten(0, 1) @ state["patch_embed.proj.weight"].flatten(1).T + plain_positions(trunk)
    x = plain_norm(x, state["ln_pre.weight"], state["ln_pre.bias"])
    window_of = torch.tensor([(c // grid // size.window, c % grid // size.window) for c in range(grid * grid)])
    for index in range(size.depth):
        block = {k.removeprefix(f"blocks.{index}."): v for k, v in state.items() if k.startswith(f"blocks.{index}.")}
        everywhere = index in size.global_blocks
        places, stretch = (grid, size.window / grid) if everywhere else (size.window, 1.0)
        turn = plain_rotation(grid, places, stretch, size.width // size.heads) if rotary else None
        together = (window_of[:, None] == window_of[None]).all(-1) | everywhere
        y = plain_norm(x, block["norm1.weight"], block["norm1.bias"])
        x = x + plain_attention(y, block, size.heads, turn, together)
        y = plain_norm(x, block["norm2.weight"], block["norm2.bias"])
        hidden = y @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    trunk_map: Tensor = x.T.unflatten(1, (grid, grid))[None].float()
    return trunk_map


@pytest.mark.parametrize(("size", "grid"), [(TINY, 4), (TINY, 8), (CROPPED, 3), (CROPPED, 9)])
def test_it_equals_the_plain_definition_with_masked_windows_and_complex_rotations(size: ViTSize, grid: int) -> None:
    trunk, image = trunk_of(size, grid), image_of(grid)
    found = trunk(image)
    assert found.shape == (1, size.width, grid, grid)
    assert relative(found, plain_trunk(trunk, image)) < 3e-6


def test_without_rotary_positions_attention_sees_a_set_of_cells() -> None:
    trunk, image = trunk_of(TINY, 8, rotary=False), image_of(8)
    assert relative(trunk(image), plain_trunk(trunk, image, rotary=False)) < 3e-6
    assert relative(trunk(image), trunk_of(TINY, 8)(image)) > 1e-2


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_the_order_of_the_windows_is_a_permutation_and_its_inverse_is_exact(
    window: int, windows: int, batch: int
) -> None:
    side = window * windows
    cells = torch.arange(batch * side * side).reshape(batch, side, side, 1)
    ordered = in_windows(cells, window)
    assert torch.equal(from_windows(ordered, window, side), cells)
    first = ordered[0, : window * window, 0]
    assert torch.equal(first, cells[0, :window, :window, 0].flatten())
    # consecutive pieces are the windows, row by row
    corner = ordered[0, :: window * window, 0]
    assert torch.equal(corner, cells[0, ::window, ::window, 0].flatten())


def test_windowed_blocks_keep_to_their_window_and_a_global_block_does_not() -> None:
    windowed = ViTSize(TINY.width, 2, TINY.heads, TINY.hidden, 4, 4, global_blocks=())
    mixed = ViTSize(TINY.width, 2, TINY.heads, TINY.hidden, 4, 4, global_blocks=(1,))
    image = image_of(8)
    changed = image.clone()
    changed[:, :, 0, 0] += 1
    moved = (trunk_of(windowed, 8)(image) - trunk_of(windowed, 8)(changed)).abs().amax((0, 1))
    assert (moved[:4, :4] > 0).all()
    assert moved[4:].max() == 0
    assert moved[:, 4:].max() == 0
    everywhere = (trunk_of(mixed, 8)(image) - trunk_of(mixed, 8)(changed)).abs().amax((0, 1))
    assert (everywhere > 0).all()


def test_the_row_of_the_class_token_is_never_read() -> None:
    trunk, image = trunk_of(TINY, 8), image_of(8)
    expected = trunk(image)
    kept = trunk.pos_embed[:, 0].clone()
    trunk.pos_embed[:, 0] = 1e6
    found = trunk(image)
    trunk.pos_embed[:, 0] = kept
    assert torch.equal(found, expected)


@pytest.mark.parametrize("grid", [3, 6, 9, 12])
def test_tiled_positions_repeat_the_table_cell_by_cell(grid: int) -> None:
    trunk = trunk_of(CROPPED, grid)
    assert torch.equal(trunk.positions()[0].flatten(0, 1).double(), plain_positions(trunk))


def cubic(distance: float) -> float:
    """Keys' cubic convolution kernel with a = -0.75."""
    d = abs(distance)
    if d <= 1:
        return 1.25 * d**3 - 2.25 * d**2 + 1
    return -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


@pytest.mark.parametrize("grid", [3, 6, 9])
def test_positions_that_are_not_tiled_are_resized_bicubically(grid: int) -> None:
    trunk, side = trunk_of(CROPPED, grid, tiled=False), CROPPED.position_side
    weight = torch.zeros(grid, side, dtype=torch.float64)
    for i in range(grid):
        centre = (i + 0.5) * side / grid - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weight[i, min(max(j, 0), side - 1)] += cubic(j - centre)
    table = trunk.pos_embed[0, 1:].double().unflatten(0, (side, side))
    expected = torch.einsum("ai,bj,ijc->abc", weight, weight, table)
    assert relative(trunk.positions()[0].double(), expected) < 1e-6


def test_a_table_of_the_grids_own_size_is_taken_as_it_is() -> None:
    for tiled in (True, False):
        trunk = trunk_of(TINY, 4, tiled=tiled)
        assert torch.equal(trunk.positions().flatten(1, 2), trunk.pos_embed[:, 1:])


@given(st.sampled_from([4, 8, 16]), st.integers(2, 6), st.integers(1, 6), st.data())
def test_turned_products_depend_on_the_distance_alone(
    head_width: int, side: int, trained: int, data: st.DataObject
) -> None:
    cosine, sine = scaled_rotary_table(head_width, side, trained)
    grid = torch.complex(cosine, sine).unflatten(0, (side, side))
    place = st.integers(0, side - 1)
    (row, column), (other_row, other_column) = data.draw(st.tuples(place, place)), data.draw(st.tuples(place, place))
    down, right = abs(row - other_row), abs(column - other_column)
    difference = (
        grid[max(row, other_row), max(column, other_column)]
        * grid[min(row, other_row), min(column, other_column)].conj()
    )
    assert torch.allclose(difference, grid[down, right], atol=1e-5)
    assert torch.allclose(grid.abs(), torch.ones(()), atol=1e-6)


def test_a_stretched_table_spans_the_positions_of_training() -> None:
    cosine, sine = scaled_rotary_table(8, 12, 4)
    trained_cosine, trained_sine = scaled_rotary_table(8, 4, 4)
    for stretched, trained in ((cosine, trained_cosine), (sine, trained_sine)):
        every_third = stretched.unflatten(0, (12, 12))[::3, ::3].flatten(0, 1)
        assert torch.allclose(every_third, trained, atol=1e-6)


def test_windows_that_leave_a_rest_are_refused_with_sizes_that_would_do() -> None:
    with pytest.raises(SamonnxError) as caught:
        ViTTrunk(TINY, 9)
    assert str(caught.value) == (
        "model.args.image_size: 126 pixels give 9 cells a side, which windows of 4 do not cover without a rest; "
        "take a multiple of 56"
    )


def test_an_unpinned_trunk_does_not_run() -> None:
    trunk = ViTTrunk(TINY, 4).eval()
    with pytest.raises(UnpinnedBranchError, match=r"ViTTrunk\.tile_positions"):
        trunk(image_of(4))
    apply_pins(trunk, {"tile_positions": True, "blocks.*.attn.rotary": True})
    unpinned = ViTAttention(8, 2)
    with pytest.raises(UnpinnedBranchError, match=r"ViTAttention\.rotary"):
        unpinned(noise(1, 4, 8), scaled_rotary_table(4, 2, 2))


def test_the_released_trunk_has_the_published_figures() -> None:
    with torch.device("meta"):
        trunk = ViTTrunk(VIT_SIZES["sam3_vit"], 72)
    shapes = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    assert sum(map(math.prod, shapes.values())) == 446_237_696
    assert shapes["pos_embed"] == (1, 577, 1024)
    assert shapes["patch_embed.proj.weight"] == (1024, 3, 14, 14)
    assert shapes["blocks.31.attn.qkv.weight"] == (3072, 1024)
    assert shapes["blocks.31.mlp.fc1.weight"] == (4736, 1024)
    blocks = [block.windows for block in trunk.blocks if isinstance(block, ViTBlock)]
    assert Counter(blocks) == {9: 28, 1: 4}
    assert [index for index, windows in enumerate(blocks) if windows == 1] == [7, 15, 23, 31]


@pytest.mark.parametrize("tiled", [True, False])
def test_onnx_runtime_gives_the_same_map(tiled: bool) -> None:
    trunk, image = trunk_of(TINY, 8, tiled=tiled), image_of(8)
    traced = trace(Component("trunk", trunk, {"image": image}, ("trunk_map",)))
    found = GraphSession(traced.model, threads=1).run({"image": image.numpy()})["trunk_map"]
    assert relative(torch.from_numpy(found), trunk(image)) < 3e-6
