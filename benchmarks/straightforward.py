"""The straightforward export: what `torch.onnx.export` makes of the same modules, wired for exactly one situation.

No padding, no masks, no prompt inputs, no bank to keep: a propagated frame with all that it attends. The exporter's
default opset, at which it writes attention as MatMul, Softmax, MatMul; nothing of samonnx's passes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.situation import Situation
from samonnx.graph_session import Array
from samonnx.models.tracker import TrackedModel
from samonnx.trace import quiet_exporter

__all__ = ["OUTPUTS", "StraightforwardStep", "export_straightforward", "straightforward_inputs"]

OUTPUTS = ("low_res_masks", "masks", "ious", "object_score", "object_pointer", "memory")


class StraightforwardStep(nn.Module):
    """A propagated frame of one object: image f32 [1, 3, S, S], maps f32 [1, n, C, h, w] and pointers f32 [1, p, D] of
    the frames attended → `OUTPUTS`. Which frames they are is fixed, so all position encodings are constants."""

    age: Tensor
    distance: Tensor
    window: Tensor

    def __init__(self, model: TrackedModel, situation: Situation) -> None:
        super().__init__()
        tracker, now = situation.tracker, situation.frame_index
        chosen, recent = tracker.memory_frames(now)
        last = model.tracker.sizes.memory_frames - 1
        distance = [[now - t for t in situation.pointer_frames]]
        window = min(tracker.num_frames or tracker.max_pointers, tracker.max_pointers) - 1
        self.model = model  # a module, so that its parameters are this one's
        self.register_buffer("age", torch.tensor([last] * len(chosen) + tracker.ages(now, recent)))
        self.register_buffer("distance", torch.tensor(distance, dtype=torch.int32))
        self.register_buffer("window", torch.tensor(window))

    def forward(self, image: Tensor, maps: Tensor, pointers: Tensor) -> tuple[Tensor, ...]:
        tracker, decoder = self.model.tracker, self.model.tracker.sam_mask_decoder
        level_0, level_1, features = self.model.tracker_levels(image)
        conditioned = tracker.attend_memory(
            features,
            maps.flatten(3).transpose(2, 3),
            tracker.memory_position(self.age)[None],
            tracker.pointer_tokens(pointers),
            tracker.pointer_position(self.distance, self.window),
        )
        encoder = tracker.sam_prompt_encoder
        places = 2 if encoder.pad_with_empty_point else 1
        sparse = encoder.point_tokens(torch.zeros(1, places, 2), torch.full((1, places), -1, dtype=torch.int32))
        high_res = decoder.conv_s0(level_0), decoder.conv_s1(level_1)
        decoded = decoder(conditioned, encoder.dense_position(), sparse, None, encoder.no_mask_map(), *high_res)
        no_points, attends = torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.bool)
        output = tracker.output(decoded, tracker.uses_candidates(no_points, attends))
        memory = tracker.encode_memory(features, output.masks, output.object_score, torch.zeros(1, dtype=torch.bool))
        return output.low_res_masks, output.masks, output.ious, output.object_score, output.pointer, memory


def straightforward_inputs(situation: Situation) -> tuple[Tensor, Tensor, Tensor]:
    """Image, maps and pointers of `situation`, as `StraightforwardStep` takes them."""
    tracker = situation.tracker
    maps = torch.stack([tracker.record(t).memory for t in situation.memory_frames], dim=1)
    pointers = torch.stack([tracker.record(t).output.pointer for t in situation.pointer_frames], dim=1)
    return situation.image, maps, pointers


def export_straightforward(model: TrackedModel, situation: Situation, path: Path) -> dict[str, Array]:
    """Write the graph to `path` (weights beside it, in `<path>.data`) and return its inputs for `situation`."""
    given = dict(zip(("image", "maps", "pointers"), straightforward_inputs(situation), strict=True))
    with quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            StraightforwardStep(model, situation).eval(),
            tuple(given.values()),
            path,
            dynamo=True,
            input_names=list(given),
            output_names=list(OUTPUTS),
            verbose=False,
        )
    return {name: tensor.numpy() for name, tensor in given.items()}
