"""One piece of work in several variants, side by side: eager PyTorch, a straightforward export, compiled graphs.

All are timed in turn in one process, each graph in ONNX Runtime with its default optimisation and bound inputs and
outputs. Their memory is measured before, each alone in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.graph_facts import graph_facts
from benchmarks.graph_step import Array, GraphStep
from benchmarks.measure import Timing, alternate
from benchmarks.operator_profile import profile_graph
from benchmarks.peak_memory import peak_memory_of
from benchmarks.variant_result import VariantResult
from samonnx.verify import compare

__all__ = ["EAGER", "STRAIGHTFORWARD", "EagerVariant", "GraphVariant", "Progress", "measure_side_by_side"]

EAGER, STRAIGHTFORWARD = "eager", "straightforward"

Progress = Callable[[str], None]
Step = Callable[[], Mapping[str, Array]]


@dataclass(frozen=True)
class EagerVariant:
    """`step` does the work and returns its outputs; `alone`: arguments of `benchmarks.peak_memory` that do the same
    (None: memory is not measured); `more_flops`: what it does beyond the straightforward export."""

    step: Step
    alone: tuple[str, ...] | None = None
    more_flops: int = 0


@dataclass(frozen=True)
class GraphVariant:
    """A graph file and its inputs, perhaps among others."""

    path: Path
    feeds: Mapping[str, Array]


def measure_side_by_side(
    eager: Mapping[str, EagerVariant],
    graphs: Mapping[str, GraphVariant],
    *,
    repeats: int,
    threads: int,
    profile: bool = False,
    comparable: Callable[[Mapping[str, Array]], Mapping[str, Array]] = lambda outputs: outputs,
    progress: Progress = lambda _: None,
) -> tuple[VariantResult, ...]:
    """Measure all variants, eager ones first. `EAGER` and `STRAIGHTFORWARD`, which all are compared with, must be among
    them.

    `comparable` brings a variant's outputs under the names that eager's have; more names do no harm. `threads`: of the
    graphs and of the processes for their memory; PyTorch's are the caller's to set. Raises VerificationError for
    outputs of another shape or dtype, and SamonnxError when a process for memory fails.
    """
    peaks = _peaks(eager, graphs, threads, progress)
    eager_steps = {name: variant.step for name, variant in eager.items()}
    sessions: dict[str, GraphStep] = {}
    for name, graph in graphs.items():
        progress(f"load {name}")
        sessions[name] = GraphStep(graph.path, graph.feeds, threads)
    progress("warm up and compare outputs")
    steps: dict[str, Step] = {**eager_steps, **sessions}
    expected = comparable(steps[EAGER]())
    errors = {name: {} if name == EAGER else _errors(comparable(step()), expected) for name, step in steps.items()}
    runs = {name: session.run for name, session in sessions.items()}
    timings = alternate({**eager_steps, **runs}, repeats, progress)
    del steps, sessions, runs, expected
    facts = {name: graph_facts(graph.path) for name, graph in graphs.items()}
    unit = facts[STRAIGHTFORWARD].flops
    flops = {name: unit + variant.more_flops for name, variant in eager.items()}
    flops |= {name: fact.flops for name, fact in facts.items()}
    variants = []
    for name, timing in timings.items():
        profiled = profile and name in graphs
        progress(f"profile {name}" if profiled else "")
        variants.append(
            VariantResult(
                name=name,
                timing=timing,
                median=timing.median,
                least=timing.least,
                times_eager=_ratio(timings[EAGER], timing),
                times_straightforward=_ratio(timings[STRAIGHTFORWARD], timing),
                flops=flops[name],
                flops_share=flops[name] / unit if unit else 0.0,
                graph=facts.get(name),
                peak_bytes=peaks.get(name),
                errors=errors[name],
                operators=profile_graph(graphs[name].path, graphs[name].feeds, threads) if profiled else (),
            )
        )
    return tuple(variants)


def _peaks(
    eager: Mapping[str, EagerVariant], graphs: Mapping[str, GraphVariant], threads: int, progress: Progress
) -> dict[str, int]:
    """Before any session is loaded here, so that no more than one is in memory at a time."""
    alone = {name: variant.alone for name, variant in eager.items() if variant.alone is not None}
    peaks = {}
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        feeds = Path(scratch) / "feeds.npz"
        for name in (*alone, *graphs):
            progress(f"peak memory of {name} alone")
            if name in graphs:
                np.savez(feeds, allow_pickle=False, **graphs[name].feeds)
                peaks[name] = peak_memory_of(("graph", str(graphs[name].path.resolve()), str(feeds), str(threads)))
            else:
                peaks[name] = peak_memory_of(alone[name])
    return peaks


def _errors(found: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    return {name: compare(name, found[name], array, tolerance=0.0).largest_error for name, array in expected.items()}


def _ratio(reference: Timing, timing: Timing) -> float:
    return reference.median / timing.median
