"""A picture of a validation: errors over the frames on a logarithmic axis, overlap of the masks below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from samonnx.runtime.extras import require_extra
from samonnx.validation import FrameFigures, Validation
from samonnx.validation_clip import SYNTHETIC

__all__ = ["check_plotting", "plot_png"]

EXTRA = "benchmark"
LEAST = 1e-9
"""A difference of 0 is drawn here: a logarithmic axis has no 0."""

BLUE, ORANGE, GREEN, PURPLE, GREY, RED = "#2f6db3", "#d9822b", "#3a9a5b", "#8e4ec6", "#8c8c8c", "#b8423c"


def check_plotting() -> None:
    """Raise MissingExtraError where matplotlib is not installed."""
    require_extra("matplotlib.figure", EXTRA)


def plot_png(validation: Validation) -> bytes:
    """The picture as a PNG file. Raises MissingExtraError."""
    figure: Any = require_extra("matplotlib.figure", EXTRA).Figure(figsize=(9.0, 5.6), dpi=150, layout="constrained")
    clip = "synthetic clip" if validation.clip == SYNTHETIC else validation.clip
    memory = "reference's memory" if validation.from_reference else "own memory"
    figure.suptitle(f"{validation.recipe} ({validation.target}) against eager PyTorch: {clip}, {memory}", fontsize=11)
    errors, overlap = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_errors(errors, validation)
    _draw_overlap(overlap, validation)
    for axis in (errors, overlap):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e3e3e3", linewidth=0.7)
        axis.set_axisbelow(True)
        _mark_frames(axis, validation)
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    overlap.set_xlabel("frame (dotted: prompted; red: out of bounds)", fontsize=9)
    overlap.xaxis.get_major_locator().set_params(integer=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", facecolor="white")
    return content.getvalue()


def _draw_errors(axis: Any, validation: Validation) -> None:
    frames = validation.frames
    lines: list[tuple[str, str, list[float | None], bool]] = [
        ("object score", GREEN, [frame.object_score_error for frame in frames], False),
        ("predicted IoU", ORANGE, [frame.iou_error for frame in frames], False),
    ]
    if any(frame.motion is not None for frame in frames):
        filters = [None if frame.motion is None else frame.motion.error for frame in frames]
        lines.append(("Kalman filter, share", PURPLE, filters, False))
    if validation.maps == "graph":
        lines.append(("image encoder, share", GREY, [frame.encoder_error for frame in frames], False))
    lines.append(("mask logits, share", BLUE, [frame.relative_error for frame in frames], True))
    for label, colour, values, is_judged in lines:
        drawn = [float("nan") if value is None else max(value, LEAST) for value in values]
        style = {"linewidth": 2.0, "markersize": 4.5} if is_judged else {"linewidth": 1.0, "markersize": 2.5}
        axis.plot(_places(frames), drawn, "o-", color=colour, label=label, **style)
    axis.axhline(max(validation.max_error, LEAST), color=RED, linestyle="--", linewidth=1.0, label="allowed")
    axis.set_yscale("log")
    axis.set_ylim(bottom=LEAST / 2)
    axis.set_title(f"largest difference (0 is drawn at {LEAST:.0e})", loc="left", fontsize=9)


def _draw_overlap(axis: Any, validation: Validation) -> None:
    frames = validation.frames
    boxes, masks = [frame.box_iou for frame in frames], [frame.mask_iou for frame in frames]
    axis.plot(_places(frames), boxes, "s-", color=ORANGE, label="boxes", linewidth=1.0, markersize=2.5)
    axis.plot(_places(frames), masks, "o-", color=BLUE, label="masks", linewidth=2.0, markersize=4.5)
    axis.axhline(validation.min_iou, color=RED, linestyle="--", linewidth=1.0, label="expected")
    lowest = min((*boxes, *masks, validation.min_iou))
    margin = 0.08 * max(1 - lowest, 1e-3)
    axis.set_ylim(lowest - margin, 1 + margin)
    axis.set_title("overlap (IoU)", loc="left", fontsize=9)


def _mark_frames(axis: Any, validation: Validation) -> None:
    for frame in validation.frames:
        if frame.problems(validation.max_error, validation.min_iou):
            axis.axvspan(frame.frame - 0.5, frame.frame + 0.5, color=RED, alpha=0.10, linewidth=0)
        if frame.prompted:
            axis.axvline(frame.frame, color=GREY, linestyle=":", linewidth=1.2)


def _places(frames: Sequence[FrameFigures]) -> list[int]:
    return [frame.frame for frame in frames]
