"""The command line of `samonnx track`, where order matters: a prompt belongs to the object named before it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonnx import prompt_arguments
from samonnx.number_arguments import index, positive, share
from samonnx.prompt_arguments import BOX_OPTIONS, PromptArgument, add_prompt_options, add_vocabulary_option
from samonnx.provider_arguments import add_provider_option
from samonnx.runtime.prompts import PromptError, Prompts, check_for_tracking
from samonnx.runtime.video import VideoError

__all__ = ["PlacedPrompt", "TrackArguments", "check_boxes", "make_prompts", "parse_arguments"]

EXAMPLE = """\
prompts belong to the --object and --frame before them (at first object 1, frame 0):

  samonnx track dist/efficientsam3_m0_9 clip.mp4 --point 320,240 -o overlay.mp4
  samonnx track dist/efficientsam3_m0_9 clip.mp4 --text "a dog" -o overlay.mp4
  samonnx track dist/efficientsam3_m0_9 clip.mp4 --box 40,30,160,150 --object 2 --point 400,90 --point 420,300,0 \\
      --frame 60 --point 410,120 -o overlay.mp4 --masks-dir masks

(the second: every dog on frame 0, as objects 1, 2, 3 and so on; the third: object 1 by a box of 160 x 150 pixels;
object 2 by a click on it and one beside it, and corrected on frame 60)

--point, --box and --mask show one object; --text and --exemplar stand for all things of a kind on that frame: the best
gets the object's number, the others the free numbers after it, and what is tracked already is not added again.
Words need a detector (SAM 3 and its kin); XMem takes masks, with SAM in front of it (sam_xmem) clicks and boxes too.

exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 130 interrupted (nothing is left behind)
"""


@dataclass(frozen=True)
class PlacedPrompt:
    """A prompt, and whom it is for."""

    object: int
    frame: int
    prompt: PromptArgument


@dataclass(frozen=True)
class TrackArguments:
    folder: Path
    video: Path
    prompts: tuple[PlacedPrompt, ...]
    threshold: float | None
    """None: what the artifact's manifest says."""
    output: Path | None
    masks_dir: Path | None
    target: str | None
    threads: int | None
    providers: tuple[str, ...] | None
    """As they were given; None: the CPU."""
    vocabulary: Path | None
    """None: CLIP's own, out of an installed package."""
    max_frames: int | None
    quiet: bool


def parse_arguments(argv: Sequence[str] | None) -> TrackArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    if not found.prompts:
        parser.error(
            "nothing to track: give at least one prompt, --text WORDS, --point x,y, --box x,y,w,h, "
            "--exemplar x,y,w,h or --mask FILE"
        )
    if found.output is None and found.masks_dir is None:
        parser.error("nowhere to write: give -o OVERLAY.mp4, --masks-dir FOLDER, or both")
    late = max(prompt.frame for prompt in found.prompts)
    if found.max_frames is not None and late >= found.max_frames:
        parser.error(f"there is a prompt on frame {late}, but --max-frames {found.max_frames} ends before it")
    return TrackArguments(
        folder=found.folder,
        video=found.video,
        prompts=tuple(found.prompts),
        threshold=found.threshold,
        output=found.output,
        masks_dir=found.masks_dir,
        target=found.target,
        threads=found.threads,
        providers=tuple(found.providers) if found.providers else None,
        vocabulary=found.vocabulary,
        max_frames=found.max_frames,
        quiet=found.quiet,
    )


def make_prompts(arguments: Sequence[PlacedPrompt]) -> dict[int, dict[int, Prompts]]:
    """Prompts by frame, then by object; mask images are read here. Raises PromptError and VideoError."""
    gathered: dict[int, dict[int, list[PromptArgument]]] = {}
    for placed in arguments:
        gathered.setdefault(placed.frame, {}).setdefault(placed.object, []).append(placed.prompt)
    return {
        frame: {number: _one_object(number, frame, given) for number, given in objects.items()}
        for frame, objects in gathered.items()
    }


def check_boxes(arguments: Sequence[PlacedPrompt], *, width: int, height: int) -> None:
    """As `prompt_arguments.check_boxes`, with object and frame in the message."""
    for placed in arguments:
        try:
            prompt_arguments.check_boxes([placed.prompt], width=width, height=height)
        except PromptError as error:
            raise PromptError(f"object {placed.object}, frame {placed.frame}: {error}") from error


def _one_object(number: int, frame: int, given: Sequence[PromptArgument]) -> Prompts:
    for options, what in ((BOX_OPTIONS, "boxes"), (("--mask",), "masks"), (("--text",), "texts")):
        count = sum(argument.option in options for argument in given)
        if count > 1:
            raise PromptError(
                f"object {number} has {count} {what} on frame {frame}; expected one. "
                f"For another object, put --object {number + 1} before it"
            )
    try:
        prompts = prompt_arguments.make_prompts(given)
        check_for_tracking(prompts)
    except (PromptError, VideoError) as error:
        raise type(error)(f"object {number}, frame {frame}: {error}") from error
    return prompts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx track",
        description="Track objects through a video, or a folder of images, with a compiled artifact.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(object=1, frame=0)
    parser.add_argument("folder", type=Path, metavar="DIR", help="artifact folder (the output of samonnx compile)")
    parser.add_argument("video", type=Path, metavar="VIDEO", help="video file, folder of images, or one image")
    title = "prompts, in pixels of the video (repeat them at will)"
    prompts = add_prompt_options(parser, title, box="around the object; one an object", action=_AppendPlaced)
    prompts.add_argument("--object", type=int, metavar="N", help="the prompts that follow are for object N")
    prompts.add_argument("--frame", type=index, metavar="T", help="the prompts that follow are on frame T, from 0")
    prompts.add_argument("--threshold", type=share, metavar="SCORE", help="of --text and --exemplar: score "
                         "above which a thing becomes an object, 0 to 1 (default: the model's own, 0.5)")  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=Path, metavar="OUT", help="overlay: .mp4, .mov, .mkv or .avi; without a "
                        "suffix a folder of PNG images")  # fmt: skip
    output.add_argument("--masks-dir", type=Path, metavar="FOLDER", help="a PNG mask for each frame and object")
    output.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    run = parser.add_argument_group("running")
    run.add_argument("--target", help="graph to run (default: ort-cpu if there is one, else onnx)")
    run.add_argument("--threads", type=positive, metavar="N", help="threads of the engine (default: its choice)")
    add_provider_option(run)
    add_vocabulary_option(run)
    run.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    return parser


class _AppendPlaced(argparse.Action):
    """Append the prompt for the object and the frame that were named before it."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        prompt = PromptArgument(self.option_strings[0], values)
        namespace.prompts = (*namespace.prompts, PlacedPrompt(namespace.object, namespace.frame, prompt))
