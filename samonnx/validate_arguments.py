"""The command line of `samonnx validate`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonnx.number_arguments import index, positive, share
from samonnx.prompt_arguments import PromptArgument, add_prompt_options
from samonnx.provider_arguments import add_provider_option
from samonnx.runtime.prompts import Prompts
from samonnx.track_arguments import PlacedPrompt, make_prompts

__all__ = ["ValidateArguments", "parse_arguments", "prompts_by_frame"]

MAX_ERROR = 1e-3
"""Of a whole tracking step, float32 rounding moves logits by 1e-6 to 1e-5 of their largest, and by up to 7e-4 behind
encoders that magnify it; a wrong layer by 1e-1."""

MIN_IOU = 0.99

OBJECT = 1

CONCEPTS = ("--text", "--exemplar")
"""Prompts for the detector."""

EXAMPLE = """\
examples:

  samonnx validate dist/samurai_hiera_t --frames 20
  samonnx validate dist/samurai_hiera_t --checkpoint sam2.1_hiera_tiny.pt --video clip.mp4 --box 40,30,160,150
  samonnx validate dist/samurai_hiera_t --from-reference --plot errors.png --json errors.json

Both sides track one object from the same prompts: the compiled graphs in ONNX Runtime, and the PyTorch model that they
were compiled from, rebuilt from the artifact's recipe.json. By default each goes by its own memory, so that errors may
add up; with --from-reference every step of the graph starts from the reference's memory, so that they cannot. A
prompt on a later frame is a correction, as in `samonnx track`.

A frame passes if its mask logits are off by no more than --max-error of the reference's largest one, if the two masks
overlap by --min-iou, and if both sides took the same of the candidate masks (SAMURAI: in the same phase of its filter).
The other figures are shown and not judged: a single pixel on the edge of the threshold moves a box, and with it the
filter.

exit codes: 0 all frames pass; 1 an error, explained on stderr; 2 wrong usage; 3 a frame does not pass; 130 interrupted
"""


@dataclass(frozen=True)
class ValidateArguments:
    folder: Path
    video: Path | None
    """None: the synthetic clip."""
    frames: int | None
    prompts: tuple[PlacedPrompt, ...]
    """Empty, only without a video: the synthetic clip's click."""
    recipe: Path | None
    """None: the artifact's own."""
    checkpoint: Path | None
    from_reference: bool
    maps: str
    """`own` or `graph`."""
    max_error: float
    min_iou: float
    json: Path | None
    plot: Path | None
    quiet: bool
    target: str | None
    threads: int | None
    providers: tuple[str, ...] | None
    """As they were given; None: the CPU."""


def parse_arguments(argv: Sequence[str] | None) -> ValidateArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    concept = next((one.prompt.option for one in found.prompts if one.prompt.option in CONCEPTS), None)
    if concept is not None:
        parser.error(
            f"{concept} is for the detector, which this command does not compare: show the object by --point, --box or "
            f"--mask"
        )
    if found.video is not None and not found.prompts:
        parser.error("nothing to track in --video: show the object by --point X,Y, --box X,Y,W,H or --mask FILE")
    late = max((one.frame for one in found.prompts), default=0)
    if found.frames is not None and late >= found.frames:
        parser.error(f"there is a prompt on frame {late}, but --frames {found.frames} ends before it")
    if found.json is not None and found.plot is not None and found.json.absolute() == found.plot.absolute():
        parser.error(f"--json and --plot are the same file, {found.json}; give two names")
    return ValidateArguments(
        folder=found.folder,
        video=found.video,
        frames=found.frames,
        prompts=tuple(found.prompts),
        recipe=found.recipe,
        checkpoint=found.checkpoint,
        from_reference=found.from_reference,
        maps=found.maps,
        max_error=found.max_error,
        min_iou=found.min_iou,
        json=found.json,
        plot=found.plot,
        quiet=found.quiet,
        target=found.target,
        threads=found.threads,
        providers=tuple(found.providers) if found.providers else None,
    )


def prompts_by_frame(arguments: Sequence[PlacedPrompt]) -> Mapping[int, Prompts]:
    """The object's prompts by frame; mask images are read here. Raises PromptError and VideoError."""
    return {frame: objects[OBJECT] for frame, objects in sorted(make_prompts(arguments).items())}


class _AppendOnFrame(argparse.Action):
    """Append the prompt for the frame that was named before it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        prompt = PromptArgument(self.option_strings[0], values)
        namespace.prompts = (*namespace.prompts, PlacedPrompt(OBJECT, namespace.frame, prompt))


def _error(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, for example 1e-3; found {text!r}")
    return value


def _png(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"expected the name of a .png file; found {text!r}")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx validate",
        description="Hold the tracking of a compiled artifact against the eager PyTorch model, frame by frame.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(frame=0)
    parser.add_argument("folder", type=Path, metavar="DIR", help="artifact folder (the output of samonnx compile)")
    clip = parser.add_argument_group("clip")
    clip.add_argument("--video", type=Path, metavar="VIDEO", help="video file, folder of images, or image (default: a "
                      "synthetic clip)")  # fmt: skip
    clip.add_argument("--frames", type=positive, metavar="N", help="the first N frames (default: all; of the synthetic "
                      "clip as many as the recipe verifies)")  # fmt: skip
    title = "prompts of one object, in pixels of the video (default, without --video: a click on the synthetic ellipse)"
    prompts = add_prompt_options(parser, title, box="around the object", action=_AppendOnFrame)
    for option in prompts._group_actions:
        if option.option_strings[0] in CONCEPTS:  # known, so as to be refused with a reason
            option.help = argparse.SUPPRESS
    prompts.add_argument("--frame", type=index, metavar="T", help="the prompts that follow are on frame T, from 0")
    reference = parser.add_argument_group("reference")
    reference.add_argument("--recipe", type=Path, metavar="FILE", help="what the artifact was compiled from (default: "
                           "its own recipe.json)")  # fmt: skip
    reference.add_argument("--checkpoint", type=Path, metavar="PATH", help="the weights that it was compiled with, "
                           "where they are not seeded")  # fmt: skip
    reference.add_argument("--from-reference", action="store_true", help="start every step of the graph from the "
                           "reference's memory: no drift")  # fmt: skip
    reference.add_argument("--maps", choices=("own", "graph"), default="own", help="own: each side encodes the image "
                           "(default); graph: the reference is given the graph's maps, and the encoder is compared on "
                           "its own")  # fmt: skip
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--max-error", type=_error, default=MAX_ERROR, metavar="SHARE", help="largest difference of "
                        f"mask logits, as a share of the reference's largest (default: {MAX_ERROR:g})")  # fmt: skip
    bounds.add_argument("--min-iou", type=share, default=MIN_IOU, metavar="IOU", help="least overlap of the two masks "
                        f"(default: {MIN_IOU:g})")  # fmt: skip
    output = parser.add_argument_group("output (a table in any case)")
    output.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    output.add_argument("--plot", type=_png, metavar="FILE.png", help="errors and overlap over the frames (needs "
                        "matplotlib)")  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress bar and no table")
    run = parser.add_argument_group("running")
    run.add_argument("--target", help="graph to run (default: ort-cpu if there is one, else onnx)")
    run.add_argument("--threads", type=positive, metavar="N", help="threads of engine and reference (default: their "
                     "choice)")  # fmt: skip
    add_provider_option(run)
    return parser
