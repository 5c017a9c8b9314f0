"""Layouts of a map's cells: windows and back, poolings, and the way from one layout to another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.hiera_windows import WindowLayout, pool_cells, row_major


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


layouts = st.builds(
    lambda squares, pools, side: WindowLayout(side, squares << pools, pools),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 20),
)


@given(layouts, st.integers(1, 2))
@settings(deadline=None)
def test_a_map_comes_back_from_its_windows(layout: WindowLayout, batch: int) -> None:
    x = noise(batch, layout.side, layout.side, 2)
    windows = layout.split(x)
    assert windows.shape == (batch * layout.across**2, layout.window**2, 2)
    assert torch.equal(layout.join(windows), x)


@given(layouts, st.integers(1, 2))
@settings(deadline=None)
def test_windows_hold_the_cells_of_their_part_of_the_map_and_zeros_beyond_the_edge(
    layout: WindowLayout, batch: int
) -> None:
    x = noise(batch, layout.side, layout.side, 1)
    windows = iter(layout.split(x))
    for image in x:
        for top in range(0, layout.side, layout.window):
            for left in range(0, layout.side, layout.window):
                expected = torch.zeros(layout.window, layout.window)
                part = image[top : top + layout.window, left : left + layout.window, 0]
                expected[: part.shape[0], : part.shape[1]] = part
                found = next(windows).flatten()
                if layout.pools == 0:
                    assert torch.equal(found, expected.flatten())
                assert torch.equal(found.sort().values, expected.flatten().sort().values)
    assert next(windows, None) is None


@given(layouts.filter(lambda layout: layout.pools > 0 and layout.side % 2 == 0), st.integers(1, 2))
@settings(deadline=None)
def test_pooling_in_windows_is_pooling_the_map(layout: WindowLayout, batch: int) -> None:
    x = noise(batch, layout.side, layout.side, 2)
    pooled = F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    found = pool_cells(layout.split(x))
    assert torch.equal(layout.pooled().join(found), pooled)
    if layout.fits:
        assert torch.equal(found, layout.pooled().split(pooled))


@given(layouts, st.integers(1, 6), st.integers(0, 2))
@settings(deadline=None)
def test_cells_move_from_one_layout_to_another(layout: WindowLayout, squares: int, pools: int) -> None:
    x, other = noise(1, layout.side, layout.side, 2), WindowLayout(layout.side, squares << pools, pools)
    assert torch.equal(layout.move(layout.split(x), other), other.split(x))
    assert torch.equal(row_major(layout.side).split(x), x.flatten(1, 2))
