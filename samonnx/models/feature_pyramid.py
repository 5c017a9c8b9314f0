"""Simple feature pyramid behind the trunk: one map at 4x, 2x and 1x of the grid (and a 0.5x level that nothing reads).

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022); upstream `model/necks.py`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from samonnx.models.trunk import Trunk

__all__ = ["PYRAMID_SCALES", "VisionBackbone", "pyramid_level"]

PYRAMID_SCALES: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5)


def pyramid_level(scale: float, trunk_channels: int, channels: int) -> nn.Sequential:
    """The layers of one level: up- or downsampling from the trunk map, then a 1x1 and a 3x3 convolution to
    `channels`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = trunk_channels
    if scale == 4.0:
        layers["dconv_2x2_0"] = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        layers["gelu"] = nn.GELU()
        layers["dconv_2x2_1"] = nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2)
        width = width // 4
    elif scale == 2.0:
        layers["dconv_2x2"] = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        width = width // 2
    elif scale == 0.5:
        layers["maxpool_2x2"] = nn.MaxPool2d(2, stride=2)
    layers["conv_1x1"] = nn.Conv2d(width, channels, 1)
    layers["conv_3x3"] = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(layers)


class VisionBackbone(nn.Module):
    """Trunk and two necks on its map: `convs` for the detector, `sam2_convs` for the tracker.

    A neck gives three maps f32 [1, channels, s·grid, s·grid], s = 4, 2, 1. The fourth level (0.5x) is in released
    files and is dropped by upstream after computing it (`scalp=1`); its parameters are kept here so that a file loads
    whole, and it is never computed.
    """

    def __init__(self, trunk: Trunk, trunk_channels: int, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.convs = _neck(trunk_channels, channels)
        self.sam2_convs = _neck(trunk_channels, channels)

    def detector_maps(self, trunk_map: Tensor) -> list[Tensor]:
        """trunk map f32 [1, trunk_channels, grid, grid] → the detector's maps at 4x, 2x and 1x."""
        return [level(trunk_map) for level in list(self.convs)[:3]]

    def tracker_maps(self, trunk_map: Tensor) -> list[Tensor]:
        """trunk map f32 [1, trunk_channels, grid, grid] → the tracker's maps at 4x, 2x and 1x."""
        return [level(trunk_map) for level in list(self.sam2_convs)[:3]]


def _neck(trunk_channels: int, channels: int) -> nn.ModuleList:
    return nn.ModuleList(pyramid_level(scale, trunk_channels, channels) for scale in PYRAMID_SCALES)
