"""The command line of `samonnx masks`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samonnx.number_arguments import index, positive, share
from samonnx.provider_arguments import add_provider_option
from samonnx.runtime.automatic_masks.parameters import (
    PRESETS,
    MaskParameters,
    ParameterError,
    with_preset,
)

__all__ = ["MasksArguments", "parse_arguments"]

EXAMPLE = """\
examples:

  samonnx masks dist/sam_vit_b photo.jpg -o everything.png
  samonnx masks dist/sam_vit_b photo.jpg -o everything.png --preset fast --json masks.json
  samonnx masks dist/sam_vit_b photo.jpg -o everything.png --crop-n-layers 1 --crop-n-points-downscale-factor 2

(each writes a picture with all masks and a JSON file, everything.json where no other name is given: the size of the
image, the parameters, and for each mask segmentation (COCO's run-length code), area, bbox, predicted_iou, point_coords,
stability_score and crop_box)

presets (every parameter may be changed by its option):

{presets}

exit codes: 0 done, also when nothing was found; 1 an error, explained on stderr; 2 wrong usage; 130 interrupted
(nothing is left behind)
"""


@dataclass(frozen=True)
class MasksArguments:
    folder: Path
    image: Path
    output: Path
    document: Path
    """The JSON file."""
    preset: str
    parameters: MaskParameters
    target: str | None
    threads: int | None
    providers: tuple[str, ...] | None
    """As they were given; None: the CPU."""
    quiet: bool


def parse_arguments(argv: Sequence[str] | None) -> MasksArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    changes = {name: getattr(found, name) for name in _OPTIONS if getattr(found, name) is not None}
    if found.point_grids is not None:
        changes["points_per_side"] = changes.get("points_per_side")
        changes["point_grids"] = found.point_grids
    try:
        parameters = with_preset(found.preset, **changes)
    except ParameterError as error:
        parser.error(str(error))
    return MasksArguments(
        folder=found.folder,
        image=found.image,
        output=found.output,
        document=found.output.with_suffix(".json") if found.json is None else found.json,
        preset=found.preset,
        parameters=parameters,
        target=found.target,
        threads=found.threads,
        providers=tuple(found.providers) if found.providers else None,
        quiet=found.quiet,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx masks",
        description="Find everything in an image, with a compiled artifact of SAM or SAM 2.",
        epilog=EXAMPLE.format(presets="\n".join(_described(name) for name in PRESETS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="artifact folder (the output of samonnx compile)")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image")
    results = parser.add_argument_group("results")
    results.add_argument("-o", "--output", type=Path, metavar="OUT", required=True, help="picture with all masks")
    results.add_argument("--json", type=Path, metavar="FILE", help="the masks (default: OUT with the suffix .json)")
    results.add_argument("--quiet", action="store_true", help="no progress bar and no table")
    chosen = parser.add_argument_group("what is kept, under the original's names")
    chosen.add_argument("--preset", default="quality", choices=tuple(PRESETS), help="see below (default: %(default)s)")
    for name, (kind, value, meaning) in _OPTIONS.items():
        chosen.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=value, help=meaning)
    chosen.add_argument("--point-grids", type=_point_grids, metavar="FILE", help="JSON file with the points instead, "
                        "for each layer a list of [x, y], 0 to 1 of the crop")  # fmt: skip
    run = parser.add_argument_group("running")
    run.add_argument("--target", help="graph to run (default: ort-cpu if there is one, else onnx)")
    run.add_argument("--threads", type=positive, metavar="N", help="threads of the engine (default: its choice)")
    add_provider_option(run)
    return parser


def _logit(text: str) -> float:
    """A number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0; found {text!r}")
    return value


def _point_grids(text: str) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """What MaskParameters checks in the end."""
    try:
        grids = json.loads(Path(text).read_text(encoding="utf-8"))
        return tuple(tuple(tuple(float(side) for side in point) for point in grid) for grid in grids)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from error
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no JSON list of grids, for each layer a list of [x, y]: {error}"
        ) from error


_OPTIONS = {
    "points_per_side": (positive, "N", "points along each side of the image; its square is asked for masks"),
    "points_per_batch": (positive, "N", "points that go through the decoder at once"),
    "pred_iou_thresh": (share, "IOU", "masks stay whose predicted IoU is above this; 0: all"),
    "stability_score_thresh": (share, "IOU", "masks stay whose stability is at least this; 0: all"),
    "stability_score_offset": (_logit, "LOGIT", "stability is the IoU of the mask cut at plus and minus this"),
    "box_nms_thresh": (share, "IOU", "of masks whose boxes overlap more, the one with the best predicted IoU stays"),
    "crop_n_layers": (index, "N", "look at crops as well: 4 in layer 1, 16 in layer 2, …"),
    "crop_nms_thresh": (
        share,
        "IOU",
        "of masks of different crops whose boxes overlap more, that of the smaller stays",
    ),
    "crop_overlap_ratio": (share, "SHARE", "of crops of layer 1, over the short side of the image"),
    "crop_n_points_downscale_factor": (positive, "N", "each layer has so many times fewer points a side"),
    "min_mask_region_area": (index, "PIXELS", "holes and islands of fewer pixels are removed; 0: none"),
}
"""Parameter → how its option is read, what stands for the value, and what it means."""


def _described(name: str) -> str:
    preset = PRESETS[name]
    shown = ("points_per_side", "pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_n_layers",
             "min_mask_region_area")  # fmt: skip
    values = ", ".join(f"{one} {getattr(preset.parameters, one):g}" for one in shown)
    most = "" if preset.most_crop_layers is None else f" (at most {preset.most_crop_layers} crop layer)"
    return f"  {name}: {values}{most}"
