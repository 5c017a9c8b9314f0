"""Graphs that this project did not make: modules exported by torch.onnx, by both of its exporters.

Weights are random, sizes small by default and those of published models with `full`. A module that cannot be built or
exported with what is installed is reported with the reason.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from samonnx.trace import quiet_exporter

__all__ = ["EXPORTS", "MODULES", "Example", "Export", "export"]


@dataclass(frozen=True)
class Example:
    """`module` takes `inputs` in this order and returns tensors, named by `outputs`. `dynamic`: axes that get names,
    by input. `decomposed`: operators that the exporter does not know, as functions of those that it knows."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    decomposed: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """An exporter and the opset that it is asked for."""

    dynamo: bool
    opset: int

    @property
    def name(self) -> str:
        return f"{'dynamo' if self.dynamo else 'torchscript'}, opset {self.opset}"


_NARROW_RESNET: dict[str, Any] = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]}

EXPORTS = (Export(True, 23), Export(True, 18), Export(False, 17))


def export(example: Example, how: Export, path: Path) -> None:
    """Write the graph to `path` (large weights beside it). Raises whatever the exporter raises."""
    options: dict[str, Any] = {"dynamo": how.dynamo, "opset_version": how.opset, "verbose": False}
    if example.dynamic and not how.dynamo:
        options["dynamic_axes"] = {name: dict(axes) for name, axes in example.dynamic.items()}
    if example.dynamic and how.dynamo:
        axes = [
            dict.fromkeys(example.dynamic.get(name, {}), torch.export.Dim.DYNAMIC) or None for name in example.inputs
        ]
        options["dynamic_shapes"] = tuple(axes)
    with quiet_exporter(), _without_words(), torch.no_grad():
        module: Any = example.module.eval()
        inputs = tuple(example.inputs.values())
        if example.decomposed:
            shapes = options.pop("dynamic_shapes", None)
            exported = torch.export.export(module, inputs, dynamic_shapes=shapes)
            module, inputs = exported.run_decompositions(dict(example.decomposed)), ()
        torch.onnx.export(
            module,
            inputs,
            path if how.dynamo else str(path),
            input_names=list(example.inputs),
            output_names=list(example.outputs),
            **options,
        )


@contextlib.contextmanager
def _without_words() -> Iterator[None]:
    """The old exporter warns of every constant that it traces, the new one prints stacks of what it tries."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _Taken(nn.Module):
    """A model of transformers as a module of tensors: named arguments in order, attributes of what it returns."""

    def __init__(self, model: nn.Module, arguments: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.arguments, self.outputs = arguments, outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.model(**dict(zip(self.arguments, inputs, strict=True)))
        return tuple(getattr(found, name) for name in self.outputs)


class _Block(nn.Module):
    """The bottleneck of ResNet (He et al. 2016), stride in the 3 × 3 as usual today."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.skip(x))


def _resnet(full: bool) -> Example:
    """ResNet-50, or one block a stage of a quarter of the width."""
    depths, width, size = ((3, 4, 6, 3), 64, 224) if full else ((1, 1, 1, 1), 16, 64)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = width
    for stage, depth in enumerate(depths):
        for block in range(depth):
            layers.append(_Block(inputs, width << stage, 2 if stage and not block else 1))
            inputs = 4 * (width << stage)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000 if full else 10)]
    module = _settled(nn.Sequential(*layers))
    return Example(module, {"image": torch.randn(1, 3, size, size)}, ("logits",), {"image": {0: "batch"}})


def _settled(module: nn.Module) -> nn.Module:
    """Statistics of normalisations as training leaves them: near those of the data, never 0 and 1."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, 0, 0.1)
    return module


def _bert(full: bool) -> Example:
    from transformers import BertConfig, BertModel

    narrow: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500,
                              "intermediate_size": 128}  # fmt: skip
    model = BertModel(BertConfig(**({} if full else narrow)))
    tokens = 128 if full else 16
    ids, mask = torch.randint(0, 500, (1, tokens)), torch.ones(1, tokens, dtype=torch.int64)
    outputs = ("last_hidden_state", "pooler_output")
    return _example(model, {"input_ids": ids, "attention_mask": mask}, outputs)


def _clip(full: bool) -> Example:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    narrow: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
                              "patch_size": 16, "intermediate_size": 128}  # fmt: skip
    model = CLIPVisionModel(CLIPVisionConfig(**({} if full else narrow)))
    size = 224 if full else 64
    return _example(model, {"pixel_values": torch.randn(1, 3, size, size)}, ("last_hidden_state", "pooler_output"))


def _hf_resnet(full: bool) -> Example:
    from transformers import ResNetConfig, ResNetModel

    model = _settled(ResNetModel(ResNetConfig(**({} if full else _NARROW_RESNET))))
    size = 224 if full else 64
    return _example(model, {"pixel_values": torch.randn(1, 3, size, size)}, ("last_hidden_state", "pooler_output"))


def _detr(full: bool) -> Example:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone: dict[str, Any] = {"out_features": ["stage4"]} | ({} if full else _NARROW_RESNET)
    sizes: dict[str, Any] = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    if not full:
        sizes |= {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 128, "num_queries": 10,
                  "decoder_ffn_dim": 128, "encoder_attention_heads": 4, "decoder_attention_heads": 4}  # fmt: skip
    model = _settled(DetrForObjectDetection(DetrConfig(backbone_config=ResNetConfig(**backbone), **sizes)))
    size = 640 if full else 96
    return _example(model, {"pixel_values": torch.randn(1, 3, size, size)}, ("logits", "pred_boxes"))


def _sam(full: bool) -> Example:
    from transformers import SamConfig, SamModel

    narrow: dict[str, Any] = {
        "vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 128,
                          "output_channels": 32, "num_pos_feats": 16, "window_size": 3, "global_attn_indexes": [1]},
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "mask_input_channels": 8},
        "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": 32},
    }  # fmt: skip
    model = SamModel(SamConfig(**({} if full else narrow)))
    size = 1024 if full else 128
    inputs = {
        "pixel_values": torch.randn(1, 3, size, size),
        "input_points": size * torch.rand(1, 1, 2, 2),
        "input_labels": torch.ones(1, 1, 2, dtype=torch.int64),
    }
    return _example(model, inputs, ("iou_scores", "pred_masks"))


def _sam2(full: bool) -> Example:
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    if full:
        config, size = Sam2Config(), 1024
    else:
        narrow = Sam2HieraDetConfig(
            hidden_size=8, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[8, 4, 4, 2],
            global_attention_blocks=[3], window_positional_embedding_background_size=[4, 4],
        )  # fmt: skip
        vision = Sam2VisionConfig(
            backbone_config=narrow.to_dict(), backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        )  # fmt: skip
        prompts: dict[str, Any] = {"hidden_size": 32, "image_size": 128, "mask_input_channels": 8}
        decoder: dict[str, Any] = {
            "hidden_size": 32,
            "mlp_dim": 48,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 32,
        }
        config = Sam2Config(vision_config=vision.to_dict(), prompt_encoder_config=prompts, mask_decoder_config=decoder)
        size = 128
    inputs = {
        "pixel_values": torch.randn(1, 3, size, size),
        "input_points": size * torch.rand(1, 1, 2, 2),
        "input_labels": torch.ones(1, 1, 2, dtype=torch.int32),
    }
    return _example(Sam2Model(config), inputs, ("iou_scores", "pred_masks"))


def _example(model: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...]) -> Example:
    return Example(_Taken(model.eval(), tuple(inputs), outputs), inputs, outputs)


MODULES: Mapping[str, Callable[[bool], Example]] = MappingProxyType(
    {
        "resnet": _resnet,
        "ResNetModel": _hf_resnet,
        "BertModel": _bert,
        "CLIPVisionModel": _clip,
        "DetrForObjectDetection": _detr,
        "SamModel": _sam,
        "Sam2Model": _sam2,
    }
)
"""Name → function that builds the module; its argument: whether at full size."""
