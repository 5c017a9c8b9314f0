"""The command line that all benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.machine import physical_cores
from benchmarks.options import Selection

__all__ = ["basic_parser", "benchmark_parser", "option_values", "positive"]


def positive(text: str) -> int:
    """A whole number from 1 on, for `type=`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number


def basic_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser of `python -m benchmarks NAME`: recipe, checkpoint, repeats, threads, json, plot."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        epilog=f"example: python -m benchmarks {name} recipes/efficientsam3_m0_9.yaml {example}",
    )
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/efficientsam3_m0_9.yaml"))
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="without one the weights are seeded")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="timed runs of each (default: 5)")
    parser.add_argument(
        "--threads",
        type=positive,
        default=physical_cores(),
        metavar="N",
        help="of every engine (default: all physical cores)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as a picture (PNG)")
    return parser


def benchmark_parser(name: str, description: str, with_artifact: bool = True) -> argparse.ArgumentParser:
    """The parser of a benchmark of variants side by side: also artifact (if there is one), variant,
    profile."""
    parser = basic_parser(name, description, f"--variant 'onnx*' --json {name}.json --plot {name}.png")
    if with_artifact:
        parser.add_argument(
            "--artifact", type=Path, metavar="DIR", help="compiled there if absent (default: dist/<recipe name>)"
        )
    else:
        parser.set_defaults(artifact=None)
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only these variants, as file names are matched ('*OpenVINO*'), and eager; repeatable (default: all)",
    )
    parser.add_argument("--profile", action="store_true", help="also the time of each graph by operator")
    return parser


def option_values(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Options` from what `benchmark_parser` read."""
    names = ("recipe", "artifact", "checkpoint", "repeats", "threads", "profile")
    return {name: getattr(args, name) for name in names} | {"selection": Selection(tuple(args.variant))}
