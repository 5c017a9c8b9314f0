"""What may be chosen about automatic masks, under the original's names, and the presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from samonnx.errors import SamonnxError

__all__ = ["PRESETS", "MaskParameters", "ParameterError", "Preset", "with_preset"]


class ParameterError(SamonnxError):
    """Parameters that make no sense, or none for this picture."""


@dataclass(frozen=True)
class MaskParameters:
    """Defaults are the original's, but for the batch. A threshold of 0 switches the filter by IoU or by stability off.

    Raises ParameterError for values that no picture could be asked with.
    """

    points_per_side: int | None = 32
    """Points along each side of the picture, so its square in all; None: `point_grids` has them."""
    points_per_batch: int = 16
    """Prompts that go through the decoder at once; masks do not depend on it. A point takes 50 MiB of vit_b's decoder,
    and on CPUs as long alone as among 64, which is the original's default and good for GPUs."""
    pred_iou_thresh: float = 0.88
    """Masks stay whose predicted IoU is above it."""
    stability_score_thresh: float = 0.95
    """Masks stay whose stability is at least that: the pixels above `stability_score_offset`, over those above its
    negative. A mask without any of them has none (NaN), and does not stay."""
    stability_score_offset: float = 1.0
    """In logits."""
    box_nms_thresh: float = 0.7
    """Of masks of the same crop whose boxes overlap by a larger IoU, the one with the best predicted IoU stays."""
    crop_n_layers: int = 0
    """Layer i looks at (2^i)^2 overlapping crops of the picture, beside the picture itself."""
    crop_nms_thresh: float = 0.7
    """As `box_nms_thresh` for masks of different crops; that of the smaller crop stays."""
    crop_overlap_ratio: float = 512 / 1500
    """Of crops of the first layer, over the short side of the picture; half of it in the next, and so on."""
    crop_n_points_downscale_factor: int = 1
    """Layer i has points_per_side / factor^i points along each side of a crop."""
    point_grids: tuple[tuple[Sequence[float], ...], ...] | None = None
    """Instead of `points_per_side`: for each layer, x and y of its points, 0…1 of the crop."""
    min_mask_region_area: int = 0
    """Holes and islands of fewer pixels are removed from the masks; 0: masks stay as they are."""

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if name == "points_per_side" and value is None:
                continue
            if type(value) is not int or value < least:
                raise ParameterError(f"{name} is {value!r}; expected a whole number of at least {least}")
        for name, (low, high) in _REAL.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value <= high:
                span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
                raise ParameterError(f"{name} is {value!r}; expected a number {span}")
        if not math.isfinite(self.stability_score_offset):
            raise ParameterError(f"stability_score_offset is {self.stability_score_offset!r}; expected a finite number")
        self._check_points()

    def _check_points(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            both = "neither" if self.points_per_side is None else "both"
            raise ParameterError(f"{both} of points_per_side and point_grids: expected one of them")
        if self.points_per_side is not None:
            for layer in range(self.crop_n_layers + 1):
                if self.points_on(layer) < 1:
                    raise ParameterError(
                        f"points_per_side is {self.points_per_side} and crop_n_points_downscale_factor "
                        f"{self.crop_n_points_downscale_factor}: no point is left in crop layer {layer}. Give more "
                        f"points, a smaller factor or fewer layers"
                    )
            return
        grids = self.point_grids or ()
        if len(grids) <= self.crop_n_layers:
            raise ParameterError(
                f"point_grids has {len(grids)} grids; expected {self.crop_n_layers + 1}: one for the picture and one "
                f"for each of the {self.crop_n_layers} crop layers"
            )
        for layer, grid in enumerate(grids):
            if not grid or not all(len(point) == 2 and 0 <= min(point) <= max(point) <= 1 for point in grid):
                raise ParameterError(f"point_grids[{layer}]: expected at least one point, x and y from 0 to 1")

    def points_on(self, layer: int) -> int:
        """Points along each side of a crop of that layer; for `points_per_side`."""
        return int((self.points_per_side or 0) / self.crop_n_points_downscale_factor**layer)


_WHOLE: Mapping[str, int] = MappingProxyType(
    {
        "points_per_side": 1,
        "points_per_batch": 1,
        "crop_n_layers": 0,
        "crop_n_points_downscale_factor": 1,
        "min_mask_region_area": 0,
    }
)
"""The least of each whole number."""

_REAL: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "pred_iou_thresh": (0, 1),
        "stability_score_thresh": (0, 1),
        "stability_score_offset": (0, math.inf),
        "box_nms_thresh": (0, 1),
        "crop_nms_thresh": (0, 1),
        "crop_overlap_ratio": (0, 1),
    }
)
"""The range of each number."""


@dataclass(frozen=True)
class Preset:
    parameters: MaskParameters
    most_crop_layers: int | None = None
    """More are refused; None: as many as asked for."""


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quality": Preset(MaskParameters()),
        "fast": Preset(
            MaskParameters(points_per_side=16, pred_iou_thresh=0.8, min_mask_region_area=500), most_crop_layers=1
        ),
    }
)
"""`quality` is the original's default; `fast` has a quarter of the points, and leaves out small regions."""


def with_preset(name: str, **changes: object) -> MaskParameters:
    """The parameters of the preset with some of them changed. Raises ParameterError."""
    if name not in PRESETS:
        raise ParameterError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
    known = [field.name for field in dataclasses.fields(MaskParameters)]
    for unknown in sorted(set(changes) - set(known)):
        raise ParameterError(f"no parameter {unknown!r}; there are: {', '.join(known)}")
    preset = PRESETS[name]
    parameters = dataclasses.replace(preset.parameters, **changes)  # type: ignore[arg-type]  # checked when built
    most = preset.most_crop_layers
    if most is not None and parameters.crop_n_layers > most:
        raise ParameterError(
            f"crop_n_layers is {parameters.crop_n_layers}, and preset {name!r} has at most {most}: each layer looks at "
            f"four times as many crops as the one before. Take preset 'quality', which has no such limit"
        )
    return parameters
