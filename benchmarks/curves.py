"""Cost curves of a compiled tracking step with a full bank: time against memory slots, objects and image size.

python -m benchmarks curves recipes/efficientsam3_m0_9.yaml --target ort-cpu --json curves.json --plot curves.png
python -m benchmarks curves recipes/efficientsam3_m0_9.yaml --slots 2,4,7 --objects none --image-sizes none \\
    --set model.args.image_size=504

Every point is a compile of the program `track` (minutes, at full size) and is kept in --cache; the points of a curve
are timed in turn in one process. For each curve an exponent is fitted to the medians and to the FLOPs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from rich.console import Console

from benchmarks.arguments import basic_parser, positive
from benchmarks.curve_points import Axis, Point, PointCompiler
from benchmarks.curves_report import plot_curves, print_curves_report
from benchmarks.curves_result import Curve, CurvePoint, CurvesResult
from benchmarks.engines import ENGINE_OF_TARGET, Engine, open_graph
from benchmarks.graph_facts import graph_facts
from benchmarks.machine import machine_facts, physical_cores
from benchmarks.measure import alternate
from benchmarks.power_law import fit_power_law
from benchmarks.reporting import run_benchmark
from benchmarks.work_variant import Progress
from samonnx.errors import SamonnxError
from samonnx.recipe import load_recipe

__all__ = ["CurvesOptions", "main", "measure_curves"]

SLOTS, OBJECTS = (2, 4, 7, 10, 16), (1, 2, 4, 8)
IMAGE_SHARES, IMAGE_MULTIPLE = (0.5, 0.75, 1.0), 28


@dataclass(frozen=True)
class CurvesOptions:
    """Points by axis, None for those of the recipe; an empty axis is left out. `cache`: folder of artifacts."""

    recipe: Path
    slots: tuple[int, ...] = SLOTS
    objects: tuple[int, ...] = OBJECTS
    image_sizes: tuple[int, ...] | None = None
    overrides: tuple[str, ...] = ()
    target: str = "ort-cpu"
    cache: Path = Path("dist/curves")
    checkpoint: Path | None = None
    repeats: int = 5
    threads: int = field(default_factory=physical_cores)


def measure_curves(
    options: CurvesOptions, progress: Progress = lambda _: None, say: Callable[[str], None] = lambda _: None
) -> CurvesResult:
    """Run the benchmark. `say` is told each finished point, `progress` what is going on. Raises SamonnxError for a
    target that no engine here runs, for points that a recipe cannot have, and what compiling raises."""
    if options.target not in ENGINE_OF_TARGET:
        raise SamonnxError(f"--target {options.target}: measured are {', '.join(ENGINE_OF_TARGET)}")
    engine, machine = ENGINE_OF_TARGET[options.target], machine_facts()
    recipe = load_recipe(options.recipe, options.overrides)
    size = cast(int, recipe.model.args.get("image_size", 1008))
    axes = {
        Axis.SLOTS: options.slots,
        Axis.OBJECTS: options.objects,
        Axis.IMAGE_SIZE: default_sizes(size) if options.image_sizes is None else options.image_sizes,
    }
    compiler = PointCompiler(options.recipe, options.overrides, options.target, options.cache, options.checkpoint)
    points: dict[Axis, list[Point]] = {}
    for axis, xs in axes.items():
        for x in sorted(set(xs)):
            start = time.perf_counter()
            points.setdefault(axis, []).append(compiler.point(axis, x, progress))
            say(f"{axis} {x}: compiled or found in {time.perf_counter() - start:.1f} s")
    return CurvesResult(
        recipe=recipe.name,
        overrides=options.overrides,
        target=options.target,
        engine=engine,
        repeats=options.repeats,
        threads=options.threads,
        machine=machine,
        curves=tuple(_curve(axis, found, engine, options, progress) for axis, found in points.items()),
    )


def default_sizes(size: int) -> tuple[int, ...]:
    """Half, three quarters and all of `size`, as multiples that the model takes."""
    return tuple(max(IMAGE_MULTIPLE, round(size * share / IMAGE_MULTIPLE) * IMAGE_MULTIPLE) for share in IMAGE_SHARES)


def _curve(axis: Axis, points: Sequence[Point], engine: Engine, options: CurvesOptions, progress: Progress) -> Curve:
    runs = {}
    for point in points:
        progress(f"{axis} {point.x}: load and warm up")
        runs[point.x] = open_graph(engine, point.graph, point.feeds, options.threads).run
        runs[point.x]()
    timings = alternate(runs, options.repeats, lambda what: progress(f"{axis}: {what}"))
    del runs
    first = timings[points[0].x].median
    found = tuple(
        CurvePoint(
            x=point.x,
            overrides=point.overrides,
            timing=timings[point.x],
            median=timings[point.x].median,
            least=timings[point.x].least,
            times_first=timings[point.x].median / first,
            flops=graph_facts(point.graph).flops,
        )
        for point in points
    )
    xs = [point.x for point in found]
    return Curve(
        axis,
        found,
        fit_power_law(xs, [point.median for point in found]),
        fit_power_law(xs, [point.flops for point in found]),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(positive(part) for part in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`."""
    parser = basic_parser(
        "curves",
        "Measure a compiled tracking step with a full bank against slots, objects and image size.",
        "--json curves.json --plot curves.png",
    )
    points = "points, or 'none' (default: {})"
    parser.add_argument("--slots", type=_numbers, default=SLOTS, metavar="N,N", help=points.format("2,4,7,10,16"))
    parser.add_argument("--objects", type=_numbers, default=OBJECTS, metavar="N,N", help=points.format("1,2,4,8"))
    parser.add_argument(
        "--image-sizes", type=_numbers, metavar="N,N", help=points.format("a half, three quarters, all of the recipe's")
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipe at all points"
    )
    parser.add_argument("--target", default="ort-cpu", help="which graphs to measure (default: ort-cpu)")
    parser.add_argument(
        "--cache", type=Path, default=Path("dist/curves"), metavar="DIR", help="artifacts (default: dist/curves)"
    )
    args = parser.parse_args(argv)
    return run_benchmark(
        args,
        lambda progress: measure_curves(_options(args), progress, Console(stderr=True, highlight=False).print),
        print_curves_report,
        lambda result, args: plot_curves(result, args.plot),
    )


def _options(args: argparse.Namespace) -> CurvesOptions:
    return CurvesOptions(
        recipe=args.recipe,
        slots=args.slots,
        objects=args.objects,
        image_sizes=args.image_sizes,
        overrides=tuple(args.set),
        target=args.target,
        cache=args.cache,
        checkpoint=args.checkpoint,
        repeats=args.repeats,
        threads=args.threads,
    )
