"""SAM 2's image encoder: Hiera and its feature pyramid, under the names that they have in a checkpoint."""

from __future__ import annotations

from torch import Tensor, nn

from samonnx.models.hiera import Hiera, HieraSizes
from samonnx.models.hiera_neck import HieraNeck

__all__ = ["ImageEncoder"]


class ImageEncoder(nn.Module):
    """Image f32 [1, 3, S, S], normalised by mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224, 0.225) of RGB in
    0…1 → three levels, fine to coarse: f32 [1, channels, S/4, S/4], [1, channels, S/8, S/8], [1, channels, S/16, S/16].

    S is `image_size`. Raises SamonnxError for sizes that Hiera does not take.
    """

    def __init__(self, sizes: HieraSizes, image_size: int = 1024, channels: int = 256) -> None:
        super().__init__()
        self.trunk = Hiera(sizes, image_size)
        self.neck = HieraNeck(sizes.widths, channels)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level_0, level_1, level_2 = self.neck(self.trunk(image))
        return level_0, level_1, level_2
