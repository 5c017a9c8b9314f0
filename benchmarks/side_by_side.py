"""One piece of work in several variants, side by side: eager PyTorch, a straightforward export, compiled graphs.

All are timed in turn in one process, each graph with its engine's default optimisation and bound inputs; matrix
products in the same engines are timed among them. Their memory is measured before, each alone in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.alone import measure_alone
from benchmarks.engines import Engine, open_graph
from benchmarks.gemm_peak import gemm_steps, measured_peaks
from benchmarks.graph_facts import graph_facts
from benchmarks.graph_step import Array
from benchmarks.measure import Timing, alternate
from benchmarks.operator_profile import profile_graph
from benchmarks.options import Options
from benchmarks.output_agreement import masks_equal, output_errors
from benchmarks.variant_result import Absent, Measured, VariantResult
from benchmarks.work_variant import BOTH_NECKS, EAGER, EagerVariant, GraphVariant, Progress, WorkVariant

__all__ = ["measure_side_by_side"]

PRODUCTS_A_TURN = 3
"""Times that each matrix product runs a turn: they are short beside the variants."""

Outputs = Mapping[str, Array]
Present = Mapping[str, EagerVariant | GraphVariant]


@dataclass(frozen=True)
class _Runs:
    """By name, errors and masks against eager's outputs; by variant, times; by engine, FLOP/s of matrix products."""

    errors: Mapping[str, Mapping[str, float]]
    masks: Mapping[str, Mapping[str, float]]
    timings: Mapping[str, Timing]
    peaks: Mapping[Engine, float]


def measure_side_by_side(
    variants: Mapping[str, WorkVariant],
    straightforward: Path,
    options: Options,
    *,
    comparable: Callable[[Outputs], Outputs] = lambda outputs: outputs,
    progress: Progress = lambda _: None,
) -> Measured:
    """Measure the variants that `options.selection` takes. `EAGER`, which all are compared with, must be among them and
    is taken in any case. `straightforward`: the graph whose FLOPs are the unit; variants that run it are what others in
    their engine are compared with.

    `comparable` brings a variant's outputs under the names that eager's have; more names do no harm.
    `options.threads`: of the graphs and of the processes for their memory; PyTorch's are the caller's to set. Raises
    VerificationError for outputs of another shape or dtype, and SamonnxError for a pattern that fits nothing and when a
    variant fails that may not.
    """
    options.selection.check(list(variants))
    taken = {name: one for name, one in variants.items() if name == EAGER or options.selection.takes(name)}
    absent = {name: one for name, one in taken.items() if isinstance(one, Absent)}
    present = {name: one for name, one in taken.items() if not isinstance(one, Absent)}
    bytes_alone, failed = measure_alone(present, options.threads, progress)
    absent |= failed
    present = {name: one for name, one in present.items() if name not in failed}
    runs = _run(present, options, comparable, progress)
    unit = graph_facts(straightforward).flops
    baselines = {
        one.engine: name
        for name, one in present.items()
        if isinstance(one, GraphVariant) and one.path == straightforward
    }
    results = []
    for name, one in present.items():
        timing, graph = runs.timings[name], one if isinstance(one, GraphVariant) else None
        facts = graph_facts(graph.path) if graph else None
        flops = facts.flops if facts else unit + (one.more_flops if isinstance(one, EagerVariant) else 0)
        if profiled := options.profile and graph is not None:
            progress(f"profile {name}")
        results.append(
            VariantResult(
                name=name,
                engine=one.engine,
                timing=timing,
                median=timing.median,
                least=timing.least,
                times_eager=runs.timings[EAGER].median / timing.median,
                times_original=_ratio(runs.timings.get(BOTH_NECKS), timing),
                times_straightforward=_ratio(runs.timings.get(baselines.get(one.engine, "")), timing),
                flops=flops,
                flops_share=flops / unit if unit else 0.0,
                gemm_peak=runs.peaks[one.engine],
                roofline_share=flops / timing.median / runs.peaks[one.engine],
                graph=facts,
                peak_bytes=bytes_alone.get(name),
                errors=runs.errors[name],
                masks_equal=runs.masks[name],
                operators=profile_graph(graph.path, graph.feeds, options.threads, graph.engine)
                if profiled and graph
                else (),
            )
        )
    return Measured(tuple(results), tuple(absent[name] for name in taken if name in absent))


def _run(present: Present, options: Options, comparable: Callable[[Outputs], Outputs], progress: Progress) -> _Runs:
    """Load all, compare outputs, time all in turn. What is loaded is gone afterwards."""
    progress("warm up eager")
    eager = present[EAGER]
    assert isinstance(eager, EagerVariant)
    expected = comparable(eager.step())
    errors: dict[str, dict[str, float]] = {EAGER: {}}
    masks: dict[str, dict[str, float]] = {EAGER: {}}
    steps: dict[str, Callable[[], object]] = {EAGER: eager.step}
    for name, one in present.items():
        if name == EAGER:
            continue
        progress(f"load {name}, compare its outputs")
        if isinstance(one, GraphVariant):
            runner = open_graph(one.engine, one.path, one.feeds, options.threads)
            found, steps[name] = comparable(runner()), runner.run
        else:
            found, steps[name] = comparable(one.step()), one.step
        errors[name], masks[name] = output_errors(found, expected), masks_equal(found, expected)
    with tempfile.TemporaryDirectory(prefix="samonnx-") as scratch:
        products = gemm_steps(dict.fromkeys(one.engine for one in present.values()), options.threads, Path(scratch))
        labels = {
            f"{engine}: matrix product {shape}, {number + 1}": (engine, shape)
            for number in range(PRODUCTS_A_TURN)
            for engine, shape in products
        }
        everything = steps | {label: products[key] for label, key in labels.items()}
        timings = alternate(everything, options.repeats, progress)
    peaks = measured_peaks((*key, timings[label]) for label, key in labels.items())
    return _Runs(errors, masks, {name: timings[name] for name in steps}, peaks)


def _ratio(reference: Timing | None, timing: Timing) -> float | None:
    return None if reference is None else reference.median / timing.median
