"""The programs that detect: `segment`, and its three parts for people who keep features.

encode_text   words ──────────────► text features ─┐
encode_image  image ──► feature maps ──────────────┴─► ground ─► boxes, masks, scores
segment       all three in one graph
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.mobileclip import VOCABULARY
from samonnx.programs import detect_components as parts
from samonnx.programs.detect_ports import (
    detection_ports,
    image_map_ports,
    image_port,
    prompt_ports,
    text_ports,
    token_port,
)
from samonnx.programs.image_encoder import trunk_component
from samonnx.programs.program import Component, Port, Program, Wire, example_tensors

if TYPE_CHECKING:
    from samonnx.recipe import DetectionSpec

__all__ = ["encode_image_program", "encode_text_program", "ground_program", "segment_program"]

DETECTING = frozenset({"ground", "segment", "step"})
"""Programs whose results come from all components of `_grounding`."""

RESULTS = ("boxes", "logits", "presence", "scores", "masks", "semantic_mask")


def segment_program(model: EfficientSAM3, spec: DetectionSpec, prefix: str = "") -> Program:
    """image, words, boxes and points → detections, whose ports get `prefix` in front of their names."""
    sizes = model.detector.sizes
    places = prompt_ports(sizes, spec)
    return _program(
        "segment",
        (image_port(model), token_port(sizes), *places),
        detection_ports(sizes, prefix),
        (trunk_component(model), _neck(model), _text(model), *_grounding(model, spec)),
        {
            "encode_trunk": {"image": "image"},
            "encode_text": {"token_ids": "token_ids"},
            "detector_neck": {"trunk_map": "encode_trunk.trunk_map"},
            **_grounding_feeds("detector_neck.", "encode_text.", places),
        },
        {f"{prefix}{name}": source for name, source in _result_sources().items()},
    )


def encode_text_program(model: EfficientSAM3) -> Program:
    """token_ids → text_features, text_valid."""
    sizes = model.detector.sizes
    outputs = text_ports(sizes)
    return _program(
        "encode_text",
        (token_port(sizes),),
        outputs,
        (_text(model),),
        {"encode_text": {"token_ids": "token_ids"}},
        {port.name: f"encode_text.{port.name}" for port in outputs},
    )


def encode_image_program(model: EfficientSAM3) -> Program:
    """image → the detector's three feature maps."""
    outputs = image_map_ports(model.detector.sizes)
    return _program(
        "encode_image",
        (image_port(model),),
        outputs,
        (trunk_component(model), _neck(model)),
        {"encode_trunk": {"image": "image"}, "detector_neck": {"trunk_map": "encode_trunk.trunk_map"}},
        {port.name: f"detector_neck.{port.name}" for port in outputs},
    )


def ground_program(model: EfficientSAM3, spec: DetectionSpec) -> Program:
    """Feature maps, text features, boxes and points → detections."""
    sizes = model.detector.sizes
    places = prompt_ports(sizes, spec)
    return _program(
        "ground",
        (*image_map_ports(sizes), *text_ports(sizes), *places),
        detection_ports(sizes),
        _grounding(model, spec),
        _grounding_feeds("", "", places),
        _result_sources(),
    )


def _neck(model: EfficientSAM3) -> Component:
    names = [port.name for port in image_map_ports(model.detector.sizes)]
    trunk_map = torch.zeros(model.trunk_map_shape)
    backbone = model.detector.backbone.vision_backbone
    neck = _component("detector_neck", parts.DetectorNeck(backbone), {"trunk_map": trunk_map}, *names)
    return replace(neck, seen_in=frozenset({"encode_image"}))


def _text(model: EfficientSAM3) -> Component:
    port, returned = token_port(model.detector.sizes), text_ports(model.detector.sizes)
    return Component(
        "encode_text",
        model.detector.backbone.language_backbone.eval(),
        example_tensors((port,)),
        tuple(port.name for port in returned),
        integers={"token_ids": (0, VOCABULARY)},
    )


def _grounding(model: EfficientSAM3, spec: DetectionSpec) -> tuple[Component, ...]:
    detector = model.detector
    sizes = detector.sizes
    if spec.masks and not sizes.mask_prompts:
        raise SamonnxError(
            f"detection.masks: {spec.masks} found, but the model has no encoder for masks (as in every released "
            "checkpoint); give 0, or build one that has: --set model.args.mask_prompts=true --set "
            "pins.detector.geometry_encoder.mask_encoder.mask_downsampler.resize_to_16x_grid=true"
        )
    example = example_tensors((*image_map_ports(sizes), *text_ports(sizes), *prompt_ports(sizes, spec)))
    maps = {name: example[name] for name in ("high_res_0", "high_res_1")}
    tokens = sizes.context_length + detector.geometry_encoder.token_count(spec.boxes, spec.points, spec.masks)
    prompt = {
        "prompt": torch.zeros(1, tokens, sizes.hidden_dim),
        "prompt_valid": torch.ones(1, tokens, dtype=torch.bool),
    }
    memory = {"memory": torch.zeros(1, sizes.grid**2, sizes.hidden_dim)}
    layers = (sizes.decoder_layers,) if detector.segmentation_head.mask_source == "all_layers" else ()
    queries = {"queries": torch.zeros(*layers, 1, sizes.queries, sizes.hidden_dim)}
    places = {port.name: example[port.name] for port in prompt_ports(sizes, spec)}
    words = {name: example[name] for name in ("features", "text_features", "text_valid")}
    fuse = _component("fuse", parts.Fuse(detector), {"features": example["features"]} | prompt, "memory")
    segment = _component(
        "segment_queries", parts.SegmentQueries(detector), memory | maps | queries | prompt, "masks", "semantic_mask"
    )
    return (
        Component(
            "encode_prompts",
            parts.EncodePrompts(detector).eval(),
            words | places,
            ("prompt", "prompt_valid"),
            integers={name: (-1, 2) for name in places if name.endswith("_labels")},
        ),
        replace(fuse, seen_in=DETECTING),
        _component(
            "decode", parts.Decode(detector), memory | prompt, "queries", "boxes", "logits", "presence", "scores"
        ),
        replace(segment, seen_in=DETECTING),
    )


def _grounding_feeds(maps: str, words: str, places: Sequence[Port]) -> dict[str, dict[str, str]]:
    """What feeds the components of `_grounding`; `maps` and `words` stand in front of the ports' names."""
    prompt = {name: f"encode_prompts.{name}" for name in ("prompt", "prompt_valid")}
    memory = {"memory": "fuse.memory"}
    return {
        "encode_prompts": {"features": f"{maps}features"}
        | {name: f"{words}{name}" for name in ("text_features", "text_valid")}
        | {port.name: port.name for port in places},
        "fuse": {"features": f"{maps}features"} | prompt,
        "decode": memory | prompt,
        "segment_queries": memory
        | {name: f"{maps}{name}" for name in ("high_res_0", "high_res_1")}
        | {"queries": "decode.queries"}
        | prompt,
    }


def _result_sources() -> dict[str, str]:
    return {name: f"{'segment_queries' if name.endswith(('masks', 'mask')) else 'decode'}.{name}" for name in RESULTS}


def _component(name: str, module: nn.Module, inputs: Mapping[str, Tensor], *outputs: str) -> Component:
    return Component(name, module.eval(), inputs, outputs)


def _program(
    name: str,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    components: tuple[Component, ...],
    feeds: Mapping[str, Mapping[str, str]],
    results: Mapping[str, str],
) -> Program:
    wires = [Wire(source, f"{part}.{target}") for part, given in feeds.items() for target, source in given.items()]
    wires += [Wire(source, target) for target, source in results.items()]
    return Program(name, inputs, outputs, components, tuple(wires))
