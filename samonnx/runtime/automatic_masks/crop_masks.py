"""What is kept of the masks of one crop, batch by batch: the filters by IoU, stability and the crop's edge.

In the original's order (upstream `automatic_mask_generator.py:295-322`). Scores are compared in float32, as there.
Masks that the IoU filter drops are never enlarged, those that the stability filter drops are not coded, and none is
held as pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.crops import Crop
from samonnx.runtime.automatic_masks.found_masks import FoundMasks
from samonnx.runtime.automatic_masks.mask_cutting import CutMask, MaskCutter
from samonnx.runtime.automatic_masks.mask_runs import Edges, edges_of
from samonnx.runtime.automatic_masks.parameters import MaskParameters
from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.image_predictor import PredictedMasks

__all__ = ["CropMasks", "Passed", "near_crop_edge"]

EDGE = 20
"""Pixels from the edge of a crop within which a box is cut off by it."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Passed:
    """How many masks of a batch each filter let pass."""

    candidates: int
    iou: int
    stability: int
    edge: int

    def __add__(self, other: Passed) -> Passed:
        return Passed(
            self.candidates + other.candidates,
            self.iou + other.iou,
            self.stability + other.stability,
            self.edge + other.edge,
        )


class CropMasks:
    """The filters for masks of one crop, which lies in the network's frame as `fit` says, in a picture of that size."""

    def __init__(self, crop: Crop, fit: FrameFit, parameters: MaskParameters, *, width: int, height: int) -> None:
        self._crop, self._fit, self._parameters = crop, fit, parameters
        self._width, self._height = width, height
        self._cutter: MaskCutter | None = None

    def take(self, predicted: PredictedMasks, points: npt.NDArray[np.float64]) -> tuple[FoundMasks, Passed]:
        """What is left of the masks for a batch of points [P, 2], in pixels of the crop; in the picture's pixels."""
        ious = predicted.ious.reshape(-1)
        logits = predicted.low_res_logits.reshape(len(ious), *predicted.low_res_logits.shape[2:])
        points = np.repeat(points, predicted.ious.shape[1], axis=0)
        candidates = np.arange(len(ious))
        if self._parameters.pred_iou_thresh > 0:
            candidates = np.flatnonzero(ious > np.float32(self._parameters.pred_iou_thresh))
        cutter = self._cutter_for(logits)
        stable, scores, boxes, codes = [], [], [], []
        for index in candidates:
            cut = cutter.cut(logits[index])
            score = _stability(cut)
            if self._is_stable(score):
                edges, box = self._coded(cut)
                stable.append(index)
                scores.append(score)
                codes.append(edges)
                boxes.append(box)
        table = np.array(boxes, dtype=np.int64).reshape(-1, 4)
        whole = np.flatnonzero(~near_crop_edge(table, self._crop, width=self._width, height=self._height))
        chosen = np.array(stable, dtype=np.intp)[whole]
        found = FoundMasks(
            width=self._width,
            height=self._height,
            edges=tuple(codes[place] for place in whole),
            boxes=table[whole],
            predicted_ious=ious[chosen],
            stability_scores=np.array(scores, dtype=np.float32)[whole],
            points=points[chosen] + (self._crop.x0, self._crop.y0),
            crop_boxes=np.tile(np.array(self._crop.box, dtype=np.int64), (len(whole), 1)),
        )
        return found, Passed(len(ious), len(candidates), len(stable), len(whole))

    def _cutter_for(self, logits: npt.NDArray[np.float32]) -> MaskCutter:
        if self._cutter is None:
            rows, columns = self._fit.mask_resize((logits.shape[1], logits.shape[2]))
            self._cutter = MaskCutter(rows, columns, self._parameters.stability_score_offset)
        return self._cutter

    def _is_stable(self, score: np.float32) -> bool:
        least = self._parameters.stability_score_thresh
        return least == 0 or bool(score >= np.float32(least))

    def _coded(self, cut: CutMask) -> tuple[Edges, Box]:
        """The mask in the picture, and its box there."""
        crop = self._crop
        rows, columns = (np.flatnonzero(cut.pixels.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return np.zeros(0, dtype=np.int32), (crop.x0, crop.y0, crop.x0, crop.y0)
        window = cut.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = crop.y0 + cut.top + int(rows[0]), crop.x0 + cut.left + int(columns[0])
        edges = edges_of(window, top=top, left=left, height=self._height)
        return edges, (left, top, left + window.shape[1] - 1, top + window.shape[0] - 1)


def near_crop_edge(boxes: npt.NDArray[np.int64], crop: Crop, *, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Whether any side of each box [n, 4] is near that of the crop and not near that of the picture; bool [n].

    Near: within 20 pixels, inclusive (upstream `utils/amg.py:78-88`).
    """
    at_crop = np.abs(boxes - np.array(crop.box)) <= EDGE
    at_picture = np.abs(boxes - np.array((0, 0, width, height))) <= EDGE
    near: npt.NDArray[np.bool_] = (at_crop & ~at_picture).any(axis=1)
    return near


def _stability(cut: CutMask) -> np.float32:
    """IoU of the mask cut at +offset and cut at -offset, the one inside the other; 0 / 0 is NaN."""
    with np.errstate(invalid="ignore"):
        return np.float32(cut.core) / np.float32(cut.reach)
