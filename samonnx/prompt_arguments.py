"""Prompts on command lines, the same for every command: --text, --point, --box, --exemplar and --mask; and the
vocabulary that words are read by."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.runtime.video import read_mask
from samonnx.runtime.vocabulary import FILE_NAME

__all__ = ["PROMPT_OPTIONS", "PromptArgument", "add_prompt_options", "add_vocabulary_option", "make_prompts"]

PROMPT_OPTIONS = ("--text", "--point", "--box", "--exemplar", "--mask")


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
    group.add_argument("--box", type=_box, action=action, metavar="X0,Y0,X1,Y1[,LABEL]", help=f"left, top, right, "
                       f"bottom: {box}")  # fmt: skip
    group.add_argument("--exemplar", type=_box, action=action, metavar="X0,Y0,X1,Y1[,LABEL]", help="a box around a "
                       "thing like those to look for; label 0: unlike them")  # fmt: skip
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
        boxes=_boxes(given, "--box"),
        mask=MaskPrompt(read_mask(masks[0])) if masks else None,
        exemplars=_boxes(given, "--exemplar"),
    )


def _boxes(given: Sequence[PromptArgument], option: str) -> tuple[Box, ...]:
    return tuple(one.value for one in given if one.option == option and isinstance(one.value, Box))


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
    try:
        (x0, y0, x1, y1), label = _numbers(text, 4)
        return Box(x0, y0, x1, y1, label)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected X0,Y0,X1,Y1 (left, top, right, bottom) and perhaps ,LABEL with label 1 or 0, "
            f"for example 40,30,200,180; found {text!r}"
        ) from None
    except PromptError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _numbers(text: str, expected: int) -> tuple[list[float], int]:
    """That many numbers, and the label behind them, 1 if there is none. ValueError if it is anything else."""
    parts = text.split(",")
    if len(parts) not in (expected, expected + 1):
        raise ValueError
    label = int(parts[expected]) if len(parts) > expected else 1
    if label not in (0, 1):
        raise ValueError
    return [float(part) for part in parts[:expected]], label
