"""Every stage of the detector, in eager PyTorch and in an emitted graph, under the names and strides of the original's
reference tensors (golden/efficientsam3_m0_9/NOTES.md, section 1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast
from unittest import mock

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.build_model import build_model
from samonnx.graph_session import Array, GraphSession
from samonnx.models.box_position_bias import box_position_bias
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.position_encoding import sine_map
from samonnx.models.roi_align_operator import pooled_boxes
from samonnx.probed import probed
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.seeded import seeded_frame

__all__ = ["Reference", "eager_stages", "figures", "graph_stages", "reference_model", "taken"]

GRID, TEXT = 72, 32
RECIPE = Path(__file__).parents[2] / "recipes" / "efficientsam3_m0_9.yaml"
RESCALED = "weights.rescale.detector.backbone.vision_backbone.trunk.model.head.1.running_var"


class Reference:
    """One reference file, and the inputs that it was made from."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.tensors: dict[str, Array] = {name: file[name] for name in file.files}
        self.boxes: Array = self.tensors.get("geometry/boxes_cxcywh", np.zeros((0, 1, 4), np.float32))[:, 0]
        self.labels: Array = self.tensors.get("geometry/box_labels", np.zeros((0, 1), np.int32))[:, 0]

    def rescale(self) -> float:
        return float(self.tensors["meta/head_bn_running_var_scale"][0])

    def feeds(self, boxes: int, points: int) -> dict[str, Array]:
        """The inputs of `segment` with so many places."""
        places, labels = np.zeros((1, boxes, 4), np.float32), np.full((1, boxes), -1, np.int32)
        places[0, : len(self.boxes)], labels[0, : len(self.labels)] = self.boxes, self.labels
        frame = seeded_frame(int(self.tensors["meta/frame_index"][0]), 1008, int(self.tensors["meta/frame_seed"][0]))
        return {
            "image": ((frame[None] - np.float32(0.5)) / np.float32(0.5)).astype(np.float32),
            "token_ids": self.tensors["text/token_ids"],
            "prompt_boxes": places,
            "prompt_box_labels": labels,
            "prompt_points": np.zeros((1, points, 2), np.float32),
            "prompt_point_labels": np.full((1, points), -1, np.int32),
        }


def reference_model(reference: Reference) -> EfficientSAM3:
    """The eager model with the weights that the reference was made with."""
    overrides = [f"weights.seed={int(reference.tensors['meta/weights_seed'][0])}", f"{RESCALED}={reference.rescale()}"]
    return cast(EfficientSAM3, build_model(load_recipe(RECIPE, overrides)).module)


def eager_stages(model: EfficientSAM3, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What eager modules give, by the reference's names, not strided."""
    detector, seen = model.detector, {}
    backbone, text = detector.backbone.vision_backbone, detector.backbone.language_backbone
    decoder, head = detector.transformer.decoder, detector.segmentation_head
    watched: dict[str, nn.Module] = {
        "image/repvit": backbone.get_submodule("trunk.model.backbone.model"),
        "image/trunk": backbone.trunk,
        "text/layer0": text.get_submodule("encoder.transformer.0"),
        "text/encoder_output": text.get_submodule("encoder.final_layer_norm"),
        "encoder/layer0": detector.transformer.encoder.layers[0],
        "encoder/layer5": detector.transformer.encoder.layers[5],
        "segmentation/mask_embed": head.get_submodule("mask_predictor.mask_embed"),
        "segmentation/cross_attention": head.cross_attend_prompt,
        "segmentation/pixel_embed": head.pixel_decoder,
        "segmentation/instance_embed": head.instance_seg_head,
    }

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def remember(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = output

        return remember

    def watch_tokens(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["text/embeddings"] = inputs[0].transpose(0, 1)

    def pool(features: Tensor, boxes: Tensor, size: int) -> Tensor:
        seen["geometry/roi_align"] = pooled_boxes(features, boxes, size)[0, :feeds_boxes]
        return pooled_boxes(features, boxes, size)

    def embed_boxes(*arguments: Tensor) -> Tensor:
        tokens: Tensor = encode_boxes(*arguments)
        seen["geometry/box_embeddings"] = tokens[:, :feeds_boxes].transpose(0, 1)
        return tokens

    encode_boxes = detector.geometry_encoder._encode_boxes
    feeds_boxes = int((feeds["prompt_box_labels"] >= 0).sum())
    hooks = [module.register_forward_hook(watch(name)) for name, module in watched.items()]
    hooks.append(text.get_submodule("encoder.transformer.0").register_forward_pre_hook(watch_tokens))
    given = {name: torch.from_numpy(array) for name, array in feeds.items()}
    places = [given[name] for name in ("prompt_boxes", "prompt_box_labels", "prompt_points", "prompt_point_labels")]
    try:
        with (
            torch.inference_mode(),
            mock.patch("samonnx.models.geometry_encoder.pooled_boxes", pool),
            mock.patch.object(detector.geometry_encoder, "_encode_boxes", embed_boxes),
        ):
            trunk_map = backbone.trunk(given["image"])
            high_res_0, high_res_1, features = backbone.detector_maps(trunk_map)
            words, word_valid = text(given["token_ids"])
            tokens, token_valid = detector.geometry_encoder(features, *places)
            prompt, valid = torch.cat((words, tokens), 1), torch.cat((word_valid, token_valid), 1)
            memory = detector.transformer.encoder(features, prompt, valid)
            decoded = decoder(memory, prompt, valid)
            logits = detector.dot_prod_scoring(decoded.queries[-1], prompt, valid)
            masks, semantic = head(memory, high_res_0, high_res_1, decoded.queries[-1], prompt, valid)
            for layer in (0, 5):
                seen[f"decoder/box_bias_layer{layer}"] = box_position_bias(
                    decoded.reference_boxes[layer],
                    GRID,
                    decoder.boxRPB_embed_x,
                    decoder.boxRPB_embed_y,
                    logarithmic=True,
                ).unflatten(-1, (GRID, GRID))
            presence = decoded.presence_logits[-1][:, 0]
            _, scores = detector.scored(logits, presence)
            with mock.patch.object(detector, "joint_box_scores", True):
                video_logits, video_scores = detector.scored(logits, presence)
            sam2 = backbone.tracker_maps(trunk_map)
    finally:
        for hook in hooks:
            hook.remove()
    for level, (sam3, tracker) in enumerate(zip((high_res_0, high_res_1, features), sam2, strict=True)):
        seen |= {f"image/sam3_fpn{level}": sam3, f"image/sam2_fpn{level}": tracker}
        seen[f"image/vision_pos_enc{level}"] = sine_map(sam3.shape[1], *sam3.shape[2:])[None]
    kept = torch.cat((torch.ones_like(word_valid), token_valid), 1)[0]
    centre, size = decoded.boxes[..., :2], decoded.boxes[..., 2:]
    seen |= {
        "text/language_mask": (~word_valid).to(torch.int32),
        "geometry/mask": (~token_valid[:, token_valid[0]]).to(torch.int32),
        "prompt/mask": (~valid[:, kept]).to(torch.int32),
        "text/language_features": words.transpose(0, 1),
        "geometry/output": tokens[:, token_valid[0]].transpose(0, 1),
        "prompt/features": prompt[:, kept].transpose(0, 1),
        "encoder/memory": _unflattened(memory),
        "decoder/hs_last": decoded.queries[-1],
        "decoder/hs_first8_all_layers": decoded.queries[:, 0, :8, None],
        "decoder/reference_boxes": decoded.reference_boxes,
        "decoder/presence_logits": decoded.presence_logits,
        "decoder/presence_feats": decoded.presence_token,
        "output/pred_logits_image_model": logits[..., None],
        "output/pred_logits_video_model": video_logits[..., None],
        "output/presence_logit": presence[:, None],
        "output/prob": scores[..., None],
        "output/prob_video_model": video_scores[..., None],
        "output/pred_boxes_cxcywh": decoded.boxes,
        "output/pred_boxes_xyxy": torch.cat((centre - size / 2, centre + size / 2), -1),
        "output/pred_masks_first20": masks[:, :20],
        "output/pred_masks": masks,
        "output/semantic_seg": semantic,
    }
    seen |= {name: _unflattened(seen[name]) for name in seen if _is_token_grid(name)}
    return {name: tensor.numpy() for name, tensor in seen.items()}


def exact_stages(model: EfficientSAM3, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """`eager_stages` in float64, rounded to float32 at the end: the same on every CPU."""
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feeds.items()}
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = eager_stages(copy.deepcopy(model).double(), wide)
    finally:
        torch.set_default_dtype(usual)
    return {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in found.items()}


def _is_token_grid(name: str) -> bool:
    return name in ("encoder/layer0", "encoder/layer5", "segmentation/cross_attention")


def _unflattened(tokens: Tensor) -> Tensor:
    """f32 [1, g·g, D] → [1, D, g, g]."""
    grid: Tensor = tokens.transpose(1, 2).unflatten(2, (GRID, GRID))
    return grid


def _on_grid(trunk_map: Tensor) -> Tensor:
    """The trunk's own map, which is all that the graph has of it, as large as the reference's."""
    return F.interpolate(trunk_map, size=(GRID, GRID), mode="bilinear", align_corners=False)


def graph_stages(folder: Path, target: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What the emitted `segment` gives in ONNX Runtime: its outputs, and values inside it as far as they are there."""
    file = Manifest.load(folder).program("segment").files[target]
    inside = {
        "encode_trunk/trunk_map": "image/trunk",
        "detector_neck/high_res_0": "image/sam3_fpn0",
        "detector_neck/high_res_1": "image/sam3_fpn1",
        "detector_neck/features": "image/sam3_fpn2",
        "encode_text/text_features": "text/language_features",
        "encode_prompts/prompt": "prompt/features",
        "encode_prompts/prompt_valid": "prompt/valid",
        "fuse/memory": "encoder/memory",
        "decode/queries": "decoder/hs_last",
    }
    found = GraphSession(probed(ir.load(folder / file), inside)).run(feeds)
    stages = {inside[name]: array for name, array in found.items() if name in inside}
    stages["text/language_features"] = stages["text/language_features"].transpose(1, 0, 2)
    stages["image/trunk"] = _on_grid(torch.from_numpy(stages["image/trunk"])).numpy()
    valid = stages.pop("prompt/valid")[0]
    # The graph blanks padding of the text, which nothing attends; the reference keeps it, and has no empty places.
    words = stages["text/language_features"].transpose(1, 0, 2)
    assert not stages["prompt/features"][:, :TEXT][:, ~valid[:TEXT]].any()
    stages["prompt/features"][:, :TEXT][:, ~valid[:TEXT]] = words[:, ~valid[:TEXT]]
    valid[:TEXT] = True
    stages["prompt/features"] = stages["prompt/features"][:, valid].transpose(1, 0, 2)
    stages["geometry/output"] = stages["prompt/features"][TEXT:]
    stages["encoder/memory"] = _unflattened(torch.from_numpy(stages["encoder/memory"])).numpy()
    return stages | {
        "output/pred_logits_image_model": found["logits"][..., None],
        "output/presence_logit": found["presence"][:, None],
        "output/prob": found["scores"][..., None],
        "output/pred_boxes_xyxy": found["boxes"],
        "output/pred_masks_first20": found["masks"][:, :20],
        "output/pred_masks": found["masks"],
        "output/semantic_seg": found["semantic_mask"],
    }


def figures(expected: Mapping[str, Array], stages: Mapping[str, Array]) -> dict[str, float]:
    """Largest error over the expected tensor's largest magnitude, by the reference's name, for every stage that is
    there; `…, centred` is after the mean over queries has been subtracted from both, over the same magnitude."""
    errors = {}
    for name, wanted in expected.items():
        found = taken(name, stages)
        if found is None:
            continue
        if found.shape != wanted.shape:
            raise AssertionError(f"{name}: shape {found.shape}, expected {wanted.shape}")
        scale = float(np.abs(wanted).max()) or 1.0
        errors[name] = float(np.abs(found.astype(np.float64) - wanted).max()) / scale
        if name == "decoder/hs_last":
            centred = [a.astype(np.float64) - a.mean(1, keepdims=True, dtype=np.float64) for a in (found, wanted)]
            errors[f"{name}, centred"] = float(np.abs(centred[0] - centred[1]).max()) / scale
    return errors


def taken(name: str, stages: Mapping[str, Array]) -> Array | None:
    """The part of a stage that the reference file keeps under `name`; None if there is no such stage."""
    base, strides = _strides(name)
    if base not in stages:
        return None
    found = stages[base]
    for axis, stride in strides.items():
        found = np.take(found, np.arange(0, found.shape[axis], stride), axis)
    return found


def _strides(name: str) -> tuple[str, dict[int, int]]:
    """`x_c3_s9` → x with every third channel and every ninth row and column."""
    axes = {"s": (-2, -1), "c": (1,), "q": (-3,)}
    base, strides = name, dict[int, int]()
    while (mark := base.rsplit("_", 1))[-1][:1] in axes and mark[-1][1:].isdecimal():
        base = mark[0]
        strides |= dict.fromkeys(axes[mark[1][0]], int(mark[1][1:]))
    return base, strides
