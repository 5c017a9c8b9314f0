"""Verify the programs of a recipe, each in its way: trackers over a clip, calls of foreign models against these, the
others in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from torch import nn

from samonnx.compile_summary import Figures
from samonnx.encoder_runs import EncoderRuns
from samonnx.engines import open_graph_for
from samonnx.foreign.verify_call import CallVerifier
from samonnx.models.reference_tracker import FramePrompt, ImageFeatures
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import tracked_model
from samonnx.recipe import Recipe
from samonnx.verify import Comparison, check_structure, require
from samonnx.verify_clip import EagerSteps, eager_maps, verify_clip
from samonnx.verify_program import ProgramVerifier

__all__ = ["RecipeVerifier", "clip_prompts"]


def clip_prompts(size: int) -> dict[int, FramePrompt]:
    """The synthetic clip's prompt in pixels of an image of that size: one positive click on the ellipse of frame 0, at
    (0.3, 0.4) of the image."""
    coords = torch.tensor([[0.3 * size, 0.4 * size]], dtype=torch.float32)
    return {0: FramePrompt(coords, torch.tensor([1], dtype=torch.int32))}


class RecipeVerifier:
    """Verifies the graphs of one program and target at a time, each program in its way; keeps what the eager side
    gave."""

    def __init__(self, recipe: Recipe, model: nn.Module | TrackedModel) -> None:
        self._recipe, self._foreign = recipe, CallVerifier(recipe.calls, recipe.verify.atol, recipe.verify.frames)
        self._encoders = EncoderRuns()
        tracked = tracked_model(model)
        if tracked is not None:
            self._model, self._calls = tracked, ProgramVerifier(tracked, recipe.verify.atol, self._encoders)
        self._maps: ImageFeatures | None = None
        self._steps: EagerSteps = {}

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Figures:
        """`graphs`: the program and its specialisations by name. Raises VerificationError."""
        for name, graph in graphs.items():
            check_structure(graph, name, target)
        if program.name == "track" and program.name not in self._recipe.calls:
            comparisons = self._verify_clip(graphs, target, program)
        else:
            comparisons = [
                Comparison(f"{name}: {one.what}", one.largest_error, one.tolerance)
                for name, graph in graphs.items()
                for one in self._verify_call(graph, target, program)
            ]
        require(comparisons)
        figures: Figures = []
        for comparison in comparisons:
            name, _, what = comparison.what.partition(": ")
            figures.append((name, target, Comparison(what, comparison.largest_error, comparison.tolerance)))
        return figures

    def _verify_call(self, graph: ir.Model, target: str, program: Program) -> Sequence[Comparison]:
        if program.name in self._recipe.calls:
            return self._foreign.verify(graph, program, open_graph_for(target))
        return self._calls.verify(graph, program, open_graph_for(target), target)

    def _verify_clip(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Sequence[Comparison]:
        self._maps = self._maps or self._calls.tracker_maps() or eager_maps(self._model)
        recipe, spec = self._recipe, self._recipe.verify
        prompts = clip_prompts(self._model.tracker.sizes.image_size)
        return verify_clip(
            graphs,
            self._model,
            program,
            recipe.memory,
            prompts,
            spec.frames,
            spec.atol,
            self._maps,
            open_graph_for(target),
            self._steps,
            self._encoders,
            target,
        )
