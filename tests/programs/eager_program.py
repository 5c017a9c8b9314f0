"""A tiny program run without tracing, and inputs for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from samonnx.eager_program import EagerRun
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program, example_tensors
from samonnx.programs.track import track_program
from samonnx.programs.track_bank import BANK
from samonnx.recipe import Recipe
from tests.tiny_model import tiny_model

__all__ = ["idle_feeds", "program_of", "run_program"]


def run_program(program: Program, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs by name, and the tracker's maps under the names that they have in the linked graph."""
    values = EagerRun().values(program, feeds)
    maps = {name.replace(".", "/"): tensor for name, tensor in values.items() if name.startswith("tracker_neck.")}
    return {port.name: values[port.name] for port in program.outputs} | maps


def program_of(recipe: Recipe, model: EfficientSAM3 | None = None) -> Program:
    return track_program(model or tiny_model(), recipe.memory, recipe.programs["track"])


def idle_feeds(program: Program) -> dict[str, Tensor]:
    feeds = example_tensors(program.inputs)
    feeds |= {t.input: torch.full_like(feeds[t.input], t.empty) for t in BANK}
    feeds["point_labels"] = torch.full_like(feeds["point_labels"], -1)
    feeds["attend_memory"] = torch.ones_like(feeds["attend_memory"])
    return feeds
