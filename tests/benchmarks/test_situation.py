"""The situation that is measured: the eager step and the compiled graph must see the same bank, full or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.eager import BothNecks, EagerStep, levels_read_by_detection, levels_read_by_tracking
from benchmarks.graph_step import GraphStep
from benchmarks.situation import full_bank_length, make_situation
from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.track import track_program
from samonnx.recipe import load_recipe
from samonnx.verify import compare
from tests.compiled_artifact import TINY

RECIPE = load_recipe(TINY)


@pytest.fixture(scope="module")
def model() -> EfficientSAM3:
    return cast(EfficientSAM3, build_model(RECIPE).module)


@pytest.mark.parametrize(
    ("length", "memories", "pointers"), [(1, 1, 1), (3, 3, 3), (9, 7, 9), (16, 7, 16), (20, 7, 16)]
)
def test_earlier_frames_fill_the_bank_as_tracking_would(
    model: EfficientSAM3, length: int, memories: int, pointers: int
) -> None:
    situation = make_situation(model, RECIPE.memory, length)
    assert (len(situation.memory_frames), len(situation.pointer_frames)) == (memories, pointers)
    feeds = situation.program_feeds(track_program(model, RECIPE.memory, RECIPE.programs["track"]), RECIPE.memory)
    for name, frames in (("bank.memory_frame", memories), ("bank.pointer_frame", pointers)):
        assert np.count_nonzero(feeds[name] >= 0) == frames


def test_the_bank_is_full_as_soon_as_it_can_be(model: EfficientSAM3) -> None:
    length = full_bank_length(RECIPE.memory)
    assert len(make_situation(model, RECIPE.memory, length).pointer_frames) == 16
    assert len(make_situation(model, RECIPE.memory, length - 1).pointer_frames) == 15


@pytest.mark.parametrize("length", [1, 3, 16])
def test_the_compiled_graph_gives_the_eager_step_s_masks(
    model: EfficientSAM3, artifacts: Callable[..., Path], length: int
) -> None:
    situation = make_situation(model, RECIPE.memory, length)
    expected = EagerStep(model, situation)()
    feeds = situation.program_feeds(track_program(model, RECIPE.memory, RECIPE.programs["track"]), RECIPE.memory)
    found = GraphStep(artifacts() / "track.onnx", feeds, threads=1)()
    assert compare("low_res_masks", found["low_res_masks"], expected["low_res_masks"], 1e-4).ok


@pytest.mark.parametrize("both_necks", [False, True])
def test_an_eager_step_leaves_the_situation_as_it_was(model: EfficientSAM3, both_necks: bool) -> None:
    situation = make_situation(model, RECIPE.memory, 4)
    eager = EagerStep(model, situation)
    step = BothNecks(model, eager, levels_read_by_tracking(model)) if both_necks else eager
    first, second = step(), step()
    assert set(situation.tracker.others) == {1, 2, 3}
    assert set(situation.tracker.conditioning) == {0}
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_original_s_two_necks_change_no_number(model: EfficientSAM3) -> None:
    situation = make_situation(model, RECIPE.memory, 4)
    one = EagerStep(model, situation)
    two = BothNecks(model, one, levels_read_by_tracking(model))
    assert all(np.array_equal(a, b) for a, b in zip(one().values(), two().values(), strict=True))
    grid, c = 8, 32  # by hand: the trunk and every level are 32 wide, 2x2 transposed convolutions, 1x1, 3x3

    def convolutions(width: int, side: int) -> int:
        return 2 * side**2 * (width * c + 9 * c * c)

    fine = 2 * 4 * (grid**2 * 32 * 16 + (2 * grid) ** 2 * 16 * 8) + convolutions(8, 4 * grid)
    middle = 2 * 4 * grid**2 * 32 * 16 + convolutions(16, 2 * grid)
    assert two.unread_flops() == fine + middle + convolutions(32, grid) + 2 * convolutions(32, grid // 2)


def detect(model: EfficientSAM3, image: torch.Tensor) -> dict[str, Array]:
    """The detector's maps by way of the trunk's parts, as the components of a program go."""
    backbone = model.detector.backbone.vision_backbone
    maps = backbone.detector_maps(backbone.trunk.to_grid(backbone.trunk.encode(image)))
    return {str(level): one.numpy() for level, one in enumerate(maps)}


@pytest.mark.parametrize("task", ["track", "detect"])
def test_the_levels_that_are_not_read_run_once_in_every_step_and_never_after_it(
    model: EfficientSAM3, task: str
) -> None:
    """Eight levels in all: detection and tracking read three each, and both leave the others to be computed."""
    eager = EagerStep(model, make_situation(model, RECIPE.memory, 4))
    image = eager.situation.image
    step = {
        "track": BothNecks(model, eager, levels_read_by_tracking(model)),
        "detect": BothNecks(model, lambda: detect(model, image), levels_read_by_detection(model)),
    }[task]
    ran: list[nn.Module] = []
    assert len(step.unread) == 5
    hooks = [level.register_forward_hook(lambda level, *_: ran.append(level)) for level in step.unread]
    for _ in range(2):
        step()
        assert sorted(map(id, ran)) == sorted(map(id, step.unread))
        ran.clear()
    with torch.inference_mode():
        eager() if task == "track" else detect(model, image)
    assert ran == []
    for hook in hooks:
        hook.remove()


def test_a_step_that_does_not_read_its_neck_cannot_pass_for_one_with_both(model: EfficientSAM3) -> None:
    step = BothNecks(model, dict, levels_read_by_tracking(model))
    with pytest.raises(SamonnxError, match="ran 0 times in a step, expected once"):
        step()


def test_inference_mode_does_not_leak(model: EfficientSAM3) -> None:
    EagerStep(model, make_situation(model, RECIPE.memory, 2))()
    assert not torch.is_inference_mode_enabled()
