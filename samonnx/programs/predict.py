"""The programs of SAM 2's image predictor: `encode_image` for the features of an image, `predict` for masks from them.

Upstream `sam2/sam2_image_predictor.py`. Beside the video's tracking step this is the network without memory: features
get the no-memory embedding, masks stay as they are where the object is judged absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.tracker import TrackedModel, Tracker
from samonnx.programs.detect_ports import image_port
from samonnx.programs.image_encoder import frame_encoder
from samonnx.programs.program import Component, Port, Program, Wire, example_tensors

if TYPE_CHECKING:
    from samonnx.recipe import PredictSpec

__all__ = ["Predict", "encode_frame_program", "predict_program"]


class Predict(nn.Module):
    """Features and prompts of O objects → low_res_masks f32 [O, 3, 4h, 4w], ious f32 [O, 3] of the candidates;
    single_mask f32 [O, 1, 4h, 4w], single_iou f32 [O, 1]; object_score f32 [O, 1]."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(
        self,
        high_res_0: Tensor,
        high_res_1: Tensor,
        features: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        mask_input_valid: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        encoder, decoder = self.tracker.sam_prompt_encoder, self.tracker.sam_mask_decoder
        sparse, valid = encoder.padded_point_tokens(point_coords, point_labels)
        # Without a point upstream hands over no tokens at all, the empty ones neither.
        valid = valid & (point_labels >= 0).any(1, keepdim=True)
        given = mask_input_valid[:, None, None, None]
        dense = torch.where(given, encoder.mask_map(torch.where(given, mask_input, 0.0)), encoder.no_mask_map())
        image = self.tracker.without_memory(features).expand(len(point_labels), -1, -1, -1)
        decoded = decoder(image, encoder.dense_position(), sparse, valid, dense, high_res_0, high_res_1)
        single = decoder.choose(decoded, torch.zeros_like(mask_input_valid))
        return decoded.logits[:, 1:], decoded.ious[:, 1:], single.logits, single.iou, decoded.object_score


def encode_frame_program(model: TrackedModel) -> Program:
    """image → high_res_0, high_res_1, features: what `predict` takes, and what a tracking step computes first."""
    encoder = frame_encoder(model)
    wires = [
        Wire(source, f"{part}.{target}") for part, given in encoder.feeds.items() for target, source in given.items()
    ]
    ports = _map_ports(model)
    wires += [Wire(f"tracker_neck.{port.name}", port.name) for port in ports]
    return Program("encode_image", (image_port(model),), ports, encoder.components, tuple(wires))


def predict_program(model: TrackedModel, spec: PredictSpec) -> Program:
    """Features and prompts → masks of O objects, three candidates and the single mask each.

    Raises SamonnxError for a symbolic number of objects.
    """
    sizes = model.tracker.sizes
    if spec.objects is None:
        raise SamonnxError(
            "programs.predict.objects: null found, a number of at least 1 expected: only the original SAM's predict "
            "takes any number of prompts (samonnx.models.sam:build)"
        )
    o, k, s, low = spec.objects, spec.points, sizes.image_size, 4 * sizes.grid
    f32, logits = "float32", f"mask logits at 4 times the grid of {sizes.grid} x {sizes.grid} cells"
    inputs = (
        *_map_ports(model),
        Port("point_coords", f32, (o, k, 2), f"x, y in pixels of the {s} x {s} image", f"0 … {s}"),
        Port(
            "point_labels",
            "int32",
            (o, k),
            "1 positive, 0 negative, 2 and 3 box corners (top left, bottom right), -1 empty place",
            "-1 … 3",
        ),
        Port("mask_input", f32, (o, 1, low, low), "low-resolution logits of an earlier prediction", "-32 … 32"),
        Port("mask_input_valid", "bool", (o,), "whether the object has such logits"),
    )
    outputs = (
        Port("low_res_masks", f32, (o, 3, low, low), f"the three candidates' {logits}"),
        Port("ious", f32, (o, 3), "predicted IoU of each candidate", "0 … 1"),
        Port("single_mask", f32, (o, 1, low, low), f"for unambiguous prompts: {logits}"),
        Port("single_iou", f32, (o, 1), "predicted IoU of the single mask", "0 … 1"),
        Port("object_score", f32, (o, 1), "logit: there is an object"),
    )
    component = Component(
        "predict",
        Predict(model.tracker).eval(),
        example_tensors(inputs),
        tuple(port.name for port in outputs),
        seen_in=frozenset({"predict"}),
    )
    wires = [Wire(port.name, f"predict.{port.name}") for port in inputs]
    wires += [Wire(f"predict.{port.name}", port.name) for port in outputs]
    return Program("predict", inputs, outputs, (component,), tuple(wires))


def _map_ports(model: TrackedModel) -> tuple[Port, ...]:
    sizes = model.tracker.sizes
    d, g = sizes.hidden_dim, sizes.grid
    finer = "feature map at {} times the grid, for the mask decoder"
    return (
        Port("high_res_0", "float32", (1, d // 8, 4 * g, 4 * g), finer.format(4)),
        Port("high_res_1", "float32", (1, d // 4, 2 * g, 2 * g), finer.format(2)),
        Port("features", "float32", (1, d, g, g), "feature map on the grid, as the image encoder gives it"),
    )
