"""XMem's decoder: what was read from memory, the sensory state and the image's maps → one logit a pixel and object.

Cheng and Schwing, "XMem" (2022); upstream `model/modules.py` (`Decoder`, `UpsampleBlock`). Rows are objects O.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.xmem_fusion import FeatureFusion, ResidualBlock
from samonnx.models.xmem_sensory import MultiScaleUpdate

__all__ = ["Decoder"]


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class _Upsampling(nn.Module):
    """image f32 [1, X, 2h, 2w], objects f32 [O, G, h, w] → f32 [O, outputs, 2h, 2w]."""

    def __init__(self, image: int, objects: int, outputs: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(image, objects, 3, padding=1)
        self.out_conv = ResidualBlock(objects, outputs)

    def forward(self, image: Tensor, objects: Tensor) -> Tensor:
        merged: Tensor = self.out_conv(self.skip_conv(image) + _enlarged(objects, 2))
        return merged


class Decoder(nn.Module):
    """`trunk` t: width of the key encoder's stem, by which all inner widths go; `sensory` 0: no sensory memory."""

    def __init__(self, trunk: int, value: int, sensory: int) -> None:
        super().__init__()
        wide, narrow = 8 * trunk, 4 * trunk
        self.fuser = FeatureFusion(16 * trunk, value + sensory, wide, wide)
        self.hidden_update = MultiScaleUpdate((wide, narrow, narrow + 1), narrow, sensory) if sensory else None
        self.up_16_8 = _Upsampling(8 * trunk, wide, narrow)
        self.up_8_4 = _Upsampling(4 * trunk, narrow, narrow)
        self.pred = nn.Conv2d(narrow, 1, 3, padding=1)

    def forward(self, f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, sensory: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of the image as `KeyEncoder` gives them; readout f32 [O, V, h, w]; sensory f32 [O, C, h, w] → logits f32
        [O, 16h, 16w], the new sensory state."""
        g16 = self.fuser(f16, torch.cat([readout, sensory], 1))
        g8 = self.up_16_8(f8, g16)
        g4 = self.up_8_4(f4, g8)
        logits = self.pred(F.relu(g4))
        if self.hidden_update is not None:
            sensory = self.hidden_update(self.hidden_update.multi_scale(g16, g8, torch.cat([g4, logits], 1)), sensory)
        return _enlarged(logits, 4)[:, 0], sensory
