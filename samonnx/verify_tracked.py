"""Verify the programs of a model with a tracker of the SAM family: `track` over a clip, the others in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch

from samonnx.encoder_runs import EncoderRuns
from samonnx.engines import open_graph_for
from samonnx.models.reference_tracker import FramePrompt, ImageFeatures
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Program
from samonnx.recipe import Recipe
from samonnx.verify import Comparison
from samonnx.verify_clip import EagerSteps, eager_maps, verify_clip
from samonnx.verify_program import ProgramVerifier

__all__ = ["TrackedVerifier", "clip_prompts"]


def clip_prompts(size: int) -> dict[int, FramePrompt]:
    """The synthetic clip's prompt in pixels of an image of that size: one positive click on the ellipse of frame 0, at
    (0.3, 0.4) of the image."""
    coords = torch.tensor([[0.3 * size, 0.4 * size]], dtype=torch.float32)
    return {0: FramePrompt(coords, torch.tensor([1], dtype=torch.int32))}


class TrackedVerifier:
    """Verifies the graphs of one program and target at a time; keeps what the eager side gave."""

    def __init__(self, recipe: Recipe, model: TrackedModel) -> None:
        self._recipe, self._model = recipe, model
        self._encoders = EncoderRuns()
        self._calls = ProgramVerifier(model, recipe.verify.atol, self._encoders)
        self._maps: ImageFeatures | None = None
        self._steps: EagerSteps = {}

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Sequence[Comparison]:
        """As `ProgramChecks` says."""
        if program.name == "track":
            return self._verify_clip(graphs, target, program)
        return [
            one.of(name)
            for name, graph in graphs.items()
            for one in self._calls.verify(graph, program, open_graph_for(target), target)
        ]

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
