"""XMem's sensory memory: one map an object, carried from frame to frame by a gated recurrent unit.

Cheng and Schwing, "XMem" (2022), section 3.4; upstream `model/modules.py` (`HiddenReinforcer`, `HiddenUpdater`). On a
memory frame the value encoder's unit (`SensoryUpdate`) updates it, on other frames the decoder's (`MultiScaleUpdate`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MultiScaleUpdate", "SensoryUpdate"]


class SensoryUpdate(nn.Module):
    """g f32 [O, G, h, w], state h f32 [O, C, h, w] → the new state.

    Not the usual unit: with f, u, v the three thirds of one 3x3 convolution of [g, h],

        h' = σ(f) · h · (1 − σ(u)) + σ(u) · tanh(v)
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(inputs + channels, 3 * channels, 3, padding=1)

    def forward(self, g: Tensor, state: Tensor) -> Tensor:
        forget, update, value = self.transform(torch.cat([g, state], 1)).chunk(3, 1)
        update = update.sigmoid()
        updated: Tensor = forget.sigmoid() * state * (1 - update) + update * value.tanh()
        return updated


class MultiScaleUpdate(SensoryUpdate):
    """The same with a g that sums 1x1 convolutions of the decoder's maps at strides 16, 8 and 4, the latter two
    averaged down to stride 16 first."""

    def __init__(self, widths: tuple[int, int, int], middle: int, channels: int) -> None:
        super().__init__(middle, channels)
        self.g16_conv = nn.Conv2d(widths[0], middle, 1)
        self.g8_conv = nn.Conv2d(widths[1], middle, 1)
        self.g4_conv = nn.Conv2d(widths[2], middle, 1)

    def multi_scale(self, g16: Tensor, g8: Tensor, g4: Tensor) -> Tensor:
        """f32 [O, ·, h, w], [O, ·, 2h, 2w], [O, ·, 4h, 4w] → f32 [O, middle, h, w]."""
        summed: Tensor = self.g16_conv(g16) + self.g8_conv(F.avg_pool2d(g8, 2)) + self.g4_conv(F.avg_pool2d(g4, 4))
        return summed
