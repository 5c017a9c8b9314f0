"""Verify the programs of SAM in front of XMem: those of XMem as `samonnx.verify_xmem` does, and `start`.

`start` runs twice: a click on the first frame of an empty bank, then, with a full memory, a box for the last object,
while the others, if there are any, have no prompt. Empty places hold other numbers in the graph's inputs than in the
eager module's. It is compared in three parts, each with what the graph made of the one before: SAM's features, the mask
logits from them, and the step with the graph's own masks given (a pixel whose logit is 0 up to rounding may fall on
either side).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from samonnx.eager_lock import EAGER_LOCK
from samonnx.engines import open_graph_for
from samonnx.graph_session import Array
from samonnx.models.sam_geometry import network_image, resized_size
from samonnx.models.sam_xmem import PromptMasks, SamXMem
from samonnx.models.xmem_bank import XMemBank, empty_bank
from samonnx.probed import probed
from samonnx.programs.program import Program
from samonnx.programs.sam_xmem import LINKED_FEATURES
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.seeded import seeded_frame
from samonnx.verify import Comparison, compare
from samonnx.verify_xmem import STEP_PROBES, StepFrame, XMemVerifier, filled_bank, xmem_frame

__all__ = ["SamXMemVerifier"]

GARBAGE = 77.0
"""What lies in empty places, in the graph's inputs."""

CLICK = ((0.3, 0.4, 1),)
BOX = ((0.18, 0.31, 2), (0.42, 0.49, 3))
"""Around the ellipse of the synthetic frame: x, y as shares of the frame, label."""

FIRST_NUMBER = 1000
"""Behind the numbers of the frames of XMem's clip."""


@dataclass(frozen=True)
class _Start:
    """A frame of the clip, the prompts in it, and the bank before it."""

    index: int
    point_coords: Tensor
    point_labels: Tensor
    bank: XMemBank


class SamXMemVerifier:
    """Verifies the graphs of one program and target at a time; keeps what the eager side gave."""

    def __init__(self, model: SamXMem, sizes: XMemSizes, frames: int, tolerance: float) -> None:
        self._model, self._sizes, self._tolerance = model, sizes, tolerance
        self._xmem = XMemVerifier(model.xmem, sizes, frames, tolerance)
        self._features: dict[int, Tensor] = {}

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Sequence[Comparison]:
        """As `ProgramChecks` says: the worst figure of each output."""
        if program.name != "start":
            return self._xmem.verify(graphs, target, program)
        worst: dict[str, Comparison] = {}
        places = next(port.sides()[1] for port in program.inputs if port.name == "point_labels")
        for name, graph in graphs.items():
            for one in (comparison.of(name) for comparison in self._starts(name, graph, target, places)):
                if one.what not in worst or not one.largest_error <= worst[one.what].largest_error:
                    worst[one.what] = one
        return tuple(worst.values())

    def _starts(self, name: str, graph: ir.Model, target: str, places: int) -> Iterator[Comparison]:
        opened = open_graph_for(target)(probed(graph, (LINKED_FEATURES, *STEP_PROBES.values())))
        gives = [str(value.name) for value in graph.graph.outputs]
        sizes = self._sizes
        for start in self._frames(places):
            image = torch.from_numpy(xmem_frame(start.index, sizes.height, sizes.width))
            prompt_image = _prompt_image(self._model, sizes, start.index)
            empty = start.point_labels[..., None] < 0
            found = opened.run(
                {
                    "image": image.numpy(),
                    "prompt_image": prompt_image.numpy(),
                    "point_coords": torch.where(empty, GARBAGE, start.point_coords).numpy(),
                    "point_labels": start.point_labels.numpy(),
                    **{f"bank.{field}": tensor.numpy() for field, tensor in start.bank._asdict().items()},
                }
            )
            features = self._eager_features(start.index, prompt_image)
            if LINKED_FEATURES in found:
                yield compare("SAM's features", found[LINKED_FEATURES], features.numpy(), self._tolerance)
                features = torch.from_numpy(found[LINKED_FEATURES])
            expected = self._eager_masks(features, start)
            yield compare("prompt_masks", found["prompt_masks"], expected.logits.numpy(), self._tolerance)
            yield compare("prompt_ious", found["prompt_ious"], expected.ious.numpy(), self._tolerance)
            frame = _step_frame(start, image, expected.is_given, found["prompt_masks"])
            yield from self._xmem.step_figures(FIRST_NUMBER + start.index, frame, name, gives, found)

    def _frames(self, places: int) -> Iterator[_Start]:
        sizes, size = self._sizes, self._model.sam.sizes.image_size
        part = torch.tensor(resized_size((sizes.height, sizes.width), size)[::-1], dtype=torch.float32)
        empty = empty_bank(sizes.memory, sizes.widths, sizes.objects, *sizes.grid)
        prompts = ((0, CLICK, empty), (sizes.objects - 1, BOX if places > 1 else CLICK, filled_bank(sizes)))
        for index, (row, points, bank) in enumerate(prompts):
            coords = torch.zeros(sizes.objects, places, 2)
            labels = torch.full((sizes.objects, places), -1, dtype=torch.int32)
            for place, (x, y, label) in enumerate(points):
                coords[row, place] = torch.tensor([x, y]) * part
                labels[row, place] = label
            yield _Start(index, coords, labels, bank)

    def _eager_features(self, index: int, prompt_image: Tensor) -> Tensor:
        if index not in self._features:
            with EAGER_LOCK, torch.inference_mode():
                self._features[index] = self._model.sam.encode_image(prompt_image)
        return self._features[index]

    def _eager_masks(self, features: Tensor, start: _Start) -> PromptMasks:
        frame = self._sizes.height, self._sizes.width
        with EAGER_LOCK, torch.inference_mode():
            return self._model.find_masks(features, start.point_coords, start.point_labels, frame)


def _prompt_image(model: SamXMem, sizes: XMemSizes, index: int) -> Tensor:
    """The clip's frame as SAM takes it: f32 [1, 3, S, S]."""
    size = model.sam.sizes.image_size
    height, width = resized_size((sizes.height, sizes.width), size)
    picture = torch.from_numpy(seeded_frame(index, size, seed=index))[:, :height, :width]
    return network_image(picture, model.sam.image_mean, model.sam.image_std, size)


def _step_frame(start: _Start, image: Tensor, is_given: Tensor, logits: Array) -> StepFrame:
    masks = (torch.from_numpy(logits) > 0) & is_given[:, None, None]
    inputs = {
        "image": image,
        "masks": masks.to(torch.float32),
        "is_given": is_given,
        "memory_frame": torch.tensor(True),
        "last_frame": torch.tensor(False),
    }
    return StepFrame(inputs, start.bank)
