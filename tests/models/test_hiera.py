"""Hiera against its plain definition, in ONNX Runtime, and against the published figures."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.hiera import HIERA_SIZES, Hiera, HieraBlock, HieraSizes, bicubic_matrix
from samonnx.models.hiera_windows import row_major
from samonnx.passes.constant_region import constant_region
from samonnx.passes.fold_constants import FoldConstants
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded
from tests.models.plain_hiera import plain_positions, plain_trunk

IMAGE_SIZE = 128
# Maps of 32, 16, 8 and 4 cells a side. As t, s and b+ have it: the last two stages' windows reach over the edge, two
# poolings happen within the first windows, a global block meets cells in windows and one meets them row by row.
PADDED = HieraSizes(8, 1, (1, 2, 4, 2), (8, 4, 6, 3), (4, 6), 3)
# As l has it: all windows fit, and those of the last stage are the pooled ones of the stage before.
FITTING = HieraSizes(8, 2, (2, 2, 3, 2), (8, 4, 4, 2), (6, 8), 5)
# Windows larger than their maps, windows that fit without being those before, a global block first.
UNEVEN = HieraSizes(8, 2, (2, 1, 2, 2), (4, 16, 10, 5), (0,), 2)
SIZES = {"padded": PADDED, "fitting": FITTING, "uneven": UNEVEN}

each_size = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


@cache
def trunk_of(sizes: HieraSizes, image_size: int = IMAGE_SIZE) -> Hiera:
    trunk = Hiera(sizes, image_size).eval().requires_grad_(False)
    fill_seeded(trunk)
    return trunk


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image_of(side: int = IMAGE_SIZE) -> Tensor:
    return noise(1, 3, side, side)


def relative(found: Tensor, expected: Tensor | npt.NDArray[Any]) -> float:
    wanted = torch.as_tensor(expected).double()
    assert found.shape == wanted.shape
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@each_size
def test_the_four_maps_equal_the_plain_definition_window_by_window(sizes: HieraSizes) -> None:
    trunk, image = trunk_of(sizes), image_of()
    maps = trunk(image)
    assert [tuple(found.shape) for found in maps] == [(1, 8, 32, 32), (1, 16, 16, 16), (1, 32, 8, 8), (1, 64, 4, 4)]
    for found, expected in zip(maps, plain_trunk(trunk, image), strict=True):
        assert relative(found, expected) < 3e-6


def test_cells_of_padding_are_attended_with_the_bias_of_the_projections() -> None:
    trunk, image = trunk_of(PADDED), image_of()
    as_masked = plain_trunk(trunk, image, masked=True)
    first, second, third, fourth = trunk(image)
    assert relative(first, as_masked[0]) < 3e-6
    assert relative(second, as_masked[1]) < 3e-6
    assert relative(third, as_masked[2]) > 1e-3
    assert relative(fourth, as_masked[3]) > 1e-3


def test_a_window_of_padding_and_one_cell_attends_to_the_biases() -> None:
    """With keys all alike, each value counts the same: here one cell of nine, and eight times the bias."""
    block = HieraBlock(4, 4, 1, row_major(1), window=3).eval().requires_grad_(False)
    fill_seeded(block)
    block.attn.qkv.weight[:8] = 0
    x = noise(1, 1, 4)
    _, _, bias = block.attn.qkv.bias.chunk(3)
    value = block.norm1(x) @ block.attn.qkv.weight[8:].T + bias
    attended = x + block.attn.proj((value + 8 * bias) / 9)
    assert relative(block(x), attended + block.mlp(block.norm2(attended))) < 1e-6


def change(trunk: Hiera, image: Tensor) -> list[Tensor]:
    """How much each cell of each map differs from that of `image_of()`."""
    pairs = zip(trunk(image_of()), trunk(image), strict=True)
    return [(a - b).abs().amax((0, 1)) for a, b in pairs]


def test_windowed_blocks_keep_to_their_window_and_a_global_block_does_not() -> None:
    changed = image_of()
    changed[:, :, 0, 0] += 1
    windowed = HieraSizes(8, 1, (1, 1, 1, 1), (8, 4, 2, 1), (), 3)
    moved = change(trunk_of(windowed), changed)
    for difference, window in zip(moved, windowed.windows, strict=True):
        assert (difference[:window, :window] > 0).all()
        assert difference[window:].max() == 0
        assert difference[:, window:].max() == 0
    everywhere = HieraSizes(8, 1, (1, 1, 2, 1), (8, 4, 2, 1), (3,), 3)
    first, second, third, fourth = change(trunk_of(everywhere), changed)
    assert first[8:].max() == second[4:].max() == 0
    assert (third > 0).all()
    assert (fourth > 0).all()


@each_size
def test_images_of_a_batch_are_independent(sizes: HieraSizes) -> None:
    trunk, images = trunk_of(sizes), noise(2, 3, IMAGE_SIZE, IMAGE_SIZE, seed=1)
    for together, *alone in zip(trunk(images), trunk(images[:1]), trunk(images[1:]), strict=True):
        assert relative(together, torch.cat(alone)) < 3e-6


@pytest.mark.parametrize("image_size", [32, 96, 160])
def test_other_multiples_of_32_work(image_size: int) -> None:
    trunk = trunk_of(PADDED, image_size)
    image = image_of(image_size)
    maps = trunk(image)
    assert [found.shape[-1] for found in maps] == [image_size // 4 >> stage for stage in range(4)]
    for found, expected in zip(maps, plain_trunk(trunk, image), strict=True):
        assert relative(found, expected) < 3e-6


@given(inputs=st.integers(1, 16), outputs=st.integers(1, 40), dtype=st.just(torch.float64))
@settings(max_examples=50, deadline=None)
@example(7, 256, torch.float32)
@example(14, 256, torch.float32)
def test_a_bicubic_resize_is_pytorchs(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    # In float32 PyTorch's own weights are rounded; at the sizes of the released models it stays within the bound.
    matrix, table = bicubic_matrix(inputs, outputs), noise(1, 3, inputs, inputs)
    expected = F.interpolate(table.to(dtype), size=(outputs, outputs), mode="bicubic", align_corners=False)
    assert relative(matrix @ table @ matrix.T, expected) < 1e-6


@each_size
def test_positions_are_the_resized_table_and_the_windows_repeated(sizes: HieraSizes) -> None:
    trunk = trunk_of(sizes)
    assert relative(trunk.positions()[0], plain_positions(trunk)) < 1e-6


def test_onnx_runtime_gives_the_same_maps() -> None:
    # Two poolings in the first windows, a global block among windows, then windows that reach over the edge.
    trunk, image = trunk_of(HieraSizes(8, 1, (1, 1, 3, 1), (8, 4, 6, 3), (3,), 3)), image_of()
    names = ("first", "second", "third", "fourth")
    model = trace(Component("trunk", trunk, {"image": image}, names)).model
    found = GraphSession(model, threads=1).run({"image": image.numpy()})
    for name, expected in zip(names, trunk(image), strict=True):
        assert relative(torch.from_numpy(found[name]), expected) < 3e-6
    FoldConstants()(model)
    assert not constant_region(model, largest_result=None).nodes, "positions are computed anew for every image"


def block_windows(name: str) -> list[int]:
    with torch.device("meta"):
        blocks = [block for block in Hiera(HIERA_SIZES[name]).blocks if isinstance(block, HieraBlock)]
    return [0 if block.attends is None else block.attends.window for block in blocks]


def test_the_released_trunks_have_the_published_windows() -> None:
    tail = [14, 7]
    assert block_windows("t") == [8, 8, 4, 4, 14, 0, 14, 0, 14, 0, *tail]
    assert block_windows("s") == [8, 8, 4, 4, 14, 14, 14, 0, 14, 14, 0, 14, 14, 0, *tail]
    assert block_windows("b+") == [8] * 3 + [4] * 3 + [14] * 6 + [0] + [14] * 3 + [0] + [14] * 3 + [0, *tail, 7]
    assert block_windows("l") == [8] * 3 + [4] * 6 + [16] * 14 + [0] + [16] * 9 + [0] + [16] * 9 + [0, 16, 8, 8, 8]
    assert {name: sizes.pooling_blocks for name, sizes in HIERA_SIZES.items()} == {
        "t": (1, 3, 10),
        "s": (1, 3, 14),
        "b+": (2, 5, 21),
        "l": (2, 8, 44),
    }


def test_in_the_released_large_trunk_cells_change_their_layout_once() -> None:
    with torch.device("meta"):
        blocks = [block for block in Hiera(HIERA_SIZES["l"]).blocks if isinstance(block, HieraBlock)]
    moves = [index + 1 for index in range(47) if blocks[index].leaves != blocks[index + 1].arrives]
    assert moves == [9]


@pytest.mark.parametrize("image_size", [0, -32, 48, 1000])
def test_sizes_that_leave_a_rest_are_refused_with_what_would_do(image_size: int) -> None:
    with pytest.raises(SamonnxError) as caught:
        Hiera(PADDED, image_size)
    assert str(caught.value) == (
        f"model.args.image_size: {image_size} pixels; Hiera takes multiples of 32 (32, for its four stages, and 32, "
        "for its first windows)"
    )
    with pytest.raises(SamonnxError, match="multiples of 96 "):
        Hiera(HieraSizes(8, 1, (1, 1, 1, 1), (12, 4, 2, 1), (), 3), 128)


def test_an_image_of_another_size_is_refused() -> None:
    for shape in ((1, 3, 64, 64), (1, 3, IMAGE_SIZE, 96), (1, 1, IMAGE_SIZE, IMAGE_SIZE)):
        with pytest.raises(SamonnxError, match=r"this trunk was built for \[1, 3, 128, 128\]"):
            trunk_of(PADDED)(torch.zeros(shape))


def test_figures_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SamonnxError, match="3 heads do not divide a width of 8"):
        HieraSizes(8, 3, (1, 1, 1, 1), (8, 4, 2, 1), (), 3)
    with pytest.raises(SamonnxError, match="windows of 7 cells a side cannot be pooled"):
        HieraSizes(8, 1, (1, 1, 1, 1), (8, 4, 7, 7), (), 3)
    for block in (1, 2, 3, 4, -1):
        with pytest.raises(SamonnxError, match=f"block {block} cannot be global; there are blocks 0 to 3, and 1, 2, 3"):
            HieraSizes(8, 1, (1, 1, 1, 1), (8, 4, 2, 1), (block,), 3)
