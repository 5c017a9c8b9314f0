"""Automatic masks from beginning to end: crops, points, filters, suppression, small regions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.crop_masks import CropMasks, Passed
from samonnx.runtime.automatic_masks.crops import Crop, crops_of
from samonnx.runtime.automatic_masks.found_masks import FoundMasks
from samonnx.runtime.automatic_masks.mask_runs import MOST_PIXELS
from samonnx.runtime.automatic_masks.parameters import MaskParameters, ParameterError
from samonnx.runtime.automatic_masks.point_grid import crop_points
from samonnx.runtime.automatic_masks.small_regions import box_of, without_small_regions
from samonnx.runtime.automatic_masks.suppression import distinct_boxes
from samonnx.runtime.image_predictor import EncodedPicture, PredictedMasks
from samonnx.runtime.preprocessing import check_frame

__all__ = ["STAGES", "AutomaticMasks", "Generated", "PointPredictor", "Progress", "Stage"]

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with the points that have been asked, and all of them."""

STAGES = ("encode", "decode", "filters", "box NMS", "crop NMS", "small regions")


class PointPredictor(Protocol):
    """What is asked for masks; `samonnx.runtime.image_predictor.ImagePredictor` is one."""

    def encode_image(self, picture: Picture) -> EncodedPicture:
        """Look at a picture uint8 [H, W, 3]."""

    def predict_points(self, picture: EncodedPicture, points: Points) -> PredictedMasks:
        """Three masks for each of the points [P, 2], in pixels of the picture."""


@dataclass(frozen=True)
class Stage:
    """A step of the way, one of STAGES: the masks that are left after it, and the seconds that it took in all."""

    name: str
    left: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Generated:
    """The masks, and how they came about."""

    masks: FoundMasks
    passed: Passed
    """The masks that each of the filters let pass, all crops together."""
    stages: tuple[Stage, ...]


class AutomaticMasks:
    """Everything in a picture, by one predictor and one set of parameters."""

    def __init__(self, predictor: PointPredictor, parameters: MaskParameters | None = None) -> None:
        self._predictor = predictor
        self.parameters = MaskParameters() if parameters is None else parameters

    def generate(self, picture: Picture, progress: Progress = lambda done, total: None) -> Generated:
        """The masks of a picture uint8 [H, W, 3] RGB; those of a crop in the order of their predicted IoU.

        With crop layers, in the order of their crops' areas, small ones first. Raises FrameError, ParameterError for
        more crops than the picture has pixels for, FitError, SessionError.
        """
        check_frame(picture)
        height, width = picture.shape[:2]
        if height * width > MOST_PIXELS:
            raise ParameterError(
                f"the picture is {width} x {height} pixels; masks are kept of at most {MOST_PIXELS}. Cut it to pieces"
            )
        crops = crops_of(height, width, self.parameters)
        points = [crop_points(self.parameters, crop.layer, width=crop.width, height=crop.height) for crop in crops]
        run = _Run(self._predictor, self.parameters, picture, progress, total=sum(map(len, points)))
        progress(0, run.total)
        found = FoundMasks.joined([run.of_crop(crop, its) for crop, its in zip(crops, points, strict=True)])
        if len(crops) > 1:
            found = run.without_doubles_of_crops(found)
        if self.parameters.min_mask_region_area > 0:
            found = run.without_small_regions(found)
        return Generated(found, run.passed, run.stages())


class _Run:
    """One picture on its way; holds what is counted and timed."""

    def __init__(
        self,
        predictor: PointPredictor,
        parameters: MaskParameters,
        picture: Picture,
        progress: Progress,
        total: int,
    ) -> None:
        self._predictor, self._parameters, self._picture, self._progress = predictor, parameters, picture, progress
        self.height, self.width = picture.shape[:2]
        self.total, self._done = total, 0
        self.passed = Passed(0, 0, 0, 0)
        self._seconds: dict[str, float] = {}
        self._left: dict[str, int] = {}

    def stages(self) -> tuple[Stage, ...]:
        return tuple(Stage(name, self._left[name], self._seconds[name]) for name in STAGES if name in self._seconds)

    def of_crop(self, crop: Crop, points: Points) -> FoundMasks:
        """The masks for these points, in pixels of the crop, without doubles."""
        parameters = self._parameters
        part = np.ascontiguousarray(self._picture[crop.y0 : crop.y1, crop.x0 : crop.x1])
        with self._timed("encode"):
            encoded = self._predictor.encode_image(part)
        self._left["encode"] = 0
        filters = CropMasks(crop, encoded.fit, parameters, width=self.width, height=self.height)
        batches = [FoundMasks.none(width=self.width, height=self.height)]
        for start in range(0, len(points), parameters.points_per_batch):
            batch = points[start : start + parameters.points_per_batch]
            with self._timed("decode"):
                predicted = self._predictor.predict_points(encoded, batch)
            with self._timed("filters"):
                found, passed = filters.take(predicted, batch)
            batches.append(found)
            self.passed += passed
            self._left |= {"decode": self.passed.candidates, "filters": self.passed.edge}
            self._done += len(batch)
            self._progress(self._done, self.total)
        with self._timed("box NMS"):
            found = FoundMasks.joined(batches)
            found = found.take(distinct_boxes(found.boxes, found.predicted_ious, parameters.box_nms_thresh))
        self._left["box NMS"] = self._left.get("box NMS", 0) + len(found)
        return found

    def without_doubles_of_crops(self, found: FoundMasks) -> FoundMasks:
        """Masks of small crops are preferred: they saw more of the thing."""
        with self._timed("crop NMS"):
            x0, y0, x1, y1 = found.crop_boxes.T
            scores = np.float32(1) / ((x1 - x0) * (y1 - y0)).astype(np.float32)
            found = found.take(distinct_boxes(found.boxes, scores, self._parameters.crop_nms_thresh))
        self._left["crop NMS"] = len(found)
        return found

    def without_small_regions(self, found: FoundMasks) -> FoundMasks:
        """Holes filled and islands dropped; then again without doubles, preferring masks that had no such regions.

        Predicted IoU and stability stay those of the mask before (upstream `automatic_mask_generator.py:324-372`).
        """
        parameters = self._parameters
        with self._timed("small regions"):
            least = parameters.min_mask_region_area
            cleaned = [without_small_regions(edges, self.height, self.width, least) for edges in found.edges]
            boxes = found.boxes.copy()
            for box, (edges, changed) in zip(boxes, cleaned, strict=True):
                if changed or not len(edges):
                    box[:] = box_of(edges, self.height)
            untouched = np.array([not changed for _, changed in cleaned], dtype=np.float32)
            threshold = max(parameters.box_nms_thresh, parameters.crop_nms_thresh)
            kept = distinct_boxes(boxes, untouched, threshold)
            # an empty mask is at 0, 0 for this comparison, and keeps its crop's corner in what is returned
            shown = np.where(untouched[:, None] > 0, found.boxes, boxes)
            found = replace(found, edges=tuple(edges for edges, _ in cleaned), boxes=shown).take(kept)
        self._left["small regions"] = len(found)
        return found

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started
