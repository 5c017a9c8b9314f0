"""Prompts on command lines, the same for every command: --text, --point, --box, --box-corners, --exemplar and --mask;
and the vocabulary that words are read by.

Boxes are X,Y,WIDTH,HEIGHT, in COCO's order; --box-corners takes the other one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.runtime.sized_boxes import check_sized_box, sized_box
from samonnx.runtime.video import read_mask
from samonnx.runtime.vocabulary import FILE_NAME

__all__ = [
    "BOX_OPTIONS",
    "PROMPT_OPTIONS",
    "PromptArgument",
    "add_prompt_options",
    "add_vocabulary_option",
    "check_boxes",
    "make_prompts",
]

PROMPT_OPTIONS = ("--text", "--point", "--box", "--box-corners", "--exemplar", "--mask")
BOX_OPTIONS = ("--box", "--box-corners")
"""Two ways to say one thing."""

CORNERS = {
    "--box": "For corners X0,Y0,X1,Y1 (left, top, right, bottom) there is --box-corners",
    "--exemplar": "For corners X0,Y0,X1,Y1 (left, top, right, bottom) give --exemplar X0,Y0,X1-X0,Y1-Y0",
}
"""What to do with corners, by the option that takes width and height."""


@dataclass(frozen=True)
class PromptArgument:
    """One prompt as it was given."""

    option: str
    """One of PROMPT_OPTIONS."""
    value: str | tuple[float, float, int] | Box | Path
    """The words; (x, y, label); a box; or the path of a mask image."""


class AppendPrompt(argparse.Action):
    """Append to `prompts`; every prompt option shares that one list, so the order of the command line is kept."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        namespace.prompts = (*namespace.prompts, PromptArgument(self.option_strings[0], values))


def add_prompt_options(
    parser: argparse.ArgumentParser,
    title: str,
    *,
    box: str,
    action: type[argparse.Action] = AppendPrompt,
) -> argparse._ArgumentGroup:
    """Add the options as a group with that title, and `prompts`, a tuple, to what is parsed.

    `box` says what a box is for in this command; `action` makes the PromptArguments. Returns the group.
    """
    parser.set_defaults(prompts=())
    group = parser.add_argument_group(title)
    group.add_argument("--text", type=_text, action=action, metavar="WORDS", help='what to look for: "a dog"')
    group.add_argument("--point", type=_point, action=action, metavar="X,Y[,LABEL]", help="a click; label 1 (on the "
                       "object, the default) or 0 (not on it)")  # fmt: skip
    group.add_argument("--box", type=_box, action=action, metavar="X,Y,W,H[,LABEL]", help=f"left, top, width, height: "
                       f"{box}")  # fmt: skip
    group.add_argument("--box-corners", type=_box_corners, action=action, metavar="X0,Y0,X1,Y1[,LABEL]", help="the "
                       "same, as left, top, right, bottom")  # fmt: skip
    group.add_argument("--exemplar", type=_exemplar, action=action, metavar="X,Y,W,H[,LABEL]", help="left, top, width, "
                       "height: a box around a thing like those to look for; label 0: unlike them")  # fmt: skip
    group.add_argument("--mask", type=Path, action=action, metavar="FILE", help="mask image, as large as the picture")
    return group


def add_vocabulary_option(group: argparse._ArgumentGroup) -> None:
    """Add --vocabulary to what is parsed, as `vocabulary`, a path or None."""
    group.add_argument("--vocabulary", type=Path, metavar="FILE", help=f"CLIP's {FILE_NAME} (default: out of an "
                       "installed package, see the extra `text`)")  # fmt: skip


def make_prompts(given: Sequence[PromptArgument]) -> Prompts:
    """All of them as one `Prompts`; a mask image is read here. Raises PromptError and VideoError."""
    texts = [str(argument.value) for argument in given if argument.option == "--text"]
    masks = [argument.value for argument in given if isinstance(argument.value, Path)]
    points = [argument.value for argument in given if isinstance(argument.value, tuple)]
    for option, found in (("--text", texts), ("--mask", masks)):
        if len(found) > 1:
            raise PromptError(f"{option} is given {len(found)} times for the same thing; expected once")
    return Prompts(
        text=texts[0] if texts else None,
        points=Points(tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)) if points else None,
        boxes=_boxes(given, *BOX_OPTIONS),
        mask=MaskPrompt(read_mask(masks[0])) if masks else None,
        exemplars=_boxes(given, "--exemplar"),
    )


def check_boxes(given: Sequence[PromptArgument], *, width: int, height: int) -> None:
    """Raise PromptError for a box that is given by its width and height and reaches beyond a frame of that size.

    Perhaps they were corners, which the runtime cannot know: the message says how to give those.
    """
    for one in given:
        if one.option in CORNERS and isinstance(one.value, Box):
            check_sized_box(one.value, width=width, height=height, name=one.option, corners=CORNERS[one.option])


def _boxes(given: Sequence[PromptArgument], *options: str) -> tuple[Box, ...]:
    return tuple(one.value for one in given if one.option in options and isinstance(one.value, Box))


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError('expected words, for example "a dog"; found nothing but space')
    return text


def _point(text: str) -> tuple[float, float, int]:
    try:
        (x, y), label = _numbers(text, 2)
        points = Points(((x, y),), (label,))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X,Y or X,Y,LABEL with label 1 or 0, for example 320,240,1; found {text!r}"
        ) from None
    except PromptError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return (*points.coordinates[0], label)


def _box(text: str) -> Box:
    return _sized_box(text, "--box")


def _exemplar(text: str) -> Box:
    return _sized_box(text, "--exemplar")


def _sized_box(text: str, option: str) -> Box:
    try:
        (x, y, width, height), label = _numbers(text, 4)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X,Y,WIDTH,HEIGHT (left, top, width, height) and perhaps ,LABEL with label 1 or 0, "
            f"for example 40,30,160,150; found {text!r}"
        ) from None
    try:
        return sized_box(x, y, width, height, label)
    except PromptError as error:
        raise argparse.ArgumentTypeError(f"{error}. {CORNERS[option]}") from None


def _box_corners(text: str) -> Box:
    try:
        (x0, y0, x1, y1), label = _numbers(text, 4)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X0,Y0,X1,Y1 (left, top, right, bottom) and perhaps ,LABEL with label 1 or 0, "
            f"for example 40,30,200,180; found {text!r}"
        ) from None
    try:
        return Box(x0, y0, x1, y1, label)
    except PromptError as error:
        raise argparse.ArgumentTypeError(f"{error}. For a width and a height there is --box") from None


def _numbers(text: str, expected: int) -> tuple[list[float], int]:
    """That many numbers, and the label behind them, 1 if there is none. ValueError if it is anything else."""
    parts = text.split(",")
    if len(parts) not in (expected, expected + 1):
        raise ValueError
    label = int(parts[expected]) if len(parts) > expected else 1
    if label not in (0, 1):
        raise ValueError
    return [float(part) for part in parts[:expected]], label
