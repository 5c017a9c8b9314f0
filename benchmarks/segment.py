"""Image, words and a box in, detections out, side by side: eager PyTorch, a straightforward export, and each target of
the compiled artifact; all at once (`segment`), and the parts alone (`encode_text`, `encode_image`, `ground`).

python -m benchmarks segment recipes/efficientsam3_m0_9.yaml --repeats 5 --profile --json segment.json

With the image's features kept, a further text costs `encode_text` and `ground`. Programs are measured one after the
other, so that the sessions of one program alone are in memory at a time; the variants of a program, in turn. The
straightforward export is made with ROI pooling in plain operators, since with the operator it does not run
(`benchmarks.straightforward_program`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
import torch

from benchmarks.arguments import benchmark_parser, option_values
from benchmarks.artifact import recipe_artifact
from benchmarks.bar_plot import plot_bars
from benchmarks.detection_inputs import detection_inputs
from benchmarks.eager import levels_read_by_detection
from benchmarks.graph_variants import graph_variants
from benchmarks.machine import machine_facts
from benchmarks.options import Options
from benchmarks.program_variants import eager_variants
from benchmarks.reporting import run_benchmark
from benchmarks.segment_report import print_segment_report, segment_title
from benchmarks.segment_result import ProgramResult, SegmentResult
from benchmarks.side_by_side import measure_side_by_side
from benchmarks.straightforward_program import export_whole_program
from benchmarks.variant_result import Measured
from benchmarks.work_variant import GraphVariant, Progress
from samonnx.build_model import build_model
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import load_recipe
from samonnx.verify_clip import ENCODER_TOLERANCE

__all__ = ["main", "measure_segment"]

PART_TOLERANCE = 1e-3
"""Ten times what compiling allows on the inputs that it tries; a wrong wiring shows as 0.1 and more."""

TOLERANCES: Mapping[str, float | None] = MappingProxyType(
    {"segment": None, "encode_text": PART_TOLERANCE, "encode_image": ENCODER_TOLERANCE, "ground": PART_TOLERANCE}
)
"""The programs, and what their outputs are held to. Those of `segment` to nothing: they carry the image encoder's
rounding on, which seeded weights may magnify to any size; compiling has compared them given the same trunk map."""


def measure_segment(options: Options, progress: Progress = lambda _: None) -> SegmentResult:
    """Run the benchmark. Raises SamonnxError for an artifact that is not of this recipe or has no `segment`, and what
    compiling raises."""
    torch.set_num_threads(options.threads)
    machine = machine_facts()
    recipe = load_recipe(options.recipe)
    progress("compile, if the artifact is absent")
    folder, manifest = recipe_artifact(options.recipe, recipe, options.artifact, options.checkpoint)
    manifest.program("segment")
    progress("build the module")
    model = cast(EfficientSAM3, build_model(recipe, options.checkpoint).module)
    feeds = detection_inputs(model, manifest.detecting())
    programs = {program.name: program for program in recipe_programs(model, recipe)}
    results = []
    for name, tolerance in TOLERANCES.items():
        if manifest.has_program(name):
            files = {target: folder / file for target, file in manifest.program(name).files.items()}
            measured = _measure_program(programs[name], files, feeds, model, options, progress)
            results.append(ProgramResult(name, tolerance, measured.variants, measured.absent))
    return SegmentResult(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        weights=manifest.weights.source,
        repeats=options.repeats,
        threads=options.threads,
        machine=machine,
        programs=tuple(results),
    )


def _measure_program(
    program: Program,
    files: Mapping[str, Path],
    feeds: Mapping[str, Array],
    model: EfficientSAM3,
    options: Options,
    progress: Progress,
) -> Measured:
    feeds = {port.name: feeds[port.name] for port in program.inputs}

    def note(what: str) -> None:
        progress(f"{program.name}: {what}" if what else "")

    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        note("straightforward export")
        exported, stored = Path(scratch) / "straightforward.onnx", Path(scratch) / "feeds.npz"
        export_whole_program(program, feeds, exported)
        np.savez(stored, allow_pickle=False, **feeds)
        read = levels_read_by_detection(model) if "image" in feeds else []
        return measure_side_by_side(
            eager_variants(program, feeds, stored, model, read, options)
            | graph_variants(GraphVariant(exported, feeds), files, feeds, options.selection, note),
            exported,
            options,
            progress=note,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when outputs disagree (everything is written first)."""
    args = benchmark_parser(
        "segment",
        "Measure the way from image, words and a box to detections, and its parts: eager PyTorch, a straightforward "
        "export, and the compiled graphs.",
    ).parse_args(argv)
    options = Options(**option_values(args))
    return run_benchmark(
        args,
        lambda progress: measure_segment(options, progress),
        print_segment_report,
        lambda result, args: plot_bars(segment_title(result), _panels(result), args.plot),
        _disagreement,
    )


def _panels(result: SegmentResult) -> dict[str, Measured]:
    return {program.program: program.measured for program in result.programs}


def _disagreement(result: SegmentResult) -> str:
    names = ", ".join(program.program for program in result.programs if not program.agrees)
    return f"outputs of {names} differ between variants by more than they may, see the table" if names else ""
