"""The command line of `samonnx optimize`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samonnx.number_arguments import positive

__all__ = ["OptimizeArguments", "parse_arguments"]

TARGETS = ("ort-cpu", "onnx", "openvino")

EXAMPLE = """\
examples:

  samonnx optimize resnet.onnx -o resnet.opt.onnx
  samonnx optimize bert.onnx -o bert.opt.onnx --shape input_ids=1x128 --range input_ids=0:999 --json bert.json
  samonnx optimize model.onnx -o small.onnx --passes fold_constants,merge_duplicates,eliminate_dead --no-timing
  samonnx optimize detector.onnx -o detector.opt.onnx --fix threshold=0.5 --fix use_mask=true

Inputs for the comparison are made up: axes without a size get small ones (--shape says others), floats are normal,
integers small or rows of the table that they index (--range says otherwise). A pass after which an output differs by
more than 1e-5 of its largest magnitude is left out. Weights above 1 GiB go to OUT.data beside the graph.

exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 3 the graph could not be run, so that only bit-exact
passes were used and nothing was compared (the file is written); 130 interrupted
"""


@dataclass(frozen=True)
class OptimizeArguments:
    source: Path
    output: Path
    target: str
    passes: tuple[str, ...] | None
    shapes: Mapping[str, tuple[int, ...]]
    ranges: Mapping[str, tuple[float, float]]
    fixed: Mapping[str, bool | int | float | None]
    """None: the input's own default."""
    timed: bool
    threads: int | None
    json: Path | None


def parse_arguments(argv: Sequence[str] | None) -> OptimizeArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    if found.json is not None and found.json.absolute() in (found.output.absolute(), found.source.absolute()):
        parser.error(f"--json {found.json} is a graph's file; give another name")
    for option, pairs in (("--shape", found.shape), ("--range", found.range), ("--fix", found.fix)):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            parser.error(f"{option} {twice[0]} is given twice")
    return OptimizeArguments(
        source=found.source,
        output=found.output,
        target=found.target,
        passes=found.passes,
        shapes=dict(found.shape),
        ranges=dict(found.range),
        fixed=dict(found.fix),
        timed=found.timed,
        threads=found.threads,
        json=found.json,
    )


def _named(text: str, what: str) -> tuple[str, str]:
    """Names may hold `=` and `:`; values do not."""
    name, equals, value = text.rpartition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected {what}; found {text!r}")
    return name, value


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    what = "INPUT=1x3x224x224"
    name, value = _named(text, what)
    parts = [] if value == "scalar" else value.split("x")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected {what}, or INPUT=scalar; found {text!r}")
    return name, tuple(map(int, parts))


def _range(text: str) -> tuple[str, tuple[float, float]]:
    what = "INPUT=low:high"
    name, value = _named(text, what)
    try:
        low, high = map(float, value.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {what} with two numbers; found {text!r}") from None
    return name, (low, high)


def _fix(text: str) -> tuple[str, bool | int | float | None]:
    what = "INPUT=value"
    name, value = _named(text, what)
    words: dict[str, bool | None] = {"true": True, "false": False, "default": None}
    if value in words:
        return name, words[value]
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"expected {what}: a number, true, false or default; found {text!r}")


def _passes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names of passes with commas between them; found {text!r}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx optimize",
        description="Rewrite any ONNX file by exact passes, and compare the numbers before and after.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, metavar="IN.onnx", help="opset 11 or newer; weights may lie beside it")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="written whole or not")
    what = parser.add_argument_group("what is done")
    what.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="the engine (default: ort-cpu)")
    what.add_argument("--passes", type=_passes, metavar="A,B,…", help="these, in this order (default: the target's; "
                      "`samonnx compile --list-passes` shows them)")  # fmt: skip
    what.add_argument("--fix", type=_fix, action="append", default=[], metavar="INPUT=VALUE", help="make an input a "
                      "constant: a number, true, false, or default (its own)")  # fmt: skip
    how = parser.add_argument_group("how it is compared and timed")
    how.add_argument("--shape", type=_shape, action="append", default=[], metavar="INPUT=AxBxC", help="of an input")
    how.add_argument(
        "--range", type=_range, action="append", default=[], metavar="INPUT=LOW:HIGH", help="of its values"
    )
    how.add_argument("--threads", type=positive, metavar="N", help="of the engine when timed (default: its choice)")
    how.add_argument("--no-timing", dest="timed", action="store_false", help="do not time, and keep what is slower")
    output = parser.add_argument_group("output (a table in any case)")
    output.add_argument("--json", type=Path, metavar="FILE", help="the report")
    return parser
