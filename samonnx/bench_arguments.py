"""The command line of `samonnx bench`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samonnx.number_arguments import index, positive

__all__ = ["BenchArguments", "parse_arguments"]

OBJECTS = (1, 2, 4)

EXAMPLE = """\
examples:

  samonnx bench dist/efficientsam3_m0_9
  samonnx bench dist/efficientsam3_m0_9 --program track --target ort-cpu --provider cpu --objects 1,3 --json bench.json
  samonnx bench dist/efficientsam3_m0_9 --program segment --repeats 3 --threads 2 --plot bench.png

A program is called with made-up inputs of a usual kind: `track` with a full bank and no prompt, `track@k` with k filled
slots, `track@first` with a click and an empty bank, detectors with a few words. Targets and providers of one program
are called in turn, each in a process of its own, all open at the same time: if memory is short, name one. Figures are
times of whole calls, copies to and from a GPU included.

exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 130 interrupted (nothing is left behind)
"""


@dataclass(frozen=True)
class BenchArguments:
    folder: Path
    programs: tuple[str, ...]
    """Empty: all."""
    targets: tuple[str, ...]
    """Empty: those that ONNX Runtime runs."""
    providers: tuple[str, ...]
    """Short names, lower case (`cpu`). Empty: those that are present and that a target can run on."""
    objects: tuple[int, ...] | None
    """None: OBJECTS, if `track` is measured; empty: no Tracker."""
    repeats: int
    warm_up: int
    threads: int | None
    json: Path | None
    plot: Path | None
    quiet: bool


def parse_arguments(argv: Sequence[str] | None) -> BenchArguments:
    """Parse the command line; exits as argparse does (SystemExit 2, usage and reason on stderr)."""
    parser = _parser()
    found = parser.parse_args(argv)
    if found.quiet and found.json is None and found.plot is None:
        parser.error("--quiet shows no table: give --json FILE, --plot FILE.png, or both")
    if found.json is not None and found.plot is not None and found.json.absolute() == found.plot.absolute():
        parser.error(f"--json and --plot are the same file, {found.json}; give two names")
    return BenchArguments(
        folder=found.folder,
        programs=_distinct(found.program),
        targets=_distinct(found.target),
        providers=_distinct([name.lower().removesuffix("executionprovider") for name in found.provider]),
        objects=found.objects,
        repeats=found.repeats,
        warm_up=found.warm_up,
        threads=found.threads,
        json=found.json,
        plot=found.plot,
        quiet=found.quiet,
    )


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _object_counts(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected whole numbers of at least 1 with commas between them, for example 1,2,4, or none; found {text!r}"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _png(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"expected the name of a .png file; found {text!r}")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samonnx bench",
        description="Time a compiled artifact on this machine: each program, and tracking several objects.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="artifact folder (the output of samonnx compile)")
    what = parser.add_argument_group("what is timed (the first three may be repeated)")
    what.add_argument("--program", action="append", default=[], metavar="P", help="a program (default: all)")
    what.add_argument("--target", action="append", default=[], metavar="T", help="a target of the compiler (default: "
                      "those made for ONNX Runtime)")  # fmt: skip
    what.add_argument("--provider", action="append", default=[], metavar="NAME", help="cpu, cuda, … as ONNX Runtime "
                      "has them (default: those that are present and that a target runs on)")  # fmt: skip
    what.add_argument("--objects", type=_object_counts, metavar="N,N,…", help="numbers of objects to track (default: "
                      f"{','.join(map(str, OBJECTS))}); none: leave this out")  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--repeats", type=positive, default=10, metavar="N", help="timed calls (default: 10)")
    how.add_argument("--warm-up", type=index, default=2, metavar="N", help="calls before them (default: 2: engines "
                     "plan their memory in the first)")  # fmt: skip
    how.add_argument("--threads", type=positive, metavar="N", help="threads of the engine (default: its choice)")
    output = parser.add_argument_group("output (a table in any case)")
    output.add_argument("--json", type=Path, metavar="FILE", help="all figures, every repeat among them")
    output.add_argument("--plot", type=_png, metavar="FILE.png", help="a picture of the medians (needs matplotlib)")
    output.add_argument("--quiet", action="store_true", help="no progress bar and no table")
    return parser
