"""XMem's encoders: a frame → key, shrinkage, selection and the decoder's maps; a frame and its masks → values.

Cheng and Schwing, "XMem" (2022); upstream `model/modules.py` (`KeyEncoder`, `KeyProjection`, `ValueEncoder`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from samonnx.models.xmem_fusion import FeatureFusion
from samonnx.models.xmem_resnet import BasicBlock, Bottleneck, Stem, stage
from samonnx.models.xmem_sensory import SensoryUpdate

__all__ = ["KeyEncoder", "KeyProjection", "ValueEncoder"]


class KeyEncoder(Stem):
    """image f32 [1, 3, H, W] → maps at strides 16, 8, 4: f32 [1, 16t, h, w], [1, 8t, 2h, 2w], [1, 4t, 4h, 4w] with t
    the trunk's width: a ResNet-50 (`blocks` 3, 4, 6) without its last stage."""

    def __init__(self, trunk: int, blocks: Sequence[int]) -> None:
        super().__init__(3, trunk)
        self.res2, self.layer2, self.layer3 = (stage(Bottleneck, trunk, n, count) for n, count in enumerate(blocks))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f4 = self.res2(self.stem(image))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class KeyProjection(nn.Module):
    """Map at stride 16, f32 [1, F, h, w] → key [1, K, h, w], shrinkage [1, 1, h, w] (at least 1), selection
    [1, K, h, w] (0 to 1)."""

    def __init__(self, inputs: int, key: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(inputs, key, 3, padding=1)
        self.d_proj = nn.Conv2d(inputs, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(inputs, key, 3, padding=1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        distance: Tensor = self.d_proj(f16)
        return self.key_proj(f16), distance * distance + 1, self.e_proj(f16).sigmoid()


class ValueEncoder(Stem):
    """A ResNet-18 to stride 16 over image, own mask and the other objects' masks, fused with the key encoder's map.

    `sensory` 0: the network has no sensory memory (and no `hidden_reinforce` in its file)."""

    def __init__(self, trunk: int, value: int, sensory: int, blocks: Sequence[int]) -> None:
        super().__init__(5, trunk)
        self.layer1, self.layer2, self.layer3 = (stage(BasicBlock, trunk, n, count) for n, count in enumerate(blocks))
        self.fuser = FeatureFusion(16 * trunk, 4 * trunk, value, value)
        self.hidden_reinforce = SensoryUpdate(value, sensory) if sensory else None

    def forward(
        self, image: Tensor, f16: Tensor, sensory: Tensor, masks: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """image f32 [1, 3, H, W]; f16 f32 [1, 16t, h, w]; sensory f32 [O, C, h, w]; masks and others, the sum of the
        other objects' masks, f32 [O, H, W] → value f32 [O, V, h, w], the new sensory state."""
        frames = image.expand(masks.shape[0], -1, -1, -1)
        g = self.stem(torch.cat([frames, masks[:, None], others[:, None]], 1))
        value = self.fuser(f16, self.layer3(self.layer2(self.layer1(g))))
        return value, sensory if self.hidden_reinforce is None else self.hidden_reinforce(value, sensory)
