"""Videos of other proportions than the frame that XMem's graphs are pinned to: they are stretched to it."""

from __future__ import annotations

from samonnx.runtime.manifest import XMemInfo

__all__ = ["proportions_note"]

TOLERATED = 1.15
"""A circle as an ellipse of 15 % is within what networks see in training; a portrait video in a wide frame is not."""


def proportions_note(info: XMemInfo, *, width: int, height: int) -> str | None:
    """What to do about a video of `width` x `height` pixels, if its proportions are far from the frame's."""
    stretch = (width / height) / (info.width / info.height)
    if max(stretch, 1 / stretch) <= TOLERATED:
        return None
    short = min(info.height, info.width)
    scale = short / min(width, height)
    fitting = round(height * scale), round(width * scale)
    return (
        f"the video is {width} x {height} pixels and is stretched to the network's frame of {info.width} x "
        f"{info.height}. For better masks compile with --set programs.track.height={fitting[0]} --set "
        f"programs.track.width={fitting[1]}"
    )
