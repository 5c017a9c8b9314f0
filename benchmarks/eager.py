"""The eager reference as a variant: one step of the tracker with its dictionaries, image encoder included; and what the
original computes besides.

The original always runs both necks, the detector's and the tracker's, and the fourth level of each, whichever of them
is read (`model/necks.py` upstream).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.situation import Situation
from samonnx.errors import SamonnxError
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import FrameRecord, encode_image
from samonnx.models.tracker import TrackedModel

__all__ = ["BothNecks", "EagerStep", "levels_read_by_detection", "levels_read_by_tracking"]


class EagerStep:
    """Callable: runs the step in inference mode and returns its outputs by the names of the `track` program."""

    def __init__(self, model: TrackedModel, situation: Situation) -> None:
        self.model = model
        self.situation = situation

    @torch.inference_mode()
    def __call__(self) -> dict[str, Array]:
        features = encode_image(self.model, self.situation.image)
        tracker, frame_index = self.situation.tracker, self.situation.frame_index
        record = tracker.step(frame_index, features)
        del tracker.others[frame_index]  # the situation stays what it was: this frame has no memory yet
        return _named(record)


def levels_read_by_tracking(model: EfficientSAM3) -> list[nn.Module]:
    """The tracker's neck without its fourth level."""
    return list(model.detector.backbone.vision_backbone.sam2_convs)[:3]


def levels_read_by_detection(model: EfficientSAM3) -> list[nn.Module]:
    """The detector's neck without its fourth level."""
    return list(model.detector.backbone.vision_backbone.convs)[:3]


class BothNecks:
    """Callable: an eager variant `step` with the original's work as well, the levels of both necks that are not `read`.
    Their results go nowhere, as they do in the original."""

    def __init__(
        self, model: EfficientSAM3, step: Callable[[], Mapping[str, Array]], read: Sequence[nn.Module]
    ) -> None:
        self.model, self._step = model, step
        backbone = model.detector.backbone.vision_backbone
        self._read = read[0]
        self.unread = [level for level in (*backbone.convs, *backbone.sam2_convs) if level not in read]

    @torch.inference_mode()
    def __call__(self) -> dict[str, Array]:
        calls = []

        def run_unread(_: nn.Module, given: tuple[Tensor, ...], __: object) -> None:
            calls.append([level(*given) for level in self.unread])

        hook = self._read.register_forward_hook(run_unread)
        try:
            found = dict(self._step())
        finally:
            hook.remove()
        if len(calls) != 1:
            raise SamonnxError(f"the unread levels of both necks ran {len(calls)} times in a step, expected once")
        return found

    def unread_flops(self) -> int:
        """FLOPs of what is computed and not read."""
        grid = self.model.tracker.sizes.grid
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            for level in self.unread:
                level(torch.zeros(*self.model.trunk_map_shape[:2], grid, grid))
        return int(counter.get_total_flops())


_OUTPUTS: Mapping[str, Callable[[FrameRecord], Tensor]] = MappingProxyType(
    {
        "low_res_masks": lambda record: record.output.low_res_masks,
        "masks": lambda record: record.output.masks,
        "ious": lambda record: record.output.ious,
        "object_score": lambda record: record.output.object_score,
        "object_pointer": lambda record: record.output.pointer,
        "memory": lambda record: record.memory,
    }
)


def _named(record: FrameRecord) -> dict[str, Array]:
    return {name: tensor_of(record).numpy() for name, tensor_of in _OUTPUTS.items()}
