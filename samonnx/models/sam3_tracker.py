"""The tracker of SAM 3, under the parameter names of its released checkpoints."""

from __future__ import annotations

from torch import Tensor, nn

from samonnx.models.memory_attention import MemoryAttention
from samonnx.models.memory_encoder import MemoryEncoder
from samonnx.models.tracker import Tracker, TrackerSizes

__all__ = ["Sam3Tracker"]


class _Transformer(nn.Module):
    """The level `transformer` in the checkpoint's names."""

    def __init__(self, encoder: MemoryAttention) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointer: Tensor, pointer_position: Tensor
    ) -> Tensor:
        conditioned: Tensor = self.encoder(features, memory, memory_position, pointer, pointer_position)
        return conditioned


class Sam3Tracker(Tracker):
    """The shared tracker with memory attention as `transformer.encoder` and memory encoder as `maskmem_backbone`."""

    def __init__(self, sizes: TrackerSizes) -> None:
        super().__init__(sizes)
        width, memory = sizes.hidden_dim, sizes.memory_dim
        self.transformer = _Transformer(MemoryAttention(width, memory, sizes.ffn_dim, sizes.grid))
        self.maskmem_backbone = MemoryEncoder(width, memory, sizes.grid)

    def attend_memory(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointer: Tensor, pointer_position: Tensor
    ) -> Tensor:
        conditioned: Tensor = self.transformer(features, memory, memory_position, pointer, pointer_position)
        return conditioned

    def memory_map(self, features: Tensor, mask_values: Tensor) -> Tensor:
        memory: Tensor = self.maskmem_backbone(features, mask_values)
        return memory
