"""The original's automatic masks, one pixel and one mask after the other: what the runtime's are compared with.

Written from the notes on the original, not from the runtime: slow, in float64 where the original is in float32 (but for
the comparisons of scores, which hang on it). `closest` says how near a logit came to one of the thresholds: where it is
nearer than float32 rounds, the two may cut a pixel differently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.generator import PointPredictor
from samonnx.runtime.automatic_masks.parameters import MaskParameters

Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]


@dataclass
class PlainMask:
    mask: Mask
    box: Box
    iou: np.float32
    stability: float
    point: tuple[float, float]
    crop: Box


@dataclass
class PlainRun:
    masks: list[PlainMask] = field(default_factory=list)
    closest: float = math.inf


def plain_automatic_masks(
    predictor: PointPredictor, picture: npt.NDArray[np.uint8], chosen: MaskParameters
) -> PlainRun:
    height, width = picture.shape[:2]
    run = PlainRun()
    crops = plain_crops(height, width, chosen.crop_n_layers, chosen.crop_overlap_ratio)
    for crop, layer in crops:
        found = of_crop(predictor, picture, crop, layer, chosen, run)
        kept = plain_nms([one.box for one in found], [one.iou for one in found], chosen.box_nms_thresh)
        for index in kept:
            one = found[index]
            one.box = moved(one.box, crop)
            one.point = (one.point[0] + crop[0], one.point[1] + crop[1])
            run.masks.append(one)
    if len(crops) > 1:
        scores = [np.float32(1) / np.float32((m.crop[2] - m.crop[0]) * (m.crop[3] - m.crop[1])) for m in run.masks]
        kept = plain_nms([one.box for one in run.masks], scores, chosen.crop_nms_thresh)
        run.masks = [run.masks[index] for index in kept]
    if chosen.min_mask_region_area > 0:
        tidy(run, chosen)
    return run


def of_crop(
    predictor: PointPredictor,
    picture: npt.NDArray[np.uint8],
    crop: Box,
    layer: int,
    chosen: MaskParameters,
    run: PlainRun,
) -> list[PlainMask]:
    """Boxes and points in pixels of the crop, masks in the picture."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = crop
    encoded = predictor.encode_image(picture[y0:y1, x0:x1])
    found = []
    for point in plain_points(chosen, layer, x1 - x0, y1 - y0):
        predicted = predictor.predict_points(encoded, np.array([point]))
        for low, iou in zip(predicted.low_res_logits[0], predicted.ious[0], strict=True):
            if chosen.pred_iou_thresh > 0 and not iou > np.float32(chosen.pred_iou_thresh):
                continue
            logits = plain_original(low, encoded.fit.frame, encoded.fit.placed, (y1 - y0, x1 - x0), encoded.fit.padded)
            offset = chosen.stability_score_offset
            run.closest = min(run.closest, *(float(np.abs(logits - t).min()) for t in (-offset, 0.0, offset)))
            core, reach = int((logits > offset).sum()), int((logits > -offset).sum())
            stability = float(np.float32(core) / np.float32(reach)) if reach else math.nan
            least = chosen.stability_score_thresh
            if least > 0 and not np.float32(stability) >= np.float32(least):
                continue
            cut = logits > 0
            box = plain_box(cut)
            if cut_off(moved(box, crop), crop, (0, 0, width, height)):
                continue
            whole = np.zeros((height, width), dtype=bool)
            whole[y0:y1, x0:x1] = cut
            found.append(PlainMask(whole, box, iou, stability, point, crop))
    return found


def plain_points(chosen: MaskParameters, layer: int, width: int, height: int) -> list[tuple[float, float]]:
    assert chosen.points_per_side is not None
    n = int(chosen.points_per_side / chosen.crop_n_points_downscale_factor**layer)
    line = np.linspace(1 / (2 * n), 1 - 1 / (2 * n), n)
    return [(float(x * width), float(y * height)) for y in line for x in line]


def plain_crops(height: int, width: int, layers: int, ratio: float) -> list[tuple[Box, int]]:
    crops = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        n = 2**layer
        overlap = int(ratio * min(height, width) * (2 / n))
        across, down = (math.ceil((overlap * (n - 1) + side) / n) for side in (width, height))
        for i in range(n):
            for j in range(n):
                x, y = i * (across - overlap), j * (down - overlap)
                crops.append(((x, y, min(x + across, width), min(y + down, height)), layer))
    return crops


def plain_original(
    low: npt.NDArray[np.float32],
    frame: tuple[int, int],
    placed: tuple[int, int],
    original: tuple[int, int],
    padded: bool,
) -> npt.NDArray[np.float64]:
    logits = low.astype(np.float64)
    if padded:
        logits = plain_bilinear(logits, *frame)[: placed[0], : placed[1]]
    return plain_bilinear(logits, *original)


def plain_bilinear(image: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Half-pixel centres, which the original has in float32, rounded once."""
    rows = np.stack([between(image, *place(i, image.shape[0], height)) for i in range(height)])
    return np.stack([between(rows.T, *place(j, image.shape[1], width)) for j in range(width)]).T


def place(index: int, old: int, new: int) -> tuple[int, float]:
    centre = max(np.float32(float(np.float32(old) / np.float32(new)) * (index + 0.5) - 0.5), np.float32(0))
    return int(centre), float(centre - np.float32(int(centre)))


def between(lines: npt.NDArray[np.float64], first: int, share: float) -> npt.NDArray[np.float64]:
    second = min(first + 1, len(lines) - 1)
    mixed: npt.NDArray[np.float64] = (1 - share) * lines[first] + share * lines[second]
    return mixed


def plain_box(mask: Mask) -> Box:
    pixels = [(int(x), int(y)) for y, x in np.argwhere(mask)]
    if not pixels:
        return 0, 0, 0, 0
    xs, ys = zip(*pixels, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def moved(box: Box, crop: Box) -> Box:
    return box[0] + crop[0], box[1] + crop[1], box[2] + crop[0], box[3] + crop[1]


def cut_off(box: Box, crop: Box, picture: Box) -> bool:
    return any(
        abs(side - of_crop) <= 20 and not abs(side - of_picture) <= 20
        for side, of_crop, of_picture in zip(box, crop, picture, strict=True)
    )


def plain_nms(boxes: list[Box], scores: list[np.float32] | list[float], threshold: float) -> list[int]:
    """Greedy, best first, of equals the earlier; the IoU in float32, compared in float64 with the threshold."""
    order = sorted(range(len(boxes)), key=lambda index: -float(scores[index]))
    kept: list[int] = []
    for index in order:
        if not any(plain_iou(boxes[other], boxes[index]) > threshold for other in kept):
            kept.append(index)
    return kept


def plain_iou(one: Box, other: Box) -> float:
    shared = np.float32(max(0, min(one[2], other[2]) - max(one[0], other[0])))
    shared *= np.float32(max(0, min(one[3], other[3]) - max(one[1], other[1])))
    areas = [np.float32(box[2] - box[0]) * np.float32(box[3] - box[1]) for box in (one, other)]
    whole = areas[0] + areas[1] - shared
    return float(shared / whole) if whole else math.nan


def tidy(run: PlainRun, chosen: MaskParameters) -> None:
    boxes, scores = [], []
    cleaned = []
    for one in run.masks:
        mask, holes = plain_without_small(one.mask, chosen.min_mask_region_area, holes=True)
        mask, islands = plain_without_small(mask, chosen.min_mask_region_area, holes=False)
        cleaned.append(mask)
        boxes.append(plain_box(mask))
        scores.append(0.0 if holes or islands else 1.0)
    kept = plain_nms(boxes, scores, max(chosen.box_nms_thresh, chosen.crop_nms_thresh))
    for index in kept:
        if scores[index] == 0.0:
            run.masks[index].mask, run.masks[index].box = cleaned[index], boxes[index]
    run.masks = [run.masks[index] for index in kept]


def plain_without_small(mask: Mask, least: int, *, holes: bool) -> tuple[Mask, bool]:
    regions = plain_regions(~mask if holes else mask)
    small = [region for region in regions if len(region) < least]
    if not small:
        return mask, False
    result = mask.copy()
    # of equals the first in OpenCV's order, which goes through blocks of 2 x 2 pixels
    largest = min(regions, key=lambda region: (-len(region), min((r // 2, c // 2) for r, c in region)))
    for region in small:
        if not holes and len(small) == len(regions) and region is largest:
            continue
        for pixel in region:
            result[pixel] = holes
    return result, True


def plain_regions(mask: Mask) -> list[list[tuple[int, int]]]:
    """8-connected."""
    seen = np.zeros_like(mask)
    regions = []
    for start in map(tuple, np.argwhere(mask)):
        if seen[start]:
            continue
        seen[start] = True
        region = [start]
        for row, column in region:
            for r in range(max(row - 1, 0), min(row + 2, mask.shape[0])):
                for c in range(max(column - 1, 0), min(column + 2, mask.shape[1])):
                    if mask[r, c] and not seen[r, c]:
                        seen[r, c] = True
                        region.append((r, c))
        regions.append(region)
    return regions


def plain_counts(mask: Mask) -> list[int]:
    """COCO's counts, columns first, unset pixels first."""
    counts, value = [0], False
    for pixel in mask.T.reshape(-1):
        if bool(pixel) != value:
            counts.append(0)
            value = bool(pixel)
        counts[-1] += 1
    return counts
