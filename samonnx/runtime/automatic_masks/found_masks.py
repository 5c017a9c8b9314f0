"""The masks that were found, and what is known of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.mask_runs import Edges, area, coco_code, mask_of

__all__ = ["FoundMasks"]

Table = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FoundMasks:
    """n masks in a picture of `width` x `height` pixels."""

    width: int
    height: int
    edges: tuple[Edges, ...]
    """n run-length codes, see samonnx.runtime.automatic_masks.mask_runs."""
    boxes: Table
    """[n, 4]: the first and the last column and row that has a pixel of the mask, x0, y0, x1, y1, both included. Of a
    mask without pixels, the corner of its crop."""
    predicted_ious: npt.NDArray[np.float32]
    """[n]"""
    stability_scores: npt.NDArray[np.float32]
    """[n]; NaN for a mask that has no pixel above -offset."""
    points: npt.NDArray[np.float64]
    """[n, 2]: x, y of the prompt, in pixels."""
    crop_boxes: Table
    """[n, 4]: x0, y0, x1, y1 of the crop that the mask was found in, the last two not included."""

    def __len__(self) -> int:
        return len(self.edges)

    @classmethod
    def none(cls, *, width: int, height: int) -> FoundMasks:
        """No masks of a picture of that size."""
        boxes, scores = np.zeros((0, 4), dtype=np.int64), np.zeros(0, dtype=np.float32)
        return cls(width, height, (), boxes, scores, scores, np.zeros((0, 2)), boxes)

    @classmethod
    def joined(cls, parts: Sequence[FoundMasks]) -> FoundMasks:
        """Those of all parts, one after the other; at least one part, all of the same picture."""
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("boxes", "predicted_ious", "stability_scores", "points", "crop_boxes")
        }
        edges = tuple(code for part in parts for code in part.edges)
        return cls(parts[0].width, parts[0].height, edges, **arrays)

    def take(self, indices: npt.NDArray[np.intp]) -> FoundMasks:
        """These masks, in this order."""
        return dataclasses.replace(
            self,
            edges=tuple(self.edges[index] for index in indices),
            boxes=self.boxes[indices],
            predicted_ious=self.predicted_ious[indices],
            stability_scores=self.stability_scores[indices],
            points=self.points[indices],
            crop_boxes=self.crop_boxes[indices],
        )

    def areas(self) -> Table:
        """Pixels of each mask, [n]."""
        return np.array([area(edges) for edges in self.edges], dtype=np.int64)

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """One mask, bool [height, width]."""
        return mask_of(self.edges[index], self.height, self.width)

    def records(self) -> list[dict[str, object]]:
        """A dictionary for each mask, as the original gives them with `output_mode="coco_rle"`.

        `segmentation` (COCO's compressed code), `area`, `bbox` (x, y, width, height, the width being x1 - x0: one less
        than its pixels), `predicted_iou`, `point_coords`, `stability_score` (None where it is NaN), `crop_box` (x, y,
        width, height). Raises MissingExtraError.
        """
        codes = coco_code(self.edges, self.height, self.width)
        return [
            {
                "segmentation": codes[index],
                "area": area(self.edges[index]),
                "bbox": _as_width_and_height(self.boxes[index]),
                "predicted_iou": float(self.predicted_ious[index]),
                "point_coords": [self.points[index].tolist()],
                "stability_score": None if np.isnan(score := self.stability_scores[index]) else float(score),
                "crop_box": _as_width_and_height(self.crop_boxes[index]),
            }
            for index in range(len(self))
        ]


def _as_width_and_height(box: Table) -> list[int]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
