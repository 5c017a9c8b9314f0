"""The command line of `samonnx segment`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samonnx.number_arguments import positive, share
from samonnx.prompt_arguments import PromptArgument, add_prompt_options, add_vocabulary_option
from samonnx.provider_arguments import add_provider_option

__all__ = ["SegmentArguments", "parse_arguments"]

EXAMPLE = """\
examples:

  samonnx segment dist/efficientsam3_m0_9 photo.jpg --text "a dog" -o dogs.png
  samonnx segment dist/efficientsam3_m0_9 photo.jpg --text "a dog" --exemplar 40,30,160,150 --exemplar 5,5,85,75,0 \\
      -o dogs.png
  samonnx segment dist/efficientsam3_m0_9 photos/ --text "a dog" -o dogs

(the first writes dogs.png and dogs.json; the second shows a dog, and a thing that is none; the third goes through a
folder and writes a picture and a JSON file for each image, and encodes the words once)

All prompts together describe one kind of thing; --box, --box-corners and --exemplar mean the same here. Without words
the detector is asked for "visual", as in the original. The JSON file holds the size of the image and its detections,
best first: score, box (x, y, width, height in pixels), area, and the mask as a COCO run-length code.

exit codes: 0 done, also when nothing was found; 1 an error, explained on stderr; 2 wrong usage; 130 interrupted
(nothing is left behind)
"""


@dataclass(frozen=True)
class SegmentArguments:
    folder: Path
    images: tuple[Path, ...]
    """Images, and folders of images."""
    prompts: tuple[PromptArgument, ...]
    threshold: float | None
    """None: what the artifact's manifest says."""
    nms: float | None
    output: Path
    target: str | None
    threads: int | None
    providers: tuple[str, ...] | None
    """As they were given; None: the CPU."""
    vocabulary: Path | None
    """None: CLIP's own, out of an installed package."""
    quiet: bool


def parse_arguments(argv: Sequence[str] | None) -> SegmentArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    if not found.prompts:
        parser.error(
            "nothing to look for: give at least one prompt, --text WORDS, --exemplar x,y,w,h, --box x,y,w,h "
            "or --point x,y"
        )
    return SegmentArguments(
        folder=found.folder,
        images=tuple(found.images),
        prompts=tuple(found.prompts),
        threshold=found.threshold,
        nms=found.nms,
        output=found.output,
        target=found.target,
        threads=found.threads,
        providers=tuple(found.providers) if found.providers else None,
        vocabulary=found.vocabulary,
        quiet=found.quiet,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx segment",
        description="Find and outline what words, boxes and points describe, with a compiled artifact.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="artifact folder (the output of samonnx compile)")
    parser.add_argument("images", type=Path, metavar="IMAGE", nargs="+", help="image, or folder of images")
    title = "prompts, in pixels of the image (repeat them at will; all but --text)"
    add_prompt_options(parser, title, box="the same as --exemplar here")
    results = parser.add_argument_group("results")
    results.add_argument("--threshold", type=share, metavar="SCORE", help="show what has a higher score than this, "
                         "0 to 1 (default: the model's own, 0.5)")  # fmt: skip
    results.add_argument("--nms", type=share, metavar="IOU", help="leave out what overlaps a better "
                         "one by more than this; the original's video model has 0.1 (default: keep all)")  # fmt: skip
    results.add_argument("-o", "--output", type=Path, metavar="OUT", required=True, help="picture, with its JSON file "
                         "beside it; for several images, or without a suffix, a folder")  # fmt: skip
    results.add_argument("--quiet", action="store_true", help="no progress bar and no table")
    run = parser.add_argument_group("running")
    run.add_argument("--target", help="graph to run (default: ort-cpu if there is one, else onnx)")
    run.add_argument("--threads", type=positive, metavar="N", help="threads of the engine (default: its choice)")
    add_provider_option(run)
    add_vocabulary_option(run)
    return parser
