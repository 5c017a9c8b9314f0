"""How far the compiled graph's frame is from the eager reference's: the figures of `samonnx validate`, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.mask_boxes import mask_boxes
from samonnx.runtime.preprocessing import resize_logits

__all__ = [
    "FrameFigures",
    "MotionFigures",
    "SideFrame",
    "SideMotion",
    "ValidateError",
    "Validation",
    "frame_figures",
    "mask_iou",
    "relative_error",
    "spelled_error",
    "spelled_share",
]

Floats = npt.NDArray[np.float32]


class ValidateError(SamonnxError):
    """The two sides cannot be held against each other: another recipe, other weights, nothing to compare."""


@dataclass(frozen=True, eq=False)
class SideMotion:
    """SAMURAI's filter after a frame: `phase` 0 untouched, 1 start, 2 warm-up, 3 stable; mean f32 [8], covariance f32
    [8, 8]."""

    phase: int
    stable_frames: int
    mean: Floats
    covariance: Floats


@dataclass(frozen=True, eq=False)
class SideFrame:
    """What one side says about one object on one frame."""

    low_res_masks: Floats
    """[4h, 4w], logits."""
    ious: Floats
    """[4]: predicted IoU of the three candidates, and of the mask taken."""
    mask_choice: int
    object_score: float
    motion: SideMotion | None
    """None: a memory policy without a filter."""
    maps: Mapping[str, Floats] = field(default_factory=dict)
    """The image encoder's maps, where they were read off."""


@dataclass(frozen=True)
class MotionFigures:
    """SAMURAI's filter on both sides; pairs are (graph, reference)."""

    phase: tuple[int, int]
    stable_frames: tuple[int, int]
    error: float | None
    """The larger of the two relative errors, of mean and covariance; None: not a number."""

    @property
    def same(self) -> bool:
        return self.phase[0] == self.phase[1] and self.stable_frames[0] == self.stable_frames[1]


@dataclass(frozen=True)
class FrameFigures:
    """One frame. Errors are largest absolute differences, relative ones are divided by the reference's largest
    magnitude; None is an error that is not a number. Pairs are (graph, reference)."""

    frame: int
    graph: str
    """The program that ran: `track`, `track@first`, `track@3`, …"""
    prompted: bool
    logit_error: float | None
    """Of the low-resolution mask logits."""
    relative_error: float | None
    mask_iou: float
    """Of the masks at the size of the video, logits above 0; 1 if both are empty."""
    box_iou: float
    """Of the boxes around them; 1 if both are empty."""
    pixels: tuple[int, int]
    """In the two masks."""
    object_score: float | None
    """The reference's, a logit; None: not a number."""
    object_score_error: float | None
    iou_error: float | None
    """Of the predicted IoUs, the mask taken and the three candidates."""
    mask_choice: tuple[int, int]
    motion: MotionFigures | None
    encoder_error: float | None
    """The largest relative error of the image encoder's maps; None unless they were read off the graph."""

    def problems(self, max_error: float, min_iou: float) -> tuple[str, ...]:
        """What is out of bounds, in words; nothing if the frame passes."""
        found = []
        if self.relative_error is None:
            found.append("logits that are not numbers")
        elif not self.relative_error <= max_error:
            found.append(f"logits off by {spelled_error(self.relative_error)} of their largest (allowed {max_error:g})")
        if not self.mask_iou >= min_iou:
            found.append(f"mask IoU {spelled_share(self.mask_iou)} (expected {min_iou:g})")
        if self.mask_choice[0] != self.mask_choice[1]:
            found.append("mask {} instead of {}".format(*self.mask_choice))
        if self.motion is not None and self.motion.phase[0] != self.motion.phase[1]:
            found.append("phase {} instead of {}".format(*self.motion.phase))
        elif self.motion is not None and not self.motion.same:
            found.append("{} stable frames instead of {}".format(*self.motion.stable_frames))
        return tuple(found)


@dataclass(frozen=True)
class Validation:
    """A whole run."""

    recipe: str
    recipe_digest: str
    weights_source: str
    weights_digest: str
    target: str
    providers: tuple[str, ...]
    clip: str
    """The file's or folder's name, or `synthetic`."""
    width: int
    height: int
    num_frames: int
    """What both sides were told of the clip's length; 0: unknown."""
    from_reference: bool
    """Every step starts from the reference's memory; else each side has its own."""
    maps: str
    """`own`: each side has its own image encoder's maps; `graph`: the reference was given the graph's."""
    max_error: float
    min_iou: float
    frames: tuple[FrameFigures, ...]
    passed: bool


def frame_figures(
    frame: int,
    graph: str,
    found: SideFrame,
    expected: SideFrame,
    *,
    prompted: bool,
    width: int,
    height: int,
    encoder_maps: Mapping[str, Floats] | None = None,
) -> FrameFigures:
    """`found` is the graph's, `expected` the reference's; the video has that size in pixels. `encoder_maps`: the eager
    encoder's, to be held against those in `found`."""
    masks = resize_logits(np.stack((found.low_res_masks, expected.low_res_masks)), width=width, height=height) > 0
    encoder = None
    if encoder_maps:
        encoder = _largest([relative_error(found.maps[name], value) for name, value in encoder_maps.items()])
    return FrameFigures(
        frame=frame,
        graph=graph,
        prompted=prompted,
        logit_error=_error(found.low_res_masks, expected.low_res_masks),
        relative_error=relative_error(found.low_res_masks, expected.low_res_masks),
        mask_iou=mask_iou(masks[0], masks[1]),
        box_iou=_box_iou(*mask_boxes(masks)),
        pixels=(int(masks[0].sum()), int(masks[1].sum())),
        object_score=expected.object_score if np.isfinite(expected.object_score) else None,
        object_score_error=_error(np.array(found.object_score), np.array(expected.object_score)),
        iou_error=_error(found.ious, expected.ious),
        mask_choice=(found.mask_choice, expected.mask_choice),
        motion=_motion(found.motion, expected.motion),
        encoder_error=encoder,
    )


def relative_error(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float | None:
    """Largest difference over the reference's largest magnitude (over 1 if that is 0); None if it is not a number."""
    error = _error(found, expected)
    scale = float(np.abs(expected.astype(np.float64)).max(initial=0.0))
    return None if error is None else error / (scale or 1.0)


def mask_iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Of masks bool [H, W]; 1 if both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _error(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float | None:
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
    return difference if np.isfinite(difference) else None


def _largest(errors: list[float | None]) -> float | None:
    """None counts as larger than any number."""
    numbers = [error for error in errors if error is not None]
    return max(numbers) if len(numbers) == len(errors) else None


def _box_iou(one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> float:
    """Of boxes x, y, width, height in whole pixels; 1 if both are empty."""
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    common = max(int(right - left), 0) * max(int(bottom - top), 0)
    union = int(one[2]) * int(one[3]) + int(other[2]) * int(other[3]) - common
    return common / union if union else 1.0


def _motion(found: SideMotion | None, expected: SideMotion | None) -> MotionFigures | None:
    if found is None or expected is None:
        return None
    errors = [relative_error(found.mean, expected.mean), relative_error(found.covariance, expected.covariance)]
    return MotionFigures((found.phase, expected.phase), (found.stable_frames, expected.stable_frames), _largest(errors))


def spelled_share(share: float) -> str:
    """Four digits, never rounded up: 0.99996 is not 1."""
    return f"{np.floor(share * 1e4) / 1e4:g}"


def spelled_error(value: float | None) -> str:
    """Two digits in at most six places, up to 1000: 1.2e-6, 0.023, 3.4, 120; 0; NaN for None."""
    if value is None:
        return "NaN"
    if value == 0:
        return "0"
    if 1e-2 <= value < 1e3:
        return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")
