"""Verify the programs of the original SAM: every output against the eager module, for each kind of prompt, in both
modes.

The image is a synthetic frame that does not fill the square. Places and masks that do not count hold other numbers in
the graph's inputs than in the eager module's, so that what is compared also says that padding is inert. A program with
a symbolic number of prompts runs twice, with one prompt and with all of them.

Behind the image encoder the eager side goes on from the graph's own features, which are compared themselves: what the
decoder makes of their rounding is the decoder's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor

from samonnx.eager_lock import EAGER_LOCK
from samonnx.encoder_runs import EncoderRuns, behind
from samonnx.engines import open_graph_for, verifying_engine
from samonnx.graph_session import Array
from samonnx.models.sam import Sam
from samonnx.models.sam_geometry import network_image, network_masks
from samonnx.models.sam_mask_decoder import SamMasks
from samonnx.probed import probed
from samonnx.programs.program import Port, Program
from samonnx.programs.sam import LINKED_FEATURES, PROMPTS
from samonnx.recipe import Recipe
from samonnx.seeded import seeded_frame
from samonnx.verify import Comparison, compare

__all__ = ["KINDS", "Kind", "SamVerifier", "runs"]

GARBAGE = 77.0
"""What lies in places and masks that do not count, in the graph's inputs."""


@dataclass(frozen=True)
class Kind:
    """A kind of prompt: points (x, y as shares of the frame, label), and whether there is an earlier mask."""

    points: tuple[tuple[float, float, int], ...] = ()
    mask: bool = False


CLICK = (0.3, 0.4, 1)
BOX = ((0.18, 0.31, 2), (0.42, 0.49, 3))

KINDS: Mapping[str, Kind] = {
    "click": Kind((CLICK,)),
    "positive and negative": Kind((CLICK, (0.68, 0.63, 0))),
    "box": Kind(BOX),
    "box and click": Kind((*BOX, CLICK)),
    "mask and click": Kind((CLICK,), mask=True),
    "mask": Kind(mask=True),
    "nothing": Kind(),
}
"""Around the ellipse of the synthetic frame."""


@dataclass(frozen=True)
class _Prompts:
    """One row a prompt, by the names of the ports."""

    point_coords: Tensor
    point_labels: Tensor
    mask_input: Tensor
    mask_input_valid: Tensor

    def garbled(self) -> dict[str, Array]:
        """With other numbers where they must not count."""
        given = self.mask_input_valid[:, None, None, None]
        return {
            "point_coords": torch.where(self.point_labels[..., None] < 0, GARBAGE, self.point_coords).numpy(),
            "point_labels": self.point_labels.numpy(),
            "mask_input": torch.where(given, self.mask_input, GARBAGE).numpy(),
            "mask_input_valid": self.mask_input_valid.numpy(),
        }


class SamVerifier:
    """Verifies the graphs of one program and target at a time; keeps what the eager side gave."""

    def __init__(self, recipe: Recipe, model: Sam) -> None:
        self._model, self._tolerance = model, recipe.verify.atol
        self._image = _frame(model)
        self._encoders = EncoderRuns()
        self._features: Array | None = None
        self._expectations: dict[tuple[int, tuple[str, ...], bool], tuple[Array, dict[str, Array]]] = {}

    def verify(self, graphs: Mapping[str, ir.Model], target: str, program: Program) -> Sequence[Comparison]:
        """As `ProgramChecks` says: one figure an output, the largest over all runs."""
        found: list[Comparison] = []
        for name, graph in graphs.items():
            if program.name == "encode_image":
                figures = [self._compared(self._encoded(graph, target, "features"))]
            elif program.name == "segment_prompt":
                features = self._encoded(graph, target, LINKED_FEATURES)
                rest = behind(graph, {LINKED_FEATURES: "features"})
                figures = [self._compared(features), *self._prompted(rest, target, program, features)]
            else:
                figures = self._prompted(graph, target, program, self._eager_features())
            found += [one.of(name) for one in figures]
        return found

    def _eager_features(self) -> Array:
        if self._features is None:
            with EAGER_LOCK, torch.inference_mode():
                self._features = self._model.encode_image(self._image).numpy()
        return self._features

    def _compared(self, features: Array) -> Comparison:
        return compare("features", features, self._eager_features(), self._tolerance)

    def _encoded(self, graph: ir.Model, target: str, called: str) -> Array:
        """What the graph's encoder gives, by the features' name in it; graphs with equal encoders run it once an
        engine."""
        engine, fingerprint = verifying_engine(target), self._encoders.fingerprint(graph, {"features": called})
        known = self._encoders.known(engine, fingerprint, 0)
        if known is not None:
            return known["features"]
        found = open_graph_for(target)(_encoder_of(graph, called)).run({"image": self._image.numpy()})[called]
        self._encoders.record(engine, fingerprint, 0, {"features": found})
        return found

    def _prompted(self, graph: ir.Model, target: str, program: Program, features: Array) -> list[Comparison]:
        session = open_graph_for(target)(graph)
        labels = next(port for port in program.inputs if port.name == "point_labels")
        masks = any(value.name == "mask_input" for value in graph.graph.inputs)
        worst: dict[str, Comparison] = {}
        for kinds in runs(labels, masks):
            given = self._prompts(kinds, places=labels.sides({PROMPTS: 1})[1])
            found = session.run({**given.garbled(), "features": features, "image": self._image.numpy()})
            expected = self._expected(features, kinds, given, in_frame=program.name == "segment_prompt")
            for name in (str(value.name) for value in graph.graph.outputs):
                one = compare(name, found[name], expected[name], self._tolerance)
                if name not in worst or one.largest_error > worst[name].largest_error:
                    worst[name] = one
        return list(worst.values())

    def _prompts(self, kinds: Sequence[str], places: int) -> _Prompts:
        size, low = self._model.sizes.image_size, self._model.sizes.low_res
        coords, labels = torch.zeros(len(kinds), places, 2), torch.full((len(kinds), places), -1, dtype=torch.int32)
        for row, kind in enumerate(kinds):
            for place, (x, y, label) in enumerate(KINDS[kind].points):
                coords[row, place] = torch.tensor([x * size, y * size])
                labels[row, place] = label
        mask = torch.full((len(kinds), 1, low, low), -8.0)
        mask[:, :, 3 * low // 10 : low // 2, 2 * low // 10 : 4 * low // 10] = 8
        return _Prompts(coords, labels, mask, torch.tensor([KINDS[kind].mask for kind in kinds]))

    def _expected(
        self, features: Array, kinds: tuple[str, ...], given: _Prompts, in_frame: bool
    ) -> Mapping[str, Array]:
        """Output → the eager module's. Features that are the same array share it."""
        key = id(features), kinds, in_frame
        if key not in self._expectations:
            with EAGER_LOCK, torch.inference_mode():
                masks = self._model.predict(
                    torch.from_numpy(features),
                    given.point_coords,
                    given.point_labels,
                    given.mask_input,
                    given.mask_input_valid,
                )
                logits = network_masks(masks.logits, self._model.sizes.image_size) if in_frame else masks.logits
            several = SamMasks(logits, masks.ious).of_mode(True)
            single = SamMasks(logits, masks.ious).of_mode(False)
            expected = {
                "masks" if in_frame else "low_res_masks": several.logits.numpy(),
                "ious": several.ious.numpy(),
                "single_mask": single.logits.numpy(),
                "single_iou": single.ious.numpy(),
            }
            self._expectations[key] = features, expected
        return self._expectations[key][1]


def _frame(model: Sam) -> Tensor:
    """The upper three quarters of the synthetic frame 0, as the network takes them: f32 [1, 3, S, S]."""
    size = model.sizes.image_size
    picture = torch.from_numpy(seeded_frame(0, size))[:, : 3 * size // 4]
    return network_image(picture, model.image_mean, model.image_std, size)


def _encoder_of(graph: ir.Model, called: str) -> ir.Model:
    """A copy of `graph` that gives the value called so, and computes what leads to it alone."""
    copy = probed(graph, (called,))
    for value in [value for value in copy.graph.outputs if value.name != called]:
        copy.graph.outputs.remove(value)
    RemoveUnusedNodesPass()(copy)
    for value in [value for value in copy.graph.inputs if not value.uses()]:
        copy.graph.inputs.remove(value)
    return copy


def runs(labels: Port, masks: bool) -> Iterator[tuple[str, ...]]:
    """The kinds of the prompts of each run: those for whose points there are places and, without `masks`, which have
    none. One prompt and all of them where their number is symbolic; else so many at once, the first ones again to fill
    the last run."""
    rows, places = labels.shape[0], labels.sides({PROMPTS: 1})[1]
    kinds = [name for name, kind in KINDS.items() if len(kind.points) <= places and (masks or not kind.mask)]
    if not isinstance(rows, int):
        yield (kinds[0],)
        yield tuple(kinds)
        return
    for first in range(0, len(kinds), rows):
        yield tuple(kinds[(first + row) % len(kinds)] for row in range(rows))
