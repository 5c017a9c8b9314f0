"""Between a picture of any size and SAM's square frame: sizes, coordinates, the padded image, and masks on their way
back.

The picture is scaled so that its long side fills the frame, and lies in the frame's upper left corner. Sizes are
(height, width) in pixels, coordinates (x, y). Upstream `segment_anything/utils/transforms.py` (sizes, coordinates) and
`segment_anything/modeling/sam.py` (`preprocess`, `postprocess_masks`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.antialiased_resize import antialiased_resize

__all__ = ["network_image", "network_masks", "original_masks", "resized_size", "to_network"]

Size = tuple[int, int]


def resized_size(original: Size, image_size: int) -> Size:
    """The size of a picture within the frame: the long side becomes `image_size`, the other is rounded half up.

    Raises SamonnxError for a picture without pixels, and for one so narrow that nothing of it is left.
    """
    height, width = original
    if height < 1 or width < 1:
        raise SamonnxError(f"a picture of {height} x {width} pixels (height x width) has none; give one with pixels")
    scale = image_size / max(height, width)
    resized = int(height * scale + 0.5), int(width * scale + 0.5)
    if 0 in resized:
        raise SamonnxError(
            f"a picture of {height} x {width} pixels (height x width) is {resized[0]} x {resized[1]} when its long "
            f"side is {image_size}; cut it to a shorter piece"
        )
    return resized


def to_network(coords: Tensor, original: Size, image_size: int) -> Tensor:
    """Coordinates [..., 2] in pixels of the picture → pixels of the frame, in the same dtype.

    Each axis has its own scale, since sizes are rounded. Boxes [..., 4] go as corners [..., 2, 2].
    """
    height, width = resized_size(original, image_size)
    scale = torch.tensor((width / original[1], height / original[0]), dtype=torch.float64)
    return coords * scale.to(coords.dtype)


def network_image(picture: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...], image_size: int) -> Tensor:
    """A picture f32 [3, h, w] of `resized_size`, RGB in 0…1 → f32 [1, 3, S, S], normalised: (value - mean) / deviation.

    What is right and below of the picture is 0 after the normalisation: the mean colour, not black. Raises SamonnxError
    for a picture that is no such map or does not fill the frame's side.
    """
    if picture.ndim != 3 or picture.shape[0] != 3 or max(picture.shape[1:]) != image_size or 0 in picture.shape:
        raise SamonnxError(
            f"the picture is {list(picture.shape)}; [3, height, width] expected, the longer of both {image_size}: "
            "resize it to samonnx.models.sam_geometry.resized_size first"
        )
    centre, scale = (torch.tensor(values, dtype=picture.dtype)[:, None, None] for values in (mean, deviation))
    height, width = picture.shape[1:]
    return F.pad((picture - centre) / scale, (0, image_size - width, 0, image_size - height))[None]


def network_masks(logits: Tensor, image_size: int) -> Tensor:
    """Low-resolution logits f32 [O, M, n, n] → f32 [O, M, S, S], bilinear at half-pixel centres."""
    enlarged: Tensor = antialiased_resize(logits.flatten(0, 1)[:, None], image_size)[:, 0]
    masks: Tensor = enlarged.unflatten(0, logits.shape[:2])
    return masks


def original_masks(logits: Tensor, original: Size, image_size: int) -> Tensor:
    """Low-resolution logits f32 [O, M, n, n] → logits in the picture's own size, f32 [O, M, height, width].

    Enlarged to the frame, cut to the part that the picture fills, and resized again, all bilinear without antialiasing.
    A pixel belongs to the mask where its logit is above 0.
    """
    height, width = resized_size(original, image_size)
    part = network_masks(logits, image_size)[..., :height, :width]
    return F.interpolate(part, size=original, mode="bilinear", align_corners=False)
