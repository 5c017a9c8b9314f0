"""One tracking step, side by side: eager PyTorch, a straightforward export, and each target of the compiled artifact.

python -m benchmarks track recipes/efficientsam3_m0_9.yaml --repeats 5 --profile --json track.json --plot track.png

All variants take the same frame with the same bank and are timed in turn in one process; which there are stands in
`benchmarks.graph_variants`. `torch.compile` takes the modules wired as for the straightforward export, since the
reference tracker keeps dictionaries.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from benchmarks.arguments import benchmark_parser, option_values, positive
from benchmarks.artifact import recipe_artifact
from benchmarks.bar_plot import plot_bars
from benchmarks.eager import BothNecks, EagerStep, levels_read_by_tracking
from benchmarks.graph_variants import graph_variants
from benchmarks.machine import machine_facts
from benchmarks.options import Options
from benchmarks.reporting import run_benchmark
from benchmarks.side_by_side import measure_side_by_side
from benchmarks.situation import Situation, full_bank_length, make_situation
from benchmarks.straightforward import (
    OUTPUTS,
    StraightforwardStep,
    export_straightforward,
    straightforward_inputs,
)
from benchmarks.torch_compile import PATIENCE, CompiledModule
from benchmarks.track_report import print_track_report, track_title
from benchmarks.track_result import TrackResult
from benchmarks.work_variant import BOTH_NECKS, EAGER, TORCH_COMPILE, EagerVariant, GraphVariant, Progress, WorkVariant
from samonnx.build_model import build_model
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.tracker import TrackedModel
from samonnx.programs.track import track_program
from samonnx.recipe import MemorySpec, load_recipe

__all__ = ["TrackOptions", "main", "measure_track"]

ONE_OBJECT = ("programs.track.objects=1",)

TOLERANCE = 1e-2
"""For the agreement of all outputs. Wide: squeeze-excite gates of seeded full-size encoders magnify float32 rounding
to 2e-3 on some frames; a wrong wiring shows as 0.1 and more."""

SEEDS_TRIED = 8


@dataclass(frozen=True)
class TrackOptions(Options):
    """`frames`: earlier frames of the clip; None fills the bank."""

    frames: int | None = None


def measure_track(options: TrackOptions, progress: Progress = lambda _: None) -> TrackResult:
    """Run the benchmark. Raises SamonnxError for an artifact that is not of this recipe, and what compiling raises."""
    torch.set_num_threads(options.threads)
    machine = machine_facts()
    recipe = load_recipe(options.recipe, ONE_OBJECT)
    progress("compile, if the artifact is absent")
    folder, manifest = recipe_artifact(
        options.recipe, recipe, options.artifact, options.checkpoint, ONE_OBJECT, " with one object"
    )
    progress("build the module")
    model = cast(TrackedModel, build_model(recipe, options.checkpoint).module)
    length = options.frames or full_bank_length(recipe.memory)
    progress("find a bank with the object in sight")
    situation, seed = _in_sight(model, recipe.memory, length)
    program = track_program(model, recipe.memory, recipe.programs["track"])
    files = {target: folder / file for target, file in manifest.program("track").files.items()}
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        progress("straightforward export")
        exported = Path(scratch) / "straightforward.onnx"
        plain = GraphVariant(exported, export_straightforward(model, situation, exported))
        feeds = situation.program_feeds(program, recipe.memory)
        measured = measure_side_by_side(
            _eager_variants(model, situation, options, length, seed)
            | graph_variants(plain, files, feeds, options.selection, progress),
            exported,
            options,
            comparable=lambda outputs: _comparable(outputs, situation.frame_index),
            progress=progress,
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
        object_score=float(EagerStep(model, situation)()["object_score"][0, 0]),
        tolerance=TOLERANCE,
        machine=machine,
        variants=measured.variants,
        absent=measured.absent,
    )


def _eager_variants(
    model: TrackedModel, situation: Situation, options: TrackOptions, length: int, seed: int
) -> dict[str, WorkVariant]:
    eager = EagerStep(model, situation)
    compiled = CompiledModule(StraightforwardStep(model, situation), straightforward_inputs(situation), OUTPUTS)

    def alone(how: str) -> tuple[str, ...]:
        numbers = (str(length), str(seed), str(options.threads))
        return ("track", how, str(options.recipe.resolve()), *numbers, *options.checkpoint_arguments)

    variants: dict[str, WorkVariant] = {EAGER: EagerVariant(eager, alone("eager"))}
    if isinstance(model, EfficientSAM3):
        original = BothNecks(model, eager, levels_read_by_tracking(model))
        variants[BOTH_NECKS] = EagerVariant(original, more_flops=original.unread_flops())
    variants[TORCH_COMPILE] = EagerVariant(compiled, alone("compiled"), trial=PATIENCE)
    return variants


def _in_sight(model: TrackedModel, memory: MemorySpec, length: int) -> tuple[Situation, int]:
    """The first seeded bank with which the object is found: an absent one makes masks and pointer constant, and their
    comparison empty. The first bank if there is none among a few."""
    for seed in range(SEEDS_TRIED):
        situation = make_situation(model, memory, length, seed)
        if EagerStep(model, situation)()["object_score"][0, 0] > 0:
            return situation, seed
    return make_situation(model, memory, length), 0


def _comparable(outputs: Mapping[str, Array], frame_index: int) -> dict[str, Array]:
    """Outputs under the names that all variants have; a program's new memory is the slot that it wrote."""
    found = dict(outputs)
    if "next_bank.memory" in found:
        found["memory"] = found["next_bank.memory"][found["next_bank.memory_frame"] == frame_index]
    return found


def _frames(text: str) -> int | None:
    return None if text == "full" else positive(text)


def _arguments() -> argparse.ArgumentParser:
    parser = benchmark_parser(
        "track", "Measure one tracking step: eager PyTorch, a straightforward export, and the compiled graphs."
    )
    parser.add_argument(
        "--frames-in-bank",
        type=_frames,
        metavar="N",
        help="earlier frames that the bank has seen (default: full, as many as fill it)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when outputs disagree (everything is written first)."""
    args = _arguments().parse_args(argv)
    options = TrackOptions(**option_values(args), frames=args.frames_in_bank)
    return run_benchmark(
        args,
        lambda progress: measure_track(options, progress),
        print_track_report,
        lambda result, args: plot_bars(track_title(result), {"": result.measured}, args.plot),
        lambda result: (
            "" if result.agrees else f"the variants' outputs differ by more than {TOLERANCE:g}, see the table"
        ),
    )
