"""Automatic masks of one image in a fresh process, so that its peak memory is theirs alone.

python -m benchmarks.masks_run DIR PRESET WIDTH HEIGHT LAYERS REPEATS THREADS drawn|network

Prints a `PresetResult` as JSON. Without PyTorch, as users run it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.drawn_masks import DrawnMasks
from benchmarks.masks_result import PresetResult
from benchmarks.peak_memory import peak_of_this_process
from samonnx.runtime.automatic_masks.generator import AutomaticMasks, Generated
from samonnx.runtime.automatic_masks.parameters import with_preset
from samonnx.runtime.image_predictor import ImagePredictor

__all__ = ["measure_preset"]


def measure_preset(
    folder: str, preset: str, *, width: int, height: int, layers: int, repeats: int, threads: int, drawn: bool
) -> PresetResult:
    """Medians over the repeats. Before them a single point is asked for, so that all graphs are open."""
    predictor = ImagePredictor(folder, threads=threads)
    idle = peak_of_this_process()
    picture = _picture(height, width)
    AutomaticMasks(predictor, with_preset(preset, points_per_side=1)).generate(picture)
    runs, totals, processor = [], [], []
    for _ in range(repeats):
        source = DrawnMasks(predictor) if drawn else predictor
        masks = AutomaticMasks(source, with_preset(preset, crop_n_layers=layers))
        started, ticks = time.perf_counter(), time.process_time()
        generated = masks.generate(picture)
        drawing = source.seconds if isinstance(source, DrawnMasks) else 0.0
        totals.append(time.perf_counter() - started - drawing)
        processor.append(time.process_time() - ticks - drawing)
        runs.append(_stages(generated, drawing))
    return PresetResult(
        preset=preset,
        crop_layers=layers,
        passed=dataclasses.asdict(generated.passed),
        left={stage.name: stage.left for stage in generated.stages},
        seconds={name: statistics.median(run[name] for run in runs) for name in runs[0]},
        total=statistics.median(totals),
        processor=statistics.median(processor),
        code_bytes=sum(edges.nbytes for edges in generated.masks.edges),
        idle_bytes=idle,
        peak_bytes=peak_of_this_process(),
    )


def _stages(generated: Generated, drawing: float) -> dict[str, float]:
    return {stage.name: stage.seconds - (drawing if stage.name == "decode" else 0.0) for stage in generated.stages}


def _picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 256, y % 256, (x // 7 + y // 5) % 256], axis=2).astype(np.uint8)


def _main(arguments: Sequence[str]) -> int:
    folder, preset, width, height, layers, repeats, threads, source = arguments
    result = measure_preset(
        folder,
        preset,
        width=int(width),
        height=int(height),
        layers=int(layers),
        repeats=int(repeats),
        threads=int(threads),
        drawn=source == "drawn",
    )
    sys.stdout.write(json.dumps(dataclasses.asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
