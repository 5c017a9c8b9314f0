"""One tracking step, side by side: eager PyTorch, a straightforward export, and each target of the compiled artifact.

python -m benchmarks track recipes/efficientsam3_m0_9.yaml --repeats 5 --profile --json track.json

All variants take the same frame with the same bank and are timed in turn in one process; each graph runs in ONNX
Runtime with its default optimisation and bound inputs and outputs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console

from benchmarks.eager import EagerStep
from benchmarks.graph_facts import graph_facts
from benchmarks.graph_step import GraphStep
from benchmarks.machine import available_cores, machine_facts
from benchmarks.measure import Timing, alternate
from benchmarks.operator_profile import profile_graph
from benchmarks.peak_memory import peak_memory_of
from benchmarks.report import print_report
from benchmarks.results import TrackResult, VariantResult
from benchmarks.situation import Situation, full_bank_length, make_situation
from benchmarks.straightforward import export_straightforward
from samonnx.build_model import build_model
from samonnx.compile import CompileOptions, compile_recipe
from samonnx.errors import SamonnxError, VerificationError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.track import track_program
from samonnx.recipe import MemorySpec, Recipe, load_recipe
from samonnx.runtime.manifest import MANIFEST_NAME, Manifest
from samonnx.verify import compare

__all__ = ["TrackOptions", "main", "measure_track"]

ONE_OBJECT = ("programs.track.objects=1",)

TOLERANCE = 1e-2
"""For the agreement of all outputs. Wide: squeeze-excite gates of seeded full-size encoders magnify float32 rounding
to 2e-3 on some frames; a wrong wiring shows as 0.1 and more."""

EAGER, BOTH_NECKS, STRAIGHTFORWARD = "eager", "eager, 2 necks", "straightforward"

SEEDS_TRIED = 8

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrackOptions:
    """`artifact`: compiled there if absent (default: dist/<recipe name>). `frames`: earlier frames of the clip; None
    fills the bank. `threads`: of every engine."""

    recipe: Path
    artifact: Path | None = None
    checkpoint: Path | None = None
    repeats: int = 5
    frames: int | None = None
    threads: int = 1
    profile: bool = False


@dataclass(frozen=True)
class _Graph:
    """A graph file and its inputs for the situation."""

    path: Path
    feeds: Mapping[str, Array]


def measure_track(options: TrackOptions, progress: Progress = lambda _: None) -> TrackResult:
    """Run the benchmark. Raises SamonnxError for an artifact that is not of this recipe, and what compiling raises."""
    torch.set_num_threads(options.threads)
    machine = machine_facts()
    recipe = load_recipe(options.recipe, ONE_OBJECT)
    progress("compile, if the artifact is absent")
    folder, manifest = _artifact(options, recipe)
    progress("build the module")
    model = cast(EfficientSAM3, build_model(recipe, options.checkpoint).module)
    length = options.frames or full_bank_length(recipe.memory)
    progress("find a bank with the object in sight")
    situation, seed = _in_sight(model, recipe.memory, length)
    program = track_program(model, recipe.memory, recipe.programs["track"])
    feeds = situation.program_feeds(program, recipe.memory)

    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        progress("straightforward export")
        exported = Path(scratch) / "straightforward.onnx"
        graphs = {STRAIGHTFORWARD: _Graph(exported, export_straightforward(model, situation, exported))}
        for target, file in manifest.program("track").files.items():
            graphs[target] = _Graph(folder / file, feeds)
        peaks: dict[str, int] = {}
        for name in (EAGER, *graphs):
            progress(f"peak memory of {name} alone")
            peaks[name] = _peak(name, graphs, options, length, seed, Path(scratch))
        eager, original = EagerStep(model, situation), EagerStep(model, situation, both_necks=True)
        steps: dict[str, Callable[[], dict[str, Array]]] = {EAGER: eager, BOTH_NECKS: original}
        for name, graph in graphs.items():
            steps[name] = GraphStep(graph.path, graph.feeds, options.threads)
        progress("warm up and compare outputs")
        outputs = {name: _comparable(step(), situation.frame_index) for name, step in steps.items()}
        timings = alternate(steps, options.repeats, progress)
        facts = {name: graph_facts(graph.path) for name, graph in graphs.items()}
        flops = {name: fact.flops for name, fact in facts.items()}
        flops[EAGER] = flops[STRAIGHTFORWARD]
        flops[BOTH_NECKS] = flops[EAGER] + original.unread_flops()
        del steps
        variants = []
        for name, timing in timings.items():
            progress(f"profile {name}" if options.profile else "")
            profiled = options.profile and name in graphs
            variants.append(
                VariantResult(
                    name=name,
                    timing=timing,
                    median=timing.median,
                    least=timing.least,
                    times_eager=_ratio(timings[EAGER], timing),
                    times_straightforward=_ratio(timings[STRAIGHTFORWARD], timing),
                    flops=flops[name],
                    flops_share=flops[name] / flops[STRAIGHTFORWARD],
                    graph=facts.get(name),
                    peak_bytes=peaks.get(name),
                    errors={} if name == EAGER else _errors(outputs[name], outputs[EAGER]),
                    operators=profile_graph(graphs[name].path, graphs[name].feeds, options.threads) if profiled else (),
                )
            )
    return TrackResult(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        weights=manifest.weights.source,
        frames=length,
        memories=len(situation.memory_frames),
        pointers=len(situation.pointer_frames),
        full_bank=length >= full_bank_length(recipe.memory),
        repeats=options.repeats,
        threads=options.threads,
        object_score=float(outputs[EAGER]["object_score"][0, 0]),
        tolerance=TOLERANCE,
        machine=machine,
        variants=tuple(variants),
    )


def _artifact(options: TrackOptions, recipe: Recipe) -> tuple[Path, Manifest]:
    folder = options.artifact or Path("dist") / recipe.name
    if not (folder / MANIFEST_NAME).exists():
        compiling = CompileOptions(checkpoint=options.checkpoint, output=folder, overrides=ONE_OBJECT)
        compile_recipe(options.recipe, compiling, Console(stderr=True, quiet=True))
    manifest = Manifest.load(folder)
    if manifest.recipe_digest != recipe.digest:
        raise SamonnxError(
            f"artifact {folder} is of recipe {manifest.recipe!r}, digest {manifest.recipe_digest[:12]}; expected "
            f"{recipe.name!r} with one object, digest {recipe.digest[:12]}. Compile the recipe again, or give another "
            f"--artifact"
        )
    return folder, manifest


def _in_sight(model: EfficientSAM3, memory: MemorySpec, length: int) -> tuple[Situation, int]:
    """The first seeded bank with which the object is found: an absent one makes masks and pointer constant, and their
    comparison empty. The first bank if there is none among a few."""
    for seed in range(SEEDS_TRIED):
        situation = make_situation(model, memory, length, seed)
        if EagerStep(model, situation)()["object_score"][0, 0] > 0:
            return situation, seed
    return make_situation(model, memory, length), 0


def _peak(name: str, graphs: Mapping[str, _Graph], options: TrackOptions, length: int, seed: int, scratch: Path) -> int:
    threads = str(options.threads)
    if name not in graphs:
        checkpoint = () if options.checkpoint is None else (str(options.checkpoint.resolve()),)
        return peak_memory_of(("eager", str(options.recipe.resolve()), str(length), str(seed), threads, *checkpoint))
    stored = scratch / "feeds.npz"
    np.savez(stored, allow_pickle=False, **graphs[name].feeds)
    return peak_memory_of(("graph", str(graphs[name].path.resolve()), str(stored), threads))


def _comparable(outputs: Mapping[str, Array], frame_index: int) -> dict[str, Array]:
    """Outputs under the names that all variants have; a program's new memory is the slot that it wrote."""
    found = {name: array.copy() for name, array in outputs.items()}
    if "next_bank.memory" in found:
        found["memory"] = found["next_bank.memory"][found["next_bank.memory_frame"] == frame_index]
    return found


def _errors(found: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    return {name: compare(name, found[name], array, TOLERANCE).largest_error for name, array in expected.items()}


def _ratio(reference: Timing, timing: Timing) -> float:
    return reference.median / timing.median


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number


def _frames(text: str) -> int | None:
    return None if text == "full" else _positive(text)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks track",
        description="Measure one tracking step: eager PyTorch, a straightforward export, and the compiled graphs.",
        epilog="example: python -m benchmarks track recipes/efficientsam3_m0_9.yaml --profile --json track.json",
    )
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/efficientsam3_m0_9.yaml"))
    parser.add_argument(
        "--artifact", type=Path, metavar="DIR", help="compiled there if absent (default: dist/<recipe name>)"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="without one the weights are seeded")
    parser.add_argument("--repeats", type=_positive, default=5, metavar="N", help="timed steps of each (default: 5)")
    parser.add_argument(
        "--frames-in-bank",
        type=_frames,
        metavar="N",
        help="earlier frames that the bank has seen (default: full, as many as fill it)",
    )
    parser.add_argument(
        "--threads", type=_positive, default=available_cores(), metavar="N", help="of every engine (default: all cores)"
    )
    parser.add_argument("--profile", action="store_true", help="also the time of each graph by operator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when outputs disagree (tables and JSON are written first)."""
    args = _arguments().parse_args(argv)
    options = TrackOptions(
        args.recipe, args.artifact, args.checkpoint, args.repeats, args.frames_in_bank, args.threads, args.profile
    )

    def body() -> int:
        with Console(stderr=True).status("") as status:
            result = measure_track(options, status.update)
        print_report(result, Console())
        if args.json is not None:
            args.json.write_text(result.to_json())
        if not result.agrees:
            raise VerificationError(f"the variants' outputs differ by more than {TOLERANCE:g}, see the table")
        return ExitCode.OK

    return run_command(body)
