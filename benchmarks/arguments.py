"""The command line that all benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.machine import available_cores

__all__ = ["benchmark_parser", "positive"]


def positive(text: str) -> int:
    """A whole number from 1 on, for `type=`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number


def benchmark_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser of `python -m benchmarks NAME`: recipe, artifact, checkpoint, repeats, threads, profile, json."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        epilog=f"example: python -m benchmarks {name} recipes/efficientsam3_m0_9.yaml --profile --json {name}.json",
    )
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/efficientsam3_m0_9.yaml"))
    parser.add_argument(
        "--artifact", type=Path, metavar="DIR", help="compiled there if absent (default: dist/<recipe name>)"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="without one the weights are seeded")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="timed runs of each (default: 5)")
    parser.add_argument(
        "--threads", type=positive, default=available_cores(), metavar="N", help="of every engine (default: all cores)"
    )
    parser.add_argument("--profile", action="store_true", help="also the time of each graph by operator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    return parser
