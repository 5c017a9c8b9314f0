"""Feature pyramid behind Hiera: each stage's map projected to one width, the coarsest added to the one before it.

Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017); upstream `sam2/modeling/backbones/
image_encoder.py` (`FpnNeck`) with the figures of `sam2/configs/sam2.1`: only the two coarsest levels take part in the
top-down sum, and the coarsest is dropped after it (`scalp: 1`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError

__all__ = ["HieraNeck"]


class HieraNeck(nn.Module):
    """Four maps, fine to coarse, f32 [1, widths[i], side / 2^i, side / 2^i] → three of `channels` channels, of the
    first three sides.

    `convs` in the checkpoint's order: the coarsest map's comes first.
    """

    def __init__(self, widths: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        if len(widths) != 4:
            raise SamonnxError(f"the neck takes the maps of four stages, found widths {list(widths)}")
        self.convs = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv2d(width, channels, kernel_size=1))) for width in reversed(widths)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Raises SamonnxError if there are not four maps, or one is not twice as wide as the next."""
        sides = [tuple(features.shape[-2:]) for features in maps]
        doubled = [(2 * height, 2 * width) for height, width in sides[1:]]
        if len(maps) != 4 or sides[:-1] != doubled:
            raise SamonnxError(
                f"the neck takes four maps, each of twice the sides of the next; found {', '.join(map(str, sides))}"
            )
        coarsest, third, second, first = (
            conv(features) for conv, features in zip(self.convs, reversed(maps), strict=True)
        )
        return first, second, third + F.interpolate(coarsest, scale_factor=2.0, mode="nearest")
