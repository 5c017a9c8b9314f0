"""Verify a program that is one call, on one image: every output against the same components in eager PyTorch.

Behind the image encoder the eager side goes on from the graph's own trunk map (read off by `probed`): gates inside the
trunk can magnify rounding a thousandfold, so that two correct encoders differ. The trunk itself is compared as a
component, and here within ENCODER_TOLERANCE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from samonnx.eager_program import EagerRun
from samonnx.encoder_runs import EncoderRuns
from samonnx.engines import OpenGraph, verifying_engine
from samonnx.graph_session import Array, GraphSession
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import ImageFeatures
from samonnx.models.tracker import TrackedModel
from samonnx.probed import TRUNK_MAP, probed
from samonnx.programs.predict import encode_frame_program
from samonnx.programs.program import Port, Program
from samonnx.programs.segment import encode_image_program, encode_text_program
from samonnx.verify import Comparison, compare
from samonnx.verify_clip import ENCODER_TOLERANCE, FEATURES, model_frame, propagation_feeds

__all__ = ["ProgramVerifier"]

A_DOG = (49406, 320, 1929, 49407)
EXAMPLES = ((0.3, 0.4, 0.24, 0.18), (0.71, 0.66, 0.131, 0.217))
"""One positive and one negative box; the first lies around the ellipse of the synthetic frame."""


class ProgramVerifier:
    """Keeps the eager results of one image, so that programs that share components are cheap to verify together."""

    def __init__(self, model: TrackedModel, tolerance: float, encoders: EncoderRuns | None = None) -> None:
        self._model, self._tolerance = model, tolerance
        self._encoders = encoders or EncoderRuns()
        self._encoded_by: dict[tuple[str, str | None], Mapping[str, Array]] = {}
        self._eager = EagerRun()
        self._size = model.tracker.sizes.image_size
        self._image = torch.from_numpy(model_frame(model, 0))
        self._tokens = _tokens(model.detector.sizes.context_length) if isinstance(model, EfficientSAM3) else None
        self._examples: dict[str, Tensor] = {}
        self._propagation: dict[tuple[Port, ...], dict[str, Tensor]] = {}
        self._trunk_maps: list[Tensor] = []

    def verify(
        self, graph: ir.Model, program: Program, open_graph: OpenGraph = GraphSession, target: str = "onnx"
    ) -> tuple[Comparison, ...]:
        """One figure an output, and one for the trunk map if the program has it; `open_graph` chooses the engine.

        A program that gives the tracker's maps and nothing else is not run where the same encoder has run for this
        `target`, as the beginning of another graph."""
        feeds = self._feeds(program)
        found = self._found(graph, program, feeds, open_graph, target)
        given, comparisons = {}, []
        if TRUNK_MAP in found:
            eager = self._encoded()["encode_trunk.trunk_map"]
            comparisons.append(compare("trunk map", found[TRUNK_MAP], eager.numpy(), ENCODER_TOLERANCE))
            given["encode_trunk.trunk_map"] = self._known_trunk_map(found[TRUNK_MAP])
        expected = self._eager.values(program, feeds, given)
        comparisons += [
            compare(port.name, found[port.name], expected[port.name].numpy(), self._tolerance)
            for port in program.outputs
        ]
        return tuple(comparisons)

    def _found(
        self, graph: ir.Model, program: Program, feeds: Mapping[str, Tensor], open_graph: OpenGraph, target: str
    ) -> Mapping[str, Array]:
        tracked = not isinstance(self._model, EfficientSAM3)  # whose `encode_image` gives the detector's maps
        encodes = tracked and {port.name for port in program.outputs} == set(FEATURES)
        fingerprint = self._encoders.fingerprint(graph, {name: name for name in FEATURES}) if encodes else None
        known = self._encoders.known(target, fingerprint, 0)
        if known is not None:
            return known
        same = (verifying_engine(target), fingerprint)
        if fingerprint is not None and same in self._encoded_by:  # another target's graph, operator for operator
            self._encoders.record(target, fingerprint, 0, self._encoded_by[same])
            return self._encoded_by[same]
        found = open_graph(probed(graph, (TRUNK_MAP,))).run({name: tensor.numpy() for name, tensor in feeds.items()})
        if encodes:
            self._encoded_by[same] = {name: found[name] for name in FEATURES}
            self._encoders.record(target, fingerprint, 0, self._encoded_by[same])
        return found

    def tracker_maps(self) -> ImageFeatures | None:
        """The tracker's eager maps of the image, of a model whose program `encode_image` gives these."""
        if isinstance(self._model, EfficientSAM3):
            return None
        values = self._encoded()
        return ImageFeatures(values["high_res_0"], values["high_res_1"], values["features"])

    def _feeds(self, program: Program) -> dict[str, Tensor]:
        """The synthetic clip's frame 0, two words, two boxes and a point; a full bank; or the eager features of these.
        The same tensor objects for every program."""
        names = {port.name for port in program.inputs}
        ready: dict[str, Tensor] = {"image": self._image}
        if "features" in names:
            ready |= self._encoded(self._trunk_maps[-1] if self._trunk_maps else None)
        if self._tokens is not None:
            ready["token_ids"] = self._tokens
        if "text_features" in names:
            ready |= self._eager.values(
                encode_text_program(cast(EfficientSAM3, self._model)), {"token_ids": ready["token_ids"]}
            )
        if program.bank:
            ready = self._propagated(program.inputs) | ready
        for port in program.inputs:
            if port.name.startswith("point_") and program.bank:
                continue  # a propagated frame
            if port.name not in self._examples and (example := _example(port, self._size)) is not None:
                self._examples[port.name] = torch.from_numpy(example)
        ready |= self._examples
        return {name: ready[name] for name in names}

    def _propagated(self, ports: tuple[Port, ...]) -> dict[str, Tensor]:
        """Inputs of a propagated frame, the same tensors for every target."""
        if ports not in self._propagation:
            feeds = propagation_feeds(ports)
            self._propagation[ports] = {name: torch.from_numpy(array) for name, array in feeds.items()}
        return self._propagation[ports]

    def _encoded(self, trunk_map: Tensor | None = None) -> dict[str, Tensor]:
        """Eager values of `encode_image`, from `trunk_map` if it is given."""
        given = {} if trunk_map is None else {"encode_trunk.trunk_map": trunk_map}
        program = (
            encode_image_program(self._model)
            if isinstance(self._model, EfficientSAM3)
            else encode_frame_program(self._model)
        )
        return self._eager.values(program, {"image": self._image}, given)

    def _known_trunk_map(self, found: Array) -> Tensor:
        """One tensor for maps that are equal to the bit, so that eager results are found again."""
        for known in self._trunk_maps:
            if np.array_equal(known.numpy(), found):
                return known
        self._trunk_maps.append(torch.from_numpy(found))
        return self._trunk_maps[-1]


def _tokens(length: int) -> Tensor:
    tokens = torch.zeros(1, length, dtype=torch.int64)
    words = torch.tensor(A_DOG[:length])
    tokens[0, : len(words)] = words
    return tokens


def _example(port: Port, size: int) -> Array | None:
    """What is given in a port of prompts: a positive and, if there is room, a negative example, other places empty;
    earlier logits of the box around the first. None for other ports."""
    array = np.zeros(port.sides(), port.dtype)
    if port.name in ("mask_input", "mask_input_valid"):
        if port.name.endswith("_valid"):
            array[:1] = True
        else:
            side = port.sides()[-1]
            array[:] = -8
            array[:, :, side // 4 : side // 2, side // 4 : side // 2] = 8
        return array
    if not port.name.startswith(("prompt_", "point_")):
        return None
    count, scale = min(2, port.sides()[1]), size if port.name == "point_coords" else 1
    if port.name.endswith("_labels"):
        array[:] = -1
        array[0, :count] = (1, 0)[:count]
    elif port.name == "prompt_masks":
        side = port.sides()[-1]
        array[0, 0, side // 4 : side // 2, side // 4 : side // 2] = 1
    else:
        array[0, :count] = [np.multiply(example[: port.sides()[-1]], scale) for example in EXAMPLES[:count]]
    return array
