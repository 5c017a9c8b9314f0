"""How fast an engine multiplies float32 matrices on this machine: the roof that variants in the same engine are held
against.

Measured in the same run, in turn with the variants, so that what slows the machine slows both. The peak is the best
that was seen: a share of it is never flattered by a slow moment of the roof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.engines import Engine, open_graph
from benchmarks.graph_step import Array
from benchmarks.measure import Timing

__all__ = ["SHAPES", "GemmShape", "gemm_steps", "measured_peaks"]


@dataclass(frozen=True)
class GemmShape:
    """[rows, inner] x [inner, columns]."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns

    def __str__(self) -> str:
        return f"{self.rows}×{self.inner}×{self.columns}"


SHAPES = (GemmShape(2048, 2048, 2048), GemmShape(5184, 256, 2048), GemmShape(1024, 1024, 1024))
"""A large square; queries on a block of keys; a small square, which is over before another process takes a core."""

Steps = dict[tuple[Engine, GemmShape], Callable[[], object]]


def gemm_steps(engines: Iterable[Engine], threads: int, scratch: Path, shapes: Iterable[GemmShape] = SHAPES) -> Steps:
    """Each shape in each engine, loaded and run once. Graphs are written to the folder `scratch`."""
    steps: Steps = {}
    random = np.random.default_rng(0)
    for shape in shapes:
        path = scratch / f"gemm-{shape.rows}-{shape.inner}-{shape.columns}.onnx"
        ir.save(_product(shape), path)
        feeds = {
            "left": random.standard_normal((shape.rows, shape.inner), dtype=np.float32),
            "right": random.standard_normal((shape.inner, shape.columns), dtype=np.float32),
        }
        for engine in engines:
            if engine is Engine.PYTORCH:
                step = _torch_product(feeds["left"], feeds["right"])
            else:
                step = open_graph(engine, path, feeds, threads).run
            step()
            steps[engine, shape] = step
    return steps


def measured_peaks(timings: Iterable[tuple[Engine, GemmShape, Timing]]) -> dict[Engine, float]:
    """FLOP/s: the best of all shapes and repeats, by engine."""
    peaks: dict[Engine, float] = {}
    for engine, shape, timing in timings:
        peaks[engine] = max(peaks.get(engine, 0.0), shape.flops / timing.least)
    return peaks


def _product(shape: GemmShape) -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        gemm (float[{shape.rows},{shape.inner}] left, float[{shape.inner},{shape.columns}] right)
          => (float[{shape.rows},{shape.columns}] product) {{ product = MatMul(left, right) }}"""
    )


def _torch_product(left: Array, right: Array) -> Callable[[], object]:
    import torch

    given = torch.from_numpy(left), torch.from_numpy(right)
    product = torch.empty(left.shape[0], right.shape[1])
    return lambda: torch.mm(*given, out=product)
