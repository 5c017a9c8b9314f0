"""A predictor whose masks are formulas: no network, but shapes that filters and suppression have something to do with.

A picture of `coordinate_picture` says in its pixels where they lie, so that a crop of it is known for what it is, and
things keep their place in the picture whichever crop they are seen in. For each point there are three candidates, drawn
by a generator that is seeded with the point: things of the scene that many points share, discs around the point, rings,
specks, nothing, everything. Predicted IoUs are from a short list, so that there are ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.image_predictor import EncodedPicture, PredictedMasks
from samonnx.runtime.manifest import PreprocessingInfo

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

IOUS = (0.5, 0.8, 0.85, 0.88, 0.9, 0.9, 0.95, 1.02)
LOWEST, HIGHEST = -8.0, 7.3
"""Logits; so float32 rounds them by less than 4e-6 on their way to the picture."""


def coordinate_picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3] that says where each pixel is: x and y below 4096."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=2).astype(np.uint8)


@dataclass(frozen=True)
class FormulaPredictor:
    """Masks of `low` x `low` logits in a frame of `size` x `size` pixels."""

    seed: int = 0
    size: int = 96
    low: int = 24
    fit: str = "pad"
    things: int = 10
    steepness: float = 3.0
    """Logits a pixel of the picture, at the edges of things."""

    def encode_image(self, picture: npt.NDArray[np.uint8]) -> EncodedPicture:
        x, y, high = (int(value) for value in picture[0, 0])
        origin = np.array([x + high // 16 * 256, y + high % 16 * 256])
        fit = FrameFit.of(PreprocessingInfo(self.size, fit=self.fit), *picture.shape[:2])
        return EncodedPicture(fit, {"origin": origin}, "formula")

    def predict_points(self, picture: EncodedPicture, points: npt.NDArray[np.float64]) -> PredictedMasks:
        logits = np.empty((len(points), 3, self.low, self.low), dtype=np.float32)
        ious = np.empty((len(points), 3), dtype=np.float32)
        for row, point in enumerate(points):
            logits[row], ious[row] = self._candidates(picture, point)
        return PredictedMasks(picture.fit, logits, ious)

    def _candidates(self, picture: EncodedPicture, point: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
        fit, (left, top) = picture.fit, picture.maps["origin"].astype(np.float64)
        cells = (np.arange(self.low) + 0.5) * self.size / self.low
        x = left + cells[None, :] * fit.width / fit.placed[1]
        y = top + cells[:, None] * fit.height / fit.placed[0]
        at = np.array((point[0] + left, point[1] + top))
        random = np.random.default_rng([self.seed, *(int(v * 1000) for v in (*at, fit.width, fit.height))])
        masks = [self._distance(x, y, at, fit, random) * self.steepness for _ in range(3)]
        ious = random.choice(IOUS, 3).astype(np.float32)
        return np.clip(np.stack(masks), LOWEST, HIGHEST).astype(np.float32), ious

    def _distance(
        self,
        x: Doubles,
        y: Doubles,
        at: Doubles,
        fit: FrameFit,
        random: np.random.Generator,
    ) -> Doubles:
        """Pixels inside the shape's edge; negative outside."""
        side = float(min(fit.width, fit.height))
        kind = random.choice(["thing", "thing", "thing", "disc", "ring", "specks", "nothing", "everything", "unsure"])
        radius = side * float(random.uniform(0.05, 0.4))
        from_point: Doubles = np.hypot(x - at[0], y - at[1])
        if kind == "thing":
            return self._thing(int(random.integers(self.things)), x, y)
        if kind == "ring":
            ring: Doubles = radius / 3 - np.abs(from_point - radius)
            return ring
        if kind == "specks":
            speck: Doubles = side / 20 - np.hypot(x - at[0] / 2, y - at[1] / 3)
            return np.maximum(radius - from_point, speck)
        if kind == "disc":
            return radius - from_point
        return np.full(from_point.shape, {"nothing": -1.3, "everything": 1.4, "unsure": 0.2}[kind])

    def _thing(self, number: int, x: Doubles, y: Doubles) -> Doubles:
        """Boxes and discs at fixed places of the picture, some near one another."""
        random = np.random.default_rng([self.seed, number // 2])
        cx, cy, rx, ry = random.uniform(8, 100), random.uniform(8, 80), random.uniform(4, 40), random.uniform(4, 30)
        shift = 0.0 if number % 2 == 0 else 2.3
        box: Doubles = np.minimum(rx - np.abs(x - cx - shift), ry - np.abs(y - cy))
        disc: Doubles = min(rx, ry) - np.hypot(x - cx - shift, y - cy)
        return box if number % 4 < 2 else disc
