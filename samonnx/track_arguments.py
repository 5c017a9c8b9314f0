"""The command line of `samonnx track`, where order matters: a prompt belongs to the object named before it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonnx.runtime.prompts import Box, MaskPrompt, ObjectPrompts, Points, PromptError
from samonnx.runtime.video import read_mask

__all__ = ["PromptArgument", "TrackArguments", "make_prompts", "parse_arguments"]

EXAMPLE = """\
prompts belong to the --object and --frame before them (at first object 1, frame 0):

  samonnx track dist/efficientsam3_m0_9 clip.mp4 --point 320,240 -o overlay.mp4
  samonnx track dist/efficientsam3_m0_9 clip.mp4 --box 40,30,200,180 --object 2 --point 400,90 --point 420,300,0 \\
      --frame 60 --point 410,120 -o overlay.mp4 --masks-dir masks

(the second: object 1 by a box; object 2 by a click on it and one beside it, and corrected on frame 60)

exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 130 interrupted (nothing is left behind)
"""


@dataclass(frozen=True)
class PromptArgument:
    """One --point, --box or --mask, and whom it is for."""

    object: int
    frame: int
    value: tuple[float, float, int] | Box | Path
    """(x, y, label), a box, or the path of a mask image."""


@dataclass(frozen=True)
class TrackArguments:
    folder: Path
    video: Path
    prompts: tuple[PromptArgument, ...]
    output: Path | None
    masks_dir: Path | None
    target: str | None
    threads: int | None
    max_frames: int | None
    quiet: bool


def parse_arguments(argv: Sequence[str] | None) -> TrackArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    if not found.prompts:
        parser.error("nothing to track: give at least one prompt, --point x,y or --box x0,y0,x1,y1 or --mask FILE")
    if found.output is None and found.masks_dir is None:
        parser.error("nowhere to write: give -o OVERLAY.mp4, --masks-dir FOLDER, or both")
    late = max(prompt.frame for prompt in found.prompts)
    if found.max_frames is not None and late >= found.max_frames:
        parser.error(f"there is a prompt on frame {late}, but --max-frames {found.max_frames} ends before it")
    return TrackArguments(
        folder=found.folder,
        video=found.video,
        prompts=tuple(found.prompts),
        output=found.output,
        masks_dir=found.masks_dir,
        target=found.target,
        threads=found.threads,
        max_frames=found.max_frames,
        quiet=found.quiet,
    )


def make_prompts(arguments: Sequence[PromptArgument]) -> dict[int, dict[int, ObjectPrompts]]:
    """Prompts by frame, then by object; mask images are read here. Raises PromptError and VideoError."""
    gathered: dict[int, dict[int, list[PromptArgument]]] = {}
    for argument in arguments:
        gathered.setdefault(argument.frame, {}).setdefault(argument.object, []).append(argument)
    return {
        frame: {number: _one_object(number, frame, given) for number, given in objects.items()}
        for frame, objects in gathered.items()
    }


def _one_object(number: int, frame: int, given: Sequence[PromptArgument]) -> ObjectPrompts:
    points = [argument.value for argument in given if isinstance(argument.value, tuple)]
    boxes = [argument.value for argument in given if isinstance(argument.value, Box)]
    masks = [argument.value for argument in given if isinstance(argument.value, Path)]
    for what, found in (("boxes", boxes), ("masks", masks)):
        if len(found) > 1:
            raise PromptError(
                f"object {number} has {len(found)} {what} on frame {frame}; expected one. "
                f"For another object, put --object {number + 1} before it"
            )
    try:
        return ObjectPrompts(
            points=Points(tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points))
            if points
            else None,
            box=boxes[0] if boxes else None,
            mask=MaskPrompt(read_mask(masks[0])) if masks else None,
        )
    except PromptError as error:
        raise PromptError(f"object {number}, frame {frame}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx track",
        description="Track objects through a video, or a folder of images, with a compiled artifact.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(prompts=(), object=1, frame=0)
    parser.add_argument("folder", type=Path, metavar="DIR", help="artifact folder (the output of samonnx compile)")
    parser.add_argument("video", type=Path, metavar="VIDEO", help="video file, folder of images, or one image")
    prompts = parser.add_argument_group("prompts, in pixels of the video (repeat them at will)")
    prompts.add_argument("--point", type=_point, action=_Prompt, metavar="X,Y[,LABEL]", help="a click; label 1 (on the "
                         "object, the default) or 0 (not on it)")  # fmt: skip
    prompts.add_argument("--box", type=_box, action=_Prompt, metavar="X0,Y0,X1,Y1", help="left, top, right, bottom")
    prompts.add_argument("--mask", type=Path, action=_Prompt, metavar="FILE", help="mask image as large as the video")
    prompts.add_argument("--object", type=int, metavar="N", help="the prompts that follow are for object N")
    prompts.add_argument("--frame", type=_index, metavar="T", help="the prompts that follow are on frame T, from 0")
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=Path, metavar="OUT", help="overlay: .mp4, .mov, .mkv or .avi; without a "
                        "suffix a folder of PNG images")  # fmt: skip
    output.add_argument("--masks-dir", type=Path, metavar="FOLDER", help="a PNG mask for each frame and object")
    output.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    run = parser.add_argument_group("running")
    run.add_argument("--target", help="graph to run (default: ort-cpu if there is one, else onnx)")
    run.add_argument("--threads", type=_positive, metavar="N", help="threads of the engine (default: its choice)")
    run.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    return parser


class _Prompt(argparse.Action):
    """Append the prompt for the object and the frame that were named before it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        prompt = PromptArgument(namespace.object, namespace.frame, values)
        namespace.prompts = (*namespace.prompts, prompt)


def _point(text: str) -> tuple[float, float, int]:
    parts = text.split(",")
    try:
        if len(parts) not in (2, 3):
            raise ValueError
        label = int(parts[2]) if len(parts) == 3 else 1
        if label not in (0, 1):
            raise ValueError
        return float(parts[0]), float(parts[1]), label
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X,Y or X,Y,LABEL with label 1 or 0, for example 320,240,1; found {text!r}"
        ) from None


def _box(text: str) -> Box:
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X0,Y0,X1,Y1 (left, top, right, bottom), for example 40,30,200,180; found {text!r}"
        ) from None
    try:
        return Box(x0, y0, x1, y1)
    except PromptError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _index(text: str) -> int:
    return _whole(text, least=0)


def _positive(text: str) -> int:
    return _whole(text, least=1)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}; found {text!r}")
    return int(text)
