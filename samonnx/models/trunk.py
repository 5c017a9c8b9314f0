"""What every image trunk offers to the necks and to programs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["Trunk"]


class Trunk(nn.Module, ABC):
    """Image f32 [1, 3, S, S], normalised to about -1…1 → trunk map f32 [1, channels, grid, grid], in two steps.

    `encode` is what is worth computing once for detector and tracker; `to_grid` enlarges it where a trunk's own map is
    smaller than the grid. A program has them apart, so that the necks' per-pixel maps can go to the small side.
    """

    grid: int

    def forward(self, image: Tensor) -> Tensor:
        return self.to_grid(self.encode(image))

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """The trunk's own map, f32 [1, channels, side, side], side = `map_side(S)`."""

    def to_grid(self, features: Tensor) -> Tensor:
        """What `encode` returned → the trunk map; here the same."""
        return features

    def map_side(self, image_size: int) -> int:
        """Cells along a side of what `encode` returns for an image of `image_size`; here the grid's."""
        return self.grid
