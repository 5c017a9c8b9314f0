"""Hiera's feature pyramid: four projections, one sum, and what belongs to which level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.hiera_neck import HieraNeck
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTHS = (4, 8, 12, 16)


def seeded_neck() -> HieraNeck:
    neck = HieraNeck(WIDTHS, channels=6).eval().requires_grad_(False)
    fill_seeded(neck)
    return neck


def stage_maps(seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, width, 24 >> i, 24 >> i, generator=generator) for i, width in enumerate(WIDTHS))


def projected(neck: HieraNeck, features: Tensor, conv: int) -> Tensor:
    """Each cell by itself through the matrix of `convs.<conv>`."""
    state = neck.state_dict()
    matrix = state[f"convs.{conv}.conv.weight"][:, :, 0, 0]
    level: Tensor = torch.einsum("oc,bcyx->boyx", matrix, features) + state[f"convs.{conv}.conv.bias"][:, None, None]
    return level


def test_the_first_convolution_belongs_to_the_coarsest_map() -> None:
    shapes = [tuple(value.shape) for key, value in HieraNeck(WIDTHS, 6).state_dict().items() if key.endswith("weight")]
    assert shapes == [(6, 16, 1, 1), (6, 12, 1, 1), (6, 8, 1, 1), (6, 4, 1, 1)]


def test_the_third_level_is_its_projection_plus_each_coarsest_cell_repeated_four_times() -> None:
    neck, maps = seeded_neck(), stage_maps()
    coarsest = projected(neck, maps[3], 0)
    place = torch.arange(6) // 2
    repeated = coarsest[:, :, place[:, None], place[None, :]]
    found = neck(maps)
    assert [tuple(level.shape) for level in found] == [(1, 6, 24, 24), (1, 6, 12, 12), (1, 6, 6, 6)]
    assert torch.allclose(found[2], projected(neck, maps[2], 1) + repeated, atol=1e-6)


def test_the_first_two_levels_are_projections_of_their_own_map_alone() -> None:
    neck, maps = seeded_neck(), stage_maps()
    first, second, _ = neck(maps)
    assert torch.allclose(first, projected(neck, maps[0], 3), atol=1e-6)
    assert torch.allclose(second, projected(neck, maps[1], 2), atol=1e-6)
    moved_first, moved_second, _ = neck((*maps[:2], *stage_maps(1)[2:]))
    assert torch.equal(moved_first, first)
    assert torch.equal(moved_second, second)


def test_onnx_runtime_gives_the_same_levels() -> None:
    class FromFourMaps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neck = seeded_neck()

        def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            levels: tuple[Tensor, Tensor, Tensor] = self.neck((a, b, c, d))
            return levels

    feeds = dict(zip("abcd", stage_maps(), strict=True))
    names = ("level_0", "level_1", "level_2")
    traced = trace(Component("neck", FromFourMaps(), feeds, names))
    found = GraphSession(traced.model, threads=1).run({name: value.numpy() for name, value in feeds.items()})
    for name, expected in zip(names, seeded_neck()(stage_maps()), strict=True):
        assert torch.allclose(torch.from_numpy(found[name]), expected, atol=1e-6)


def test_maps_that_do_not_double_are_refused() -> None:
    first, second, third, fourth = stage_maps()
    for wrong in ((first, second, third), (first, second, fourth, third), (first, second, third, fourth[..., :2])):
        with pytest.raises(SamonnxError, match="four maps, each of twice the sides of the next"):
            seeded_neck()(wrong)
    with pytest.raises(SamonnxError, match="maps of four stages"):
        HieraNeck((4, 8, 16))
