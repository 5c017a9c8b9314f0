"""The simple feature pyramid: three levels from one trunk map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from samonnx.models.feature_pyramid import VisionBackbone
from samonnx.models.trunk import Trunk
from samonnx.weights import fill_seeded


class ImageAsMap(Trunk):
    """Stands for the trunk: the image is the map."""

    def encode(self, image: Tensor) -> Tensor:
        return image


def seeded_backbone() -> VisionBackbone:
    backbone = VisionBackbone(ImageAsMap(), trunk_channels=8, channels=4).eval().requires_grad_(False)
    fill_seeded(backbone)
    return backbone


def trunk_map() -> Tensor:
    return torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))


NECKS: dict[str, Callable[[VisionBackbone, Tensor], list[Tensor]]] = {
    "convs": VisionBackbone.detector_maps,
    "sam2_convs": VisionBackbone.tracker_maps,
}

each_neck = pytest.mark.parametrize("neck", NECKS)


@each_neck
def test_the_levels_are_four_two_and_one_times_the_grid(neck: str) -> None:
    assert [tuple(level.shape) for level in NECKS[neck](seeded_backbone(), trunk_map())] == [
        (1, 4, 24, 24),
        (1, 4, 12, 12),
        (1, 4, 6, 6),
    ]


@each_neck
def test_each_level_is_upsampled_by_transposed_convolutions_and_projected_without_activation(neck: str) -> None:
    backbone, x = seeded_backbone(), trunk_map()
    state = backbone.state_dict()

    def weights(level: int, layer: str) -> tuple[Tensor, Tensor]:
        return state[f"{neck}.{level}.{layer}.weight"], state[f"{neck}.{level}.{layer}.bias"]

    def projected(level: int, y: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(y, *weights(level, "conv_1x1")), *weights(level, "conv_3x3"), padding=1)

    half = F.gelu(F.conv_transpose2d(x, *weights(0, "dconv_2x2_0"), stride=2))
    expected = (
        projected(0, F.conv_transpose2d(half, *weights(0, "dconv_2x2_1"), stride=2)),
        projected(1, F.conv_transpose2d(x, *weights(1, "dconv_2x2"), stride=2)),
        projected(2, x),
    )
    assert all(torch.equal(found, wanted) for found, wanted in zip(NECKS[neck](backbone, x), expected, strict=True))


@each_neck
def test_the_fourth_level_has_weights_and_is_never_computed(neck: str) -> None:
    backbone = seeded_backbone()
    assert f"{neck}.3.conv_3x3.weight" in backbone.state_dict()
    called = []
    backbone.get_submodule(f"{neck}.3").register_forward_hook(lambda *_: called.append(True))
    NECKS[neck](backbone, trunk_map())
    assert not called
