"""A real network with drawn masks: seeded weights make none that any filter would let pass.

The network runs as it would; its logits and IoUs are replaced by things that points share: ellipses, each point asking
for the nearest one, a part of it and something around it. Their edges are as steep as trained masks' are.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from samonnx.runtime.image_predictor import EncodedPicture, ImagePredictor, PredictedMasks

__all__ = ["DrawnMasks"]

THINGS = 150
SCALES = (0.4, 1.0, 1.9)
STEEPNESS = (50.0, 250.0)
"""Logits over the radius of a thing, at its edge; from about 80 on, masks count as stable."""


class DrawnMasks:
    """An `ImagePredictor` whose masks are drawn. `seconds`: how long the drawing took, which is no work of its own."""

    def __init__(self, predictor: ImagePredictor, seed: int = 0) -> None:
        self._predictor = predictor
        self._random = np.random.default_rng(seed)
        self._centres = self._random.uniform(0, 1, (THINGS, 2))
        self._sizes = np.exp(self._random.uniform(np.log(0.01), np.log(0.25), (THINGS, 2)))
        self._steepness = self._random.uniform(*STEEPNESS, THINGS)
        self.seconds = 0.0

    def encode_image(self, picture: npt.NDArray[np.uint8]) -> EncodedPicture:
        """As `ImagePredictor.encode_image`."""
        return self._predictor.encode_image(picture)

    def predict_points(self, picture: EncodedPicture, points: npt.NDArray[np.float64]) -> PredictedMasks:
        """As `ImagePredictor.predict_points`, but for what is in the masks."""
        predicted = self._predictor.predict_points(picture, points)
        started = time.perf_counter()
        fit, side = picture.fit, predicted.low_res_logits.shape[-1]
        y, x = (
            (np.arange(side) + 0.5) / side * frame / placed for frame, placed in zip(fit.frame, fit.placed, strict=True)
        )
        shares = points / (fit.width, fit.height)
        nearest = ((shares[:, None] - self._centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        logits = np.empty_like(predicted.low_res_logits)
        for row, thing in zip(logits, nearest, strict=True):
            (cx, cy), size = self._centres[thing], self._sizes[thing]
            for mask, scale in zip(row, SCALES, strict=True):
                rx, ry = size * scale
                mask[...] = self._steepness[thing] * (1 - np.hypot((x[None] - cx) / rx, (y[:, None] - cy) / ry))
        ious = self._random.uniform(0.7, 1.0, predicted.ious.shape).astype(np.float32)
        self.seconds += time.perf_counter() - started
        return PredictedMasks(fit, np.clip(logits, -20, 20, out=logits), ious)
