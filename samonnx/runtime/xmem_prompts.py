"""One object's prompts on one frame as the programs of XMem take them: a mask for `track`, points for `start`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.prompt_rows import check_prompts
from samonnx.runtime.prompts import POSITIVE, PromptError, Prompts, point_places

__all__ = ["Clicks", "GivenObject", "given_object", "nearest_mask"]


@dataclass(frozen=True, eq=False)
class Clicks:
    """Points and box corners, from which SAM finds the mask."""

    coordinates: npt.NDArray[np.float32]
    """f32 [K, 2] in SAM's frame."""
    labels: npt.NDArray[np.int32]
    """i32 [K]; -1: an empty place, which counts for nothing."""


@dataclass(frozen=True, eq=False)
class GivenObject:
    """One of both."""

    mask: npt.NDArray[np.float32] | None = None
    """f32 [H, W] of 0 and 1, in XMem's frame."""
    clicks: Clicks | None = None


def given_object(manifest: Manifest, number: int, prompts: Prompts, *, width: int, height: int) -> GivenObject:
    """What a user gave for an object on a frame of that size. Raises PromptError, with the object's number."""
    if prompts.names_a_concept:
        words = "words" if prompts.text is not None else "exemplars"
        raise PromptError(
            f"object {number}: {words} need a detector, and the artifact of recipe {manifest.recipe!r} has none; "
            f"give {_what_it_takes(manifest)}"
        )
    check_prompts(number, prompts, width=width, height=height)
    try:
        if prompts.mask is not None:
            return GivenObject(mask=_mask(manifest, prompts.mask.mask))
        return _points(manifest, prompts, width, height)
    except PromptError as error:
        raise PromptError(f"object {number}: {error}") from error


def nearest_mask(mask: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    """bool [H, W] → bool [height, width], each pixel that of the source above and left of it (`interpolate` in mode
    nearest, which the original's `VideoReader.resize_mask` calls)."""
    rows, columns = (_nearest(old, new) for old, new in zip(mask.shape, (height, width), strict=True))
    return mask[rows][:, columns]


def _nearest(old: int, new: int) -> npt.NDArray[np.intp]:
    # float32, as PyTorch computes them
    places = np.floor(np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new)))
    nearest: npt.NDArray[np.intp] = np.minimum(places.astype(np.intp), old - 1)
    return nearest


def _mask(manifest: Manifest, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    height, width = manifest.following().height, manifest.following().width
    resized = nearest_mask(mask, height, width)
    if not resized.any():
        raise PromptError(
            f"the mask of {int(mask.sum())} pixels vanishes in the network's frame of {width} x {height}; give a "
            f"larger one, or compile with a larger --set programs.track.height and width"
        )
    return resized.astype(np.float32)


def _points(manifest: Manifest, prompts: Prompts, width: int, height: int) -> GivenObject:
    info, places = manifest.prompt_preprocessing, manifest.following().points
    if info is None or not places:
        what = "a box" if prompts.boxes else "a click"
        raise PromptError(
            f"{what} needs SAM to find the object, and the artifact of recipe {manifest.recipe!r} holds XMem alone: "
            f"give the object's mask (--mask FILE, Prompts(mask=…)), or compile an artifact with both, such as "
            f"recipes/sam_xmem.yaml"
        )
    if not prompts.boxes and prompts.points is not None and POSITIVE not in prompts.points.labels:
        raise PromptError("all its points have label 0 (not on it); give one with label 1 on the object, or a box")
    fit = FrameFit.of(info, height, width)
    coordinates, labels = point_places(
        prompts, width=width, height=height, size=info.size, places=places, fit=fit, program="start"
    )
    return GivenObject(clicks=Clicks(coordinates, labels))


def _what_it_takes(manifest: Manifest) -> str:
    return "a click, a box or a mask" if manifest.following().points else "a mask (--mask FILE)"
