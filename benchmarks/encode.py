"""The image encoder of tracking, side by side: image → the three maps that the tracker reads (`benchmarks.tracker_maps`
says which, and what belongs to it).

python -m benchmarks encode recipes/efficientsam3_m0_9.yaml --repeats 5 --json encode.json --plot encode.png

The graphs of the recipe's targets are compiled on the spot, since no artifact has them as files of their own. Eager
computes one neck, or both with their fourth levels, as the original does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from benchmarks.arguments import benchmark_parser, option_values
from benchmarks.bar_plot import plot_bars
from benchmarks.eager import levels_read_by_tracking
from benchmarks.encode_report import encode_title, print_encode_report
from benchmarks.encode_result import EncodeResult
from benchmarks.graph_variants import graph_variants
from benchmarks.machine import machine_facts
from benchmarks.options import Options
from benchmarks.program_variants import eager_variants
from benchmarks.reporting import run_benchmark
from benchmarks.side_by_side import measure_side_by_side
from benchmarks.straightforward_program import export_whole_program
from benchmarks.tracker_maps import compile_program, tracker_maps_program
from benchmarks.work_variant import GraphVariant, Progress
from samonnx.build_model import build_model
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.recipe import load_recipe
from samonnx.verify_clip import ENCODER_TOLERANCE, normalised_frame

__all__ = ["main", "measure_encode"]


def measure_encode(options: Options, progress: Progress = lambda _: None) -> EncodeResult:
    """Run the benchmark. Raises what compiling raises."""
    torch.set_num_threads(options.threads)
    machine = machine_facts()
    recipe = load_recipe(options.recipe)
    progress("build the module")
    built = build_model(recipe, options.checkpoint)
    model = cast(EfficientSAM3, built.module)
    program = tracker_maps_program(model)
    feeds = {"image": normalised_frame(0, model.tracker.sizes.image_size)}
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        folder = Path(scratch)
        progress("compile the encoder")
        files = compile_program(program, model, recipe.targets, folder)
        progress("straightforward export")
        exported, stored = folder / "straightforward.onnx", folder / "feeds.npz"
        export_whole_program(program, feeds, exported)
        np.savez(stored, allow_pickle=False, **feeds)
        measured = measure_side_by_side(
            eager_variants(program, feeds, stored, model, levels_read_by_tracking(model), options)
            | graph_variants(GraphVariant(exported, feeds), files, feeds, options.selection, progress),
            exported,
            options,
            progress=progress,
        )
    return EncodeResult(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        weights=built.weights.source,
        repeats=options.repeats,
        threads=options.threads,
        tolerance=ENCODER_TOLERANCE,
        machine=machine,
        variants=measured.variants,
        absent=measured.absent,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns an `ExitCode`: CHECK_FAILED when maps disagree (everything is written first)."""
    args = benchmark_parser(
        "encode",
        "Measure the image encoder of tracking: eager PyTorch, a straightforward export, and the compiled graphs.",
        with_artifact=False,
    ).parse_args(argv)
    options = Options(**option_values(args))
    return run_benchmark(
        args,
        lambda progress: measure_encode(options, progress),
        print_encode_report,
        lambda result, args: plot_bars(encode_title(result), {"": result.measured}, args.plot),
        lambda result: (
            "" if result.agrees else f"the variants' maps differ by more than {result.tolerance:g}, see the table"
        ),
    )
