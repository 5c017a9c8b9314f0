"""Both sides over one clip, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from samonnx.models.reference_tracker import ImageFeatures
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import RowInputs
from samonnx.runtime.preprocessing import network_image
from samonnx.runtime.prompt_rows import row_inputs
from samonnx.runtime.prompts import Prompts
from samonnx.validation import FrameFigures, SideFrame, frame_figures
from samonnx.validation_clip import Clip
from samonnx.validation_sides import OBJECT, EagerSide, GraphSide

__all__ = ["Comparer"]


class Comparer:
    """Steps `graph` and `eager` through a clip. `from_reference`: the graph starts every step from the reference's
    memory. A prompt after the object's first is a correction, as in the runtime's Tracker: the frame is tracked, then
    tracked again with the prompt and the frame's own logits; a mask prompt is given at once."""

    def __init__(self, manifest: Manifest, graph: GraphSide, eager: EagerSide, *, from_reference: bool) -> None:
        self._manifest, self._graph, self._eager = manifest, graph, eager
        self._from_reference = from_reference

    def run(self, clip: Clip) -> Iterator[FrameFigures]:
        """The figures of every frame from the object's first prompt on. Raises PromptError for a prompt beyond the
        last frame, VideoError, SessionError."""
        length = 0
        for index, frame in enumerate(clip.frames):
            length = index + 1
            if index >= clip.first:
                yield self._frame(clip, index, network_image(frame, self._manifest.seeing(), kind=clip.kind))
        clip.check_length(max(clip.prompts), length)

    def _frame(self, clip: Clip, index: int, image: npt.NDArray[np.float32]) -> FrameFigures:
        prompts = clip.prompts.get(index)
        corrects = prompts is not None and index > clip.first and prompts.mask is None
        given = None if prompts is None or corrects else self._row(clip, prompts)
        bank = None
        if self._from_reference and index > clip.first:
            bank = self._eager.bank(self._manifest, index)
        maps = self._eager.encode(image)
        found = self._graph.step(index, image, given, bank)
        shown = _given_maps(found, maps)
        expected = self._eager.step(index, shown, given)
        if corrects and prompts is not None:
            again = self._row(clip, prompts, expected)
            theirs = again if self._from_reference else self._row(clip, prompts, found)
            found = self._graph.correct(index, image, theirs)
            expected = self._eager.step(index, shown, again)
        return frame_figures(
            index,
            self._graph.graph,
            found,
            expected,
            prompted=prompts is not None,
            width=clip.width,
            height=clip.height,
            encoder_maps={name: getattr(maps, name).numpy() for name in found.maps},
        )

    def _row(self, clip: Clip, prompts: Prompts, earlier: SideFrame | None = None) -> RowInputs:
        """The prompts as a row of the graph, with the frame's `earlier` logits."""
        logits = None if earlier is None else earlier.low_res_masks[None]
        return row_inputs(self._manifest, OBJECT, prompts, width=clip.width, height=clip.height, earlier=logits)


def _given_maps(found: SideFrame, own: ImageFeatures) -> ImageFeatures:
    """The graph's maps where they were read off, else the reference's own."""
    if not found.maps:
        return own
    return ImageFeatures(**{name: torch.from_numpy(array) for name, array in found.maps.items()})
