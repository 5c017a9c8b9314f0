"""Frames into the network, masks out of it: resizing in numpy, by the formulas of the original's loaders.

Methods, all separable, all with half-pixel centres: output i looks at (i + 0.5) * scale - 0.5, scale = in / out.

- `bicubic`: cubic convolution with a = -0.75 over 4 taps, border pixels repeated, no antialias, in float32, unclipped:
  `torch.nn.functional.interpolate(mode="bicubic")`. SAM 3's TorchCodec loader reads video files so. (Its OpenCV
  loader uses the same kernel rounded to uint8, but forgets to divide by 255 before it normalises; not imitated.)
- `bilinear-antialias`: a triangle as wide as the scale when shrinking, renormalised at the border. For uint8 images
  with Pillow's arithmetic (weights of 22 bits, horizontally first, each direction rounded to uint8): SAM 3's loader of
  image folders. (Pillow from 13 on takes tall images vertically first: at most 1/255 apart.)
  For masks in float32: `interpolate(mode="bilinear", antialias=True)`.
- `bicubic-antialias`: the same for the cubic kernel with a = -0.5, which is what Pillow's `resize` does unasked: SAM
  2's loader of image folders (sam2/utils/misc.py, `_load_img_as_tensor`).
- `bilinear`, two taps, no antialias: masks back to the size of the video; XMem's loader of frames, in float32.

SAM 2 has decord read and shrink video files: FFmpeg's filter `scale=S:S`, straight from the planes of YUV to RGB in
uint8, without flags. In the FFmpeg that decord's packages hold (4.1, 4.2) the filter is bilinear by default, as wide as
the scale when shrinking (later: bicubic, as wide). Of the methods here `bilinear-antialias` is the nearest: up to 4/255
from it in grey pictures; more at edges of colour, as U and V are enlarged apart from Y there.

SAM 3 keeps frames in float16; here they stay float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.manifest import PreprocessingInfo

__all__ = ["FrameError", "network_image", "resize_logits", "resize_mask"]

Floats = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]
Kernel = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

PILLOW_BITS = 22
FLOAT_KERNELS: Mapping[str, str] = {"bicubic": "cubic", "bilinear": "linear"}
"""Methods without antialiasing, in float32, and their kernels here."""


class FrameError(SamonnxError):
    """A frame that is not a uint8 RGB image."""


def network_image(frame: Frame, info: PreprocessingInfo, *, kind: str = "video") -> Floats:
    """uint8 [H, W, 3] RGB to f32 [1, 3, *info.frame_size]: resized, divided by 255, normalised with mean and std.

    Where the picture does not fill the frame (`fit: pad`), what is right and below of it is 0: the mean colour, not
    black. `kind` is where the frame comes from, "video" or "images"; the original resizes the two differently.
    Raises FrameError and FitError.
    """
    check_frame(frame)
    fit = FrameFit.of(info, *frame.shape[:2])
    resized = _resize(frame, fit.placed, info.video_resize if kind == "video" else info.image_resize)
    mean, std = np.array(info.mean, dtype=np.float32), np.array(info.std, dtype=np.float32)
    image = np.zeros((1, 3, *fit.frame), dtype=np.float32)
    image[0, :, : fit.placed[0], : fit.placed[1]] = ((resized / np.float32(255) - mean) / std).transpose(2, 0, 1)
    return image


def check_frame(frame: object) -> None:
    """FrameError unless `frame` is uint8 [H, W, 3] with at least one pixel."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise FrameError(f"frame: expected uint8 [height, width, 3] in RGB order, got {found}")
    if 0 in frame.shape:
        raise FrameError(f"frame: expected at least one pixel, got shape {list(frame.shape)}")


def resize_logits(logits: Floats, *, width: int, height: int) -> Floats:
    """Low-resolution logits f32 [O, h, w] to the size of the video, f32 [O, H, W]: bilinear, no antialias."""
    resized = [_resample(mask[..., None], height, width, "linear")[..., 0] for mask in logits]
    return np.stack(resized) if resized else np.zeros((0, height, width), dtype=np.float32)


def resize_mask(mask: Floats, size: int) -> Floats:
    """A mask f32 [H, W] in 0…1 to f32 [size, size], bilinear with antialias."""
    if mask.shape == (size, size):
        return mask
    return _resample(mask[..., None], size, size, "triangle")[..., 0]


def _resize(frame: Frame, size: tuple[int, int], method: str) -> Floats:
    """uint8 [H, W, 3] to f32 [*size, 3], still 0…255."""
    if frame.shape[:2] == size:
        return frame.astype(np.float32)
    if method in FLOAT_KERNELS:
        return _resample(frame.astype(np.float32), *size, FLOAT_KERNELS[method])
    return _resize_as_pillow(frame, *size, "triangle" if method == "bilinear-antialias" else "keys").astype(np.float32)


def _resample(image: Floats, height: int, width: int, kernel: str) -> Floats:
    """f32 [H, W, C] to f32 [height, width, C]; rows first, because whole rows are cheap to gather."""
    rows = _apply(image.reshape(image.shape[0], -1), *_taps(image.shape[0], height, kernel))
    columns = rows.reshape(height, image.shape[1], -1).transpose(1, 0, 2).reshape(image.shape[1], -1)
    resized = _apply(columns, *_taps(image.shape[1], width, kernel))
    return np.ascontiguousarray(resized.reshape(width, height, -1).transpose(1, 0, 2))


def _apply(rows: Floats, places: npt.NDArray[np.intp], weights: npt.NDArray[np.float64]) -> Floats:
    """Weighted sums of rows: out[i] = sum over t of weights[i, t] * rows[places[i, t]]."""
    factors = weights.astype(np.float32)
    total = rows[places[:, 0]] * factors[:, :1]
    for tap in range(1, places.shape[1]):
        total += rows[places[:, tap]] * factors[:, tap : tap + 1]
    return total


@functools.lru_cache(maxsize=64)
def _taps(old: int, new: int, kernel: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Which inputs, with which weights, make each output: [new, taps] of each. Cached arrays: not to be written to."""
    scale = old / new
    if kernel in PILLOW_KERNELS:
        return _pillow_taps(old, new, scale, *PILLOW_KERNELS[kernel])
    # float32, as PyTorch computes them: at 1920 pixels the rounding of a centre shows in the fifth digit of a weight
    centres = np.float32(scale) * (np.arange(new, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    if kernel == "linear":
        centres = np.clip(centres, 0, None)  # the original's border rule: nothing before the first pixel's centre
    first = np.floor(centres).astype(np.intp)
    fraction = (centres - np.floor(centres)).astype(np.float64)
    if kernel == "linear":
        offsets, weights = np.arange(2), np.stack([1 - fraction, fraction], axis=1)
    else:
        offsets = np.arange(-1, 3)
        weights = _cubic(np.abs(fraction[:, None] - offsets[None, :]), -0.75)
    return np.clip(first[:, None] + offsets[None, :], 0, old - 1), weights


def _cubic(distance: npt.NDArray[np.float64], a: float) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel: `a` is its slope at distance 1."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _triangle(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - distance)


PILLOW_KERNELS: Mapping[str, tuple[float, Kernel]] = {
    "triangle": (1.0, _triangle),
    "keys": (2.0, functools.partial(_cubic, a=-0.5)),
}
"""Half of the width of each at scale 1, and its weight at a distance from 0 on."""


def _pillow_taps(
    old: int, new: int, scale: float, half_width: float, kernel: Kernel
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Pillow's windows: a kernel widened by max(scale, 1) around the centre, cut at the border, summing to 1."""
    widened = max(scale, 1.0)
    support = half_width * widened
    taps = math.ceil(support) * 2 + 1
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.intp), 0)
    last = np.minimum((centres + support + 0.5).astype(np.intp), old)
    places = first[:, None] + np.arange(taps)[None, :]
    weights = kernel(np.abs((places - centres[:, None] + 0.5) * (1.0 / widened)))
    weights[places >= last[:, None]] = 0.0
    weights /= weights.cumsum(axis=1)[:, -1:]  # summed in Pillow's order: a last bit decides some roundings
    return np.minimum(places, old - 1), weights


def _resize_as_pillow(frame: Frame, height: int, width: int, kernel: str) -> Frame:
    """Pillow's `Image.resize` of a uint8 image by one of PILLOW_KERNELS, to the last bit."""
    narrow = _apply_in_bits(frame.transpose(1, 0, 2), *_taps(frame.shape[1], width, kernel)).transpose(1, 0, 2)
    return _apply_in_bits(narrow, *_taps(frame.shape[0], height, kernel))


def _apply_in_bits(image: Frame, places: npt.NDArray[np.intp], weights: npt.NDArray[np.float64]) -> Frame:
    """`_apply` along the first axis in fixed point; weights' sizes sum to less than 1.5, so int32 holds all sums."""
    rows = np.ascontiguousarray(image).reshape(image.shape[0], -1).astype(np.int32)
    factors = np.trunc(weights * (1 << PILLOW_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    total = rows[places[:, 0]] * factors[:, :1]
    total += 1 << (PILLOW_BITS - 1)
    for tap in range(1, places.shape[1]):
        total += rows[places[:, tap]] * factors[:, tap : tap + 1]
    total >>= PILLOW_BITS
    clipped: Frame = np.clip(total, 0, 255).astype(np.uint8)
    return clipped.reshape(len(places), *image.shape[1:])
