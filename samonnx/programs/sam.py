"""The programs of the original SAM: `encode_image`, `predict`, and both in one graph, `segment_prompt`.

encode_image     image ──► features ─┐
predict          prompts ────────────┴─► low-resolution masks, IoUs
segment_prompt   image and prompts ──────► masks in the network's frame, IoUs

Upstream `segment_anything/predictor.py`, whose `predict_torch` gives one of both modes where these give both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from samonnx.models.sam import Sam
from samonnx.models.sam_geometry import network_masks
from samonnx.models.sam_mask_decoder import SamMasks
from samonnx.programs.detect_ports import normalised_image_port
from samonnx.programs.program import Component, Port, Program, Specialisation, Wire, example_tensors

if TYPE_CHECKING:
    from samonnx.recipe import PredictSpec

__all__ = ["LINKED_FEATURES", "PROMPTS", "encode_sam_image_program", "predict_sam_program", "segment_prompt_program"]

PROMPTS = "prompts"
"""The symbolic dimension of prompts, where a recipe gives no number."""

LINKED_FEATURES = "encode_trunk/features"
"""The features as they are called within a linked graph."""

EXAMPLES = {PROMPTS: 2}
"""Sizes that symbolic dimensions are traced with."""


class _EncodeImage(nn.Module):
    """image f32 [1, 3, S, S] → features f32 [1, D, h, w]."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.image_encoder(image)
        return features


class _Predict(nn.Module):
    """Features and O prompts → low_res_masks f32 [O, 3, 4h, 4w] and ious f32 [O, 3] of the candidates, single_mask f32
    [O, 1, 4h, 4w], single_iou f32 [O, 1]."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        features: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        mask_input_valid: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _of_both_modes(self.model.predict(features, point_coords, point_labels, mask_input, mask_input_valid))


class _PredictPoints(nn.Module):
    """The same for prompts none of which has a mask. The last two inputs, which it does not read, give it the place of
    `_Predict` in the program."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        features: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        mask_input_valid: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _of_both_modes(self.model.predict_points(features, point_coords, point_labels))


def _of_both_modes(masks: SamMasks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    candidates, single = masks.of_mode(True), masks.of_mode(False)
    return candidates.logits, candidates.ious, single.logits, single.ious


class _Enlarge(nn.Module):
    """Low-resolution logits of both modes → logits in the network's frame, f32 [O, 3, S, S] and [O, 1, S, S]."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, low_res_masks: Tensor, low_res_single: Tensor) -> tuple[Tensor, Tensor]:
        return network_masks(low_res_masks, self.image_size), network_masks(low_res_single, self.image_size)


def encode_sam_image_program(model: Sam) -> Program:
    """image → features: once for all prompts of an image."""
    component = _encoder(model)
    wires = (Wire("image", f"{component.name}.image"), Wire(f"{component.name}.features", "features"))
    return Program("encode_image", (_image_port(model),), (_features_port(model),), (component,), wires)


def predict_sam_program(model: Sam, spec: PredictSpec) -> Program:
    """Features and prompts → masks of every prompt, three candidates and the single mask each."""
    inputs = (_features_port(model), *_prompt_ports(model, spec))
    outputs = _low_res_ports(model, spec)
    component = _decoder("predict", _Predict(model), inputs, outputs)
    wires = [Wire(port.name, f"predict.{port.name}") for port in inputs]
    wires += [Wire(f"predict.{port.name}", port.name) for port in outputs]
    points = Specialisation(
        "predict@points",
        "prompts none of which has a mask",
        {"mask_input_valid": False},
        components={"predict": _decoder("predict_points", _PredictPoints(model), inputs, outputs)},
    )
    return Program("predict", inputs, outputs, (component,), tuple(wires), specialisations=(points,))


def segment_prompt_program(model: Sam, spec: PredictSpec) -> Program:
    """Image and prompts → masks in the network's frame."""
    prompts, low_res = _prompt_ports(model, spec), _low_res_ports(model, spec)
    outputs = _frame_ports(model, spec)
    encoder = _encoder(model)
    decoder = _decoder("predict", _Predict(model), (_features_port(model), *prompts), low_res)
    given = {"low_res_masks": low_res[0], "low_res_single": low_res[2]}
    enlarge = Component(
        "enlarge",
        _Enlarge(model.sizes.image_size).eval(),
        {name: example_tensors((port,), EXAMPLES)[port.name] for name, port in given.items()},
        ("masks", "single"),
        symbolic={name: _symbolic_axes(port) for name, port in given.items() if _symbolic_axes(port)},
        seen_in=frozenset({"segment_prompt"}),
    )
    wires = [
        Wire("image", f"{encoder.name}.image"),
        Wire(f"{encoder.name}.features", "predict.features"),
        *(Wire(port.name, f"predict.{port.name}") for port in prompts),
        Wire("predict.low_res_masks", "enlarge.low_res_masks"),
        Wire("predict.single_mask", "enlarge.low_res_single"),
        Wire("enlarge.masks", "masks"),
        Wire("predict.ious", "ious"),
        Wire("enlarge.single", "single_mask"),
        Wire("predict.single_iou", "single_iou"),
    ]
    inputs = (_image_port(model), *prompts)
    return Program("segment_prompt", inputs, outputs, (encoder, decoder, enlarge), tuple(wires))


def _encoder(model: Sam) -> Component:
    return Component(
        "encode_trunk",
        _EncodeImage(model).eval(),
        example_tensors((_image_port(model),)),
        ("features",),
        seen_in=frozenset({"encode_image", "segment_prompt"}),
    )


def _decoder(name: str, module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Component:
    return Component(
        name,
        module.eval(),
        example_tensors(inputs, EXAMPLES),
        tuple(port.name for port in outputs),
        symbolic={port.name: _symbolic_axes(port) for port in inputs if _symbolic_axes(port)},
        seen_in=frozenset({"predict"}),
    )


def _symbolic_axes(port: Port) -> dict[int, str]:
    return {axis: side for axis, side in enumerate(port.shape) if isinstance(side, str)}


def _image_port(model: Sam) -> Port:
    return normalised_image_port(
        model.sizes.image_size, model.image_mean, model.image_std, "zeros to the right of and below the picture"
    )


def _features_port(model: Sam) -> Port:
    d, g = model.sizes.hidden_dim, model.sizes.grid
    return Port("features", "float32", (1, d, g, g), "the image embedding, for all prompts of the image")


def _rows(spec: PredictSpec) -> int | str:
    return PROMPTS if spec.objects is None else spec.objects


def _prompt_ports(model: Sam, spec: PredictSpec) -> tuple[Port, ...]:
    o, k, s, low = _rows(spec), spec.points, model.sizes.image_size, model.sizes.low_res
    return (
        Port("point_coords", "float32", (o, k, 2), f"x, y in pixels of the {s} x {s} frame", f"0 … {s}"),
        Port(
            "point_labels",
            "int32",
            (o, k),
            "1 positive, 0 negative, 2 and 3 the corners of the prompt's one box, -1 empty place",
            "-1 … 3",
        ),
        Port("mask_input", "float32", (o, 1, low, low), "low-resolution logits of an earlier prediction", "-32 … 32"),
        Port("mask_input_valid", "bool", (o,), "whether the prompt has such logits"),
    )


IOU = "predicted IoU of {}; not confined to 0 … 1"


def _low_res_ports(model: Sam, spec: PredictSpec) -> tuple[Port, ...]:
    o, low = _rows(spec), model.sizes.low_res
    logits = f"mask logits of the whole frame at {low} x {low} pixels, of the mask where above 0"
    return (
        Port("low_res_masks", "float32", (o, 3, low, low), f"the three candidates' {logits}"),
        Port("ious", "float32", (o, 3), IOU.format("each candidate")),
        Port("single_mask", "float32", (o, 1, low, low), f"for unambiguous prompts: {logits}"),
        Port("single_iou", "float32", (o, 1), IOU.format("the single mask")),
    )


def _frame_ports(model: Sam, spec: PredictSpec) -> tuple[Port, ...]:
    o, s = _rows(spec), model.sizes.image_size
    logits = f"mask logits in the {s} x {s} frame, of the mask where above 0"
    return (
        Port("masks", "float32", (o, 3, s, s), f"the three candidates' {logits}"),
        Port("ious", "float32", (o, 3), IOU.format("each candidate")),
        Port("single_mask", "float32", (o, 1, s, s), f"for unambiguous prompts: {logits}"),
        Port("single_iou", "float32", (o, 1), IOU.format("the single mask")),
    )
