"""Each variant alone in a process of its own, before any is loaded beside others: its peak memory, and whether it runs
at all."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import peak_memory_of
from benchmarks.variant_result import Absent
from benchmarks.work_variant import EagerVariant, GraphVariant, Progress
from samonnx.errors import SamonnxError

__all__ = ["measure_alone"]


def measure_alone(
    variants: Mapping[str, EagerVariant | GraphVariant], threads: int, progress: Progress
) -> tuple[dict[str, int], dict[str, Absent]]:
    """Peak bytes by name, and the variants that failed and may. Raises SamonnxError when one fails that may not."""
    peaks: dict[str, int] = {}
    failed: dict[str, Absent] = {}
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        feeds = Path(scratch) / "feeds.npz"
        for name, variant in variants.items():
            if isinstance(variant, GraphVariant):
                np.savez(feeds, allow_pickle=False, **variant.feeds)
                graph = str(variant.path.resolve())
                arguments: tuple[str, ...] = ("graph", variant.engine.value, graph, str(feeds), str(threads))
                limit = None
            elif variant.alone is not None:
                arguments, limit = variant.alone, variant.trial
            else:
                continue
            progress(f"peak memory of {name} alone")
            try:
                peaks[name] = peak_memory_of(arguments, limit)
            except SamonnxError as error:
                if not variant.may_fail:
                    raise
                failed[name] = Absent(name, variant.engine, f"does not run: {str(error).splitlines()[0]}")
    return peaks, failed
