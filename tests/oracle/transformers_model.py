"""The transformers library's SAM 3 with our weights in it: written by others, from the same paper and checkpoint."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from samonnx.models.clip_text import CLIP_TEXT_SIZES
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.vit import PATCH, VIT_SIZES
from samonnx.recipe import Recipe
from tests.oracle.transformers_keys import transformers_state

__all__ = ["transformers_model"]


def transformers_model(recipe: Recipe, ours: EfficientSAM3) -> Any:
    """`Sam3Model` of the recipe's sizes, in eval mode, with the weights of `ours`; all of its own are filled."""
    # The library's front door asks for torchvision, whose wheels need a CUDA build of torch. It is used in one place.
    modeling = importlib.import_module("transformers.models.sam3.modeling_sam3")
    configuration = importlib.import_module("transformers.models.sam3.configuration_sam3")
    auto_model = importlib.import_module("transformers").AutoModel
    auto_model.register(configuration.Sam3ViTConfig, modeling.Sam3ViTModel, exist_ok=True)
    vars(modeling)["torchvision"] = SimpleNamespace(ops=SimpleNamespace(roi_align=roi_align))
    theirs = modeling.Sam3Model(configuration.Sam3Config(**_figures(dict(recipe.model.args)))).eval()
    theirs.requires_grad_(False).load_state_dict(transformers_state(ours.state_dict()))
    return theirs


def _figures(args: dict[str, Any]) -> dict[str, Any]:
    trunk, text = VIT_SIZES[args["backbone"]], CLIP_TEXT_SIZES[args["text_encoder"]]
    grid = args["image_size"] // PATCH
    detector = {"hidden_size": args["hidden_dim"], "intermediate_size": args["ffn_dim"], "num_attention_heads": 8}
    return {
        "vision_config": {
            "fpn_hidden_size": args["hidden_dim"],
            "backbone_feature_sizes": [[scale * grid, scale * grid] for scale in (4, 2, 1)],
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": trunk.width,
                "intermediate_size": trunk.hidden,
                "num_hidden_layers": trunk.depth,
                "num_attention_heads": trunk.heads,
                "image_size": args["image_size"],
                "window_size": trunk.window,
                "global_attn_indexes": list(trunk.global_blocks),
                "pretrain_image_size": PATCH * trunk.position_side,
                # The library's default is 1e-6; the original normalises with 1e-5.
                "layer_norm_eps": 1e-5,
            },
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "projection_dim": text.projection,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.heads,
            "max_position_embeddings": args["text_positions"],
            "hidden_act": "gelu",
        },
        "geometry_encoder_config": {**detector, "num_layers": args["geometry_layers"]},
        "detr_encoder_config": {**detector, "num_layers": args["encoder_layers"]},
        "detr_decoder_config": {
            **detector,
            "num_layers": args["decoder_layers"],
            "num_queries": args["queries"],
        },
        "mask_decoder_config": {"hidden_size": args["hidden_dim"], "num_attention_heads": 8},
    }


def roi_align(features: Tensor, boxes: Sequence[Tensor], size: int) -> Tensor:
    """torchvision's operator of this name with its default arguments, sample by sample, in float64.

    features f32 [B, C, H, W]; boxes: B of f32 [R, 4] (x0, y0, x1, y1 in cells) → f32 [sum of R, C, size, size].
    """
    pooled = [
        _pooled(image.double(), box.tolist(), size) for image, of in zip(features, boxes, strict=True) for box in of
    ]
    return torch.stack(pooled).float()


def _pooled(image: Tensor, box: Sequence[float], size: int) -> Tensor:
    x0, y0, x1, y1 = box
    wide, high = max(x1 - x0, 1.0) / size, max(y1 - y0, 1.0) / size
    across, down = math.ceil(wide), math.ceil(high)
    out = torch.zeros(image.shape[0], size, size, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            samples = [
                _sample(image, y0 + high * (row + (j + 0.5) / down), x0 + wide * (column + (i + 0.5) / across))
                for j in range(down)
                for i in range(across)
            ]
            out[:, row, column] = torch.stack(samples).mean(0)
    return out


def _sample(image: Tensor, y: float, x: float) -> Tensor:
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(image[:, 0, 0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    upper = image[:, top, left] * (left + 1 - x) + image[:, top, left + 1] * (x - left)
    lower = image[:, top + 1, left] * (left + 1 - x) + image[:, top + 1, left + 1] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)
