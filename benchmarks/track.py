"""One tracking step, side by side: eager PyTorch, a straightforward export, and each target of the compiled artifact.

python -m benchmarks track recipes/efficientsam3_m0_9.yaml --repeats 5 --profile --json track.json

All variants take the same frame with the same bank and are timed in turn in one process; each graph runs in ONNX
Runtime with its default optimisation and bound inputs and outputs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from benchmarks.arguments import benchmark_parser, positive
from benchmarks.artifact import recipe_artifact
from benchmarks.eager import EagerStep
from benchmarks.machine import machine_facts
from benchmarks.side_by_side import (
    EAGER,
    STRAIGHTFORWARD,
    EagerVariant,
    GraphVariant,
    Progress,
    measure_side_by_side,
)
from benchmarks.situation import Situation, full_bank_length, make_situation
from benchmarks.straightforward import export_straightforward
from benchmarks.track_report import print_track_report
from benchmarks.track_result import TrackResult
from samonnx.build_model import build_model
from samonnx.errors import VerificationError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.track import track_program
from samonnx.recipe import MemorySpec, load_recipe

__all__ = ["TrackOptions", "main", "measure_track"]

ONE_OBJECT = ("programs.track.objects=1",)

TOLERANCE = 1e-2
"""For the agreement of all outputs. Wide: squeeze-excite gates of seeded full-size encoders magnify float32 rounding
to 2e-3 on some frames; a wrong wiring shows as 0.1 and more."""

BOTH_NECKS = "eager, 2 necks"

SEEDS_TRIED = 8


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
    model = cast(EfficientSAM3, build_model(recipe, options.checkpoint).module)
    length = options.frames or full_bank_length(recipe.memory)
    progress("find a bank with the object in sight")
    situation, seed = _in_sight(model, recipe.memory, length)
    eager, original = EagerStep(model, situation), EagerStep(model, situation, both_necks=True)
    program = track_program(model, recipe.memory, recipe.programs["track"])
    feeds = situation.program_feeds(program, recipe.memory)
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        progress("straightforward export")
        exported = Path(scratch) / "straightforward.onnx"
        graphs = {STRAIGHTFORWARD: GraphVariant(exported, export_straightforward(model, situation, exported))}
        for target, file in manifest.program("track").files.items():
            graphs[target] = GraphVariant(folder / file, feeds)
        variants = measure_side_by_side(
            {
                EAGER: EagerVariant(eager, _alone(options, length, seed)),
                BOTH_NECKS: EagerVariant(original, more_flops=original.unread_flops()),
            },
            graphs,
            repeats=options.repeats,
            threads=options.threads,
            profile=options.profile,
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
        object_score=float(eager()["object_score"][0, 0]),
        tolerance=TOLERANCE,
        machine=machine,
        variants=variants,
    )


def _in_sight(model: EfficientSAM3, memory: MemorySpec, length: int) -> tuple[Situation, int]:
    """The first seeded bank with which the object is found: an absent one makes masks and pointer constant, and their
    comparison empty. The first bank if there is none among a few."""
    for seed in range(SEEDS_TRIED):
        situation = make_situation(model, memory, length, seed)
        if EagerStep(model, situation)()["object_score"][0, 0] > 0:
            return situation, seed
    return make_situation(model, memory, length), 0


def _alone(options: TrackOptions, length: int, seed: int) -> tuple[str, ...]:
    checkpoint = () if options.checkpoint is None else (str(options.checkpoint.resolve()),)
    return ("eager-track", str(options.recipe.resolve()), str(length), str(seed), str(options.threads), *checkpoint)


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
    """The command; returns an `ExitCode`: CHECK_FAILED when outputs disagree (tables and JSON are written first)."""
    args = _arguments().parse_args(argv)
    options = TrackOptions(
        args.recipe, args.artifact, args.checkpoint, args.repeats, args.frames_in_bank, args.threads, args.profile
    )

    def body() -> int:
        with Console(stderr=True).status("") as status:
            result = measure_track(options, status.update)
        print_track_report(result, Console())
        if args.json is not None:
            args.json.write_text(result.to_json())
        if not result.agrees:
            raise VerificationError(f"the variants' outputs differ by more than {TOLERANCE:g}, see the table")
        return ExitCode.OK

    return run_command(body)
