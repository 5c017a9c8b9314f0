"""The table of `samonnx validate`, and what it says in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from samonnx.runtime.extras import require_extra
from samonnx.validation import FrameFigures, Validation, spelled_error, spelled_share
from samonnx.validation_clip import SYNTHETIC

__all__ = ["print_table", "shown_frames", "verdict", "worst_frame"]

ROWS = 40
"""Frames in the table; of a longer clip, those that matter."""

NAMED = 3
"""Frames that the message of a failure spells out."""


def verdict(validation: Validation) -> str:
    """One line: all frames pass, and by how much; or the first frames that do not, and why."""
    frames, bounds = validation.frames, (validation.max_error, validation.min_iou)
    failed = [(frame.frame, frame.problems(*bounds)) for frame in frames if frame.problems(*bounds)]
    if failed:
        named = "; ".join(f"frame {index}: {', '.join(problems)}" for index, problems in failed[:NAMED])
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        return f"{len(failed)} of {_frames(len(frames))} not as the reference has them: {named}{more}"
    worst, least = worst_frame(frames), min(frames, key=lambda frame: frame.mask_iou)
    off = spelled_error(worst.relative_error)
    return (
        f"{_frames(len(frames))} as the reference has them: logits off by {off} of their largest at most "
        f"(frame {worst.frame}, allowed {validation.max_error:g}), mask IoU at least {spelled_share(least.mask_iou)} "
        f"(expected {validation.min_iou:g})"
    )


def worst_frame(frames: Sequence[FrameFigures]) -> FrameFigures:
    """That of the largest relative error, NaN before all."""
    return max(frames, key=lambda frame: float("inf") if frame.relative_error is None else frame.relative_error)


def shown_frames(validation: Validation, rows: int = ROWS) -> tuple[FrameFigures, ...]:
    """All frames, or at most `rows`: those that fail first, then the worst, in the order of the clip."""
    bounds = (validation.max_error, validation.min_iou)

    def weight(frame: FrameFigures) -> tuple[bool, float, float]:
        relative = float("inf") if frame.relative_error is None else frame.relative_error
        return bool(frame.problems(*bounds)), relative, -frame.mask_iou

    return tuple(sorted(sorted(validation.frames, key=weight)[-rows:], key=lambda frame: frame.frame))


def print_table(validation: Validation) -> None:
    """Write to standard output; 80 columns are enough. Raises MissingExtraError."""
    console: Any = require_extra("rich.console", "video").Console()
    clip = "the synthetic clip" if validation.clip == SYNTHETIC else validation.clip
    memory = "each step from the reference's memory" if validation.from_reference else "each side by its own memory"
    graph = f"{validation.target} on {', '.join(validation.providers)}"
    for line in (
        f"{validation.recipe}, weights {validation.weights_source}; {graph}, against eager PyTorch",
        f"{clip}, {validation.width} x {validation.height}, {_frames(len(validation.frames))}, {memory}",
    ):
        _say(console, line)
    console.print()
    console.print(_table(validation))
    console.print()
    for line in _notes(validation):
        _say(console, line)
    if validation.passed:
        console.print(verdict(validation), style="green", highlight=False, markup=False, soft_wrap=True)


def _notes(validation: Validation) -> list[str]:
    """What has to be known to read the table."""
    frames, shown = validation.frames, shown_frames(validation)
    lines = ["*: prompted; logits: largest difference, and its share of the reference's largest"]
    if any(_differ(frame) for frame in shown):
        lines.append("a≠b: the graph's and the reference's")
    if validation.maps == "graph":
        lines.append("the reference was given the graph's image maps; maps: their distance from its own")
    if len(shown) < len(frames):
        lines.append(f"shown: the worst {len(shown)} of {_frames(len(frames))}; --json FILE has all of them")
    empty = sum(not any(frame.pixels) for frame in frames)
    if empty:
        lines.append(f"empty: no object on either side, on {empty} of {_frames(len(frames))}; logits say little there")
    return lines


def _differ(frame: FrameFigures) -> bool:
    return frame.mask_choice[0] != frame.mask_choice[1] or (frame.motion is not None and not frame.motion.same)


def _table(validation: Validation) -> Any:
    text: Any = require_extra("rich.text", "video").Text
    table: Any = require_extra("rich.table", "video").Table(
        box=require_extra("rich.box", "video").SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0
    )
    columns = _columns(validation)
    for heading, _, _ in columns:
        table.add_column(heading, justify="left" if heading == "graph" else "right", no_wrap=True)
    for frame in shown_frames(validation):
        table.add_row(*(text(cell(frame), "bold red" if wrong(frame) else "") for _, cell, wrong in columns))
    return table


Column = tuple[str, Callable[[FrameFigures], str], Callable[[FrameFigures], bool]]
"""Heading, cell, and whether the cell is why the frame fails."""


def _columns(validation: Validation) -> list[Column]:
    def fine(frame: FrameFigures) -> bool:
        return False

    def is_far(frame: FrameFigures) -> bool:
        return frame.relative_error is None or not frame.relative_error <= validation.max_error

    columns: list[Column] = [
        ("frame", lambda frame: f"{frame.frame}{'*' if frame.prompted else ' '}", fine),
        ("graph", lambda frame: frame.graph.removeprefix("track") or "track", fine),
        ("logits", lambda frame: spelled_error(frame.logit_error), is_far),
        ("share", lambda frame: spelled_error(frame.relative_error), is_far),
        (
            "mask\nIoU",
            lambda frame: spelled_share(frame.mask_iou) if any(frame.pixels) else "empty",
            lambda frame: not frame.mask_iou >= validation.min_iou,
        ),
        ("box\nIoU", lambda frame: spelled_share(frame.box_iou) if any(frame.pixels) else "", fine),
        ("score", lambda frame: spelled_error(frame.object_score_error), fine),
        ("IoU\npred.", lambda frame: spelled_error(frame.iou_error), fine),
        ("mask\nno.", lambda frame: _pair(frame.mask_choice), lambda frame: len(set(frame.mask_choice)) > 1),
    ]
    if any(frame.motion is not None for frame in validation.frames):
        columns += [
            ("phase", _phase, lambda frame: frame.motion is not None and not frame.motion.same),
            ("filter", lambda frame: "" if frame.motion is None else spelled_error(frame.motion.error), fine),
        ]
    if validation.maps == "graph":
        columns.append(("maps", lambda frame: spelled_error(frame.encoder_error), fine))
    return columns


def _phase(frame: FrameFigures) -> str:
    """The phase, with the stable frames where these are what differs."""
    if frame.motion is None:
        return ""
    if frame.motion.phase[0] == frame.motion.phase[1] and not frame.motion.same:
        return f"{frame.motion.phase[0]}:{_pair(frame.motion.stable_frames)}"
    return _pair(frame.motion.phase)


def _pair(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}≠{values[1]}"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _say(console: Any, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
