"""The eager reference as a variant: one step of the tracker with its dictionaries, image encoder included.

`both_necks` does the original's work as well: it computes the detector's neck beside the tracker's, and the fourth
level of each, none of which tracking reads (`model/necks.py` upstream).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.situation import Situation
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import FrameRecord, ImageFeatures, encode_image

__all__ = ["EagerStep"]


class EagerStep:
    """Callable: runs the step in inference mode and returns its outputs by the names of the `track` program."""

    def __init__(self, model: EfficientSAM3, situation: Situation, both_necks: bool = False) -> None:
        self.model = model
        self.situation = situation
        self.unread_levels = _unread_levels(model) if both_necks else None

    @torch.inference_mode()
    def __call__(self) -> dict[str, Array]:
        image = self.situation.image
        features = encode_image(self.model, image) if self.unread_levels is None else self._encode_as_original(image)
        tracker, frame_index = self.situation.tracker, self.situation.frame_index
        record = tracker.step(frame_index, features)
        del tracker.others[frame_index]  # the situation stays what it was: this frame has no memory yet
        return _named(record)

    def _encode_as_original(self, image: Tensor) -> ImageFeatures:
        assert self.unread_levels is not None
        backbone, decoder = self.model.detector.backbone.vision_backbone, self.model.tracker.sam_mask_decoder
        trunk_map = backbone.trunk(image)
        level_0, level_1, features = backbone.tracker_maps(trunk_map)
        for level in self.unread_levels:
            level(trunk_map)
        return ImageFeatures(decoder.conv_s0(level_0), decoder.conv_s1(level_1), features)

    def unread_flops(self) -> int:
        """FLOPs of what the original computes and tracking does not read; 0 without `both_necks`."""
        if self.unread_levels is None:
            return 0
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            for level in self.unread_levels:
                level(torch.zeros(self.model.trunk_map_shape))
        return int(counter.get_total_flops())


def _unread_levels(model: EfficientSAM3) -> list[nn.Module]:
    """The detector's four levels and the tracker's fourth."""
    backbone = model.detector.backbone.vision_backbone
    return [*backbone.convs, backbone.sam2_convs[3]]


def _named(record: FrameRecord) -> dict[str, Array]:
    output = record.output
    tensors = {
        "low_res_masks": output.low_res_masks,
        "masks": output.masks,
        "ious": output.ious,
        "object_score": output.object_score,
        "object_pointer": output.pointer,
        "memory": record.memory,
    }
    return {name: tensor.numpy() for name, tensor in tensors.items()}
