"""Automatic masks of one image: time by stage and peak memory of the presets.

python -m benchmarks masks dist/sam_vit_b --size 1800x1200 --repeats 3

Each preset runs in a process of its own, without PyTorch. Masks are drawn unless --network is given: seeded weights
make none that a filter lets pass, so that nothing but the network would be measured (`benchmarks.drawn_masks`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.machine import machine_facts, physical_cores
from benchmarks.masks_report import print_masks_report
from benchmarks.masks_result import MasksResult, PresetResult
from benchmarks.reporting import run_benchmark
from samonnx.errors import SamonnxError
from samonnx.number_arguments import positive
from samonnx.runtime.automatic_masks.parameters import PRESETS
from samonnx.runtime.manifest import Manifest

__all__ = ["main"]

Size = tuple[int, int]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`."""
    args = _parser().parse_args(argv)
    return run_benchmark(args, lambda progress: _measure(args, progress), print_masks_report, lambda *_: None)


def _measure(args: argparse.Namespace, progress: Callable[[str], None]) -> MasksResult:
    machine, manifest = machine_facts(), Manifest.load(args.artifact)
    width, height = args.size
    names = args.presets or list(PRESETS)
    runs = [(name, 0) for name in names] + [(name, 1) for name in names if args.crops]
    presets = []
    for name, layers in runs:
        progress(f"{name}, {layers} crop layers")
        sizes = [str(number) for number in (width, height, layers, args.repeats, args.threads)]
        presets.append(_in_a_process([str(args.artifact), name, *sizes, "network" if args.network else "drawn"]))
    return MasksResult(
        recipe=manifest.recipe,
        recipe_digest=manifest.recipe_digest,
        weights=manifest.weights.source,
        width=width,
        height=height,
        repeats=args.repeats,
        threads=args.threads,
        drawn=not args.network,
        machine=machine,
        presets=tuple(presets),
    )


def _in_a_process(arguments: Sequence[str]) -> PresetResult:
    command = [sys.executable, "-m", "benchmarks.masks_run", *arguments]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if child.returncode:
        raise SamonnxError(f"{' '.join(command)} ended with code {child.returncode}:\n{child.stderr[-2000:]}")
    return PresetResult(**json.loads(child.stdout.splitlines()[-1]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks masks",
        description="Measure automatic masks of one image: time by stage and peak memory of each preset.",
    )
    parser.add_argument("artifact", type=lambda text: Path(text).resolve(), metavar="DIR", help="artifact folder")
    parser.add_argument("--size", type=_size, default=(1800, 1200), metavar="WxH", help="image (default: 1800x1200)")
    parser.add_argument("--preset", action="append", dest="presets", choices=tuple(PRESETS), help="default: all")
    parser.add_argument("--crops", action="store_true", help="also with one crop layer")
    parser.add_argument("--network", action="store_true", help="the network's own masks (for trained weights)")
    parser.add_argument("--repeats", type=positive, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=positive, default=physical_cores(), metavar="N",
                        help="of the engine (default: the physical cores)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.set_defaults(plot=None)
    return parser


def _size(text: str) -> Size:
    """1800x1200 → (1800, 1200)."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels; found {text!r}")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
