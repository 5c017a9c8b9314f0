"""What somebody else writes with samonnx: every public name in use. Checked by mypy --strict, and run, in
tests/test_public_api.py."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import torch
from torch import Tensor, nn

import samonnx.passes
from samonnx import (
    Component,
    Port,
    Program,
    Recipe,
    SamonnxError,
    TypedPort,
    Wire,
    Wiring,
    compile,
    compile_recipe,
    link,
    load_recipe,
    optimize,
    trace,
    verify,
)
from samonnx.compile import CompileOptions
from samonnx.link import LinkError
from samonnx.optimize_result import OptimizeError
from samonnx.passes import (
    PASSES,
    EliminateDead,
    Exactness,
    FoldConstants,
    FuseAttention,
    GraphPass,
    GraphStatistics,
    PassDeclinedError,
    PassFailedError,
    PassObserver,
    PassReport,
    PassResult,
    PassSummary,
    PipelineResult,
    UnknownPassError,
    VerifyEach,
    assert_exact,
    graph_statistics,
    pass_by_name,
    pass_problems,
    pass_summaries,
    run_passes,
    unroll,
)
from samonnx.trace import TracedComponent, TraceError
from samonnx.verify import Comparison


class Attend(nn.Module):
    def forward(self, query: Tensor, cache: Tensor) -> Tensor:
        """[1, 1, 1, 4], [1, 1, t, 4] → [1, 1, 1, 4]."""
        return nn.functional.scaled_dot_product_attention(query, cache, cache)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


@dataclass(frozen=True)
class AddOfTwins(GraphPass):
    """x + x is 2 x.

    y = Add(x, x)  →  y = Mul(x, 2)
    """

    name: ClassVar[str] = "add_of_twins"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        twins = [node for node in model.graph if node.op_type == "Add" and node.inputs[0] is node.inputs[1]]
        for node in twins:
            value = node.inputs[0]
            if value is None or value.dtype is None:
                raise PassDeclinedError(f"node {node.name!r} has no dtype; infer shapes first")
            tensor = ir.tensor([2.0], dtype=value.dtype, name=f"{node.outputs[0].name}/two")
            two = ir.Value(name=tensor.name, type=ir.TensorType(value.dtype), const_value=tensor)
            model.graph.register_initializer(two)
            node.op_type = "Mul"
            node.replace_input_with(1, two)
        return PassResult(model, bool(twins))


@dataclass
class Progress:
    """A `PassObserver`."""

    seen: list[str]

    @property
    def wants_snapshot(self) -> bool:
        return False

    def after_pass(self, pass_: GraphPass, before: ir.Model | None, model: ir.Model, report: PassReport) -> None:
        self.seen.append(f"{pass_.name}: {report.nodes_before} → {report.nodes_after}")


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def traced_parts() -> Mapping[str, TracedComponent]:
    inputs = {"query": torch.zeros(1, 1, 1, 4), "cache": torch.zeros(1, 1, 3, 4)}
    attend = Component("attend", Attend(), inputs, ("read",), symbolic={"cache": {2: "t"}})
    double = Component("double", Double(), {"x": torch.zeros(1, 1, 1, 4)}, ("y",))
    parts = {component.name: trace(component) for component in (attend, double)}
    figures: Sequence[Comparison] = verify(attend, parts["attend"])
    assert all(figure.ok for figure in figures)
    return parts


def spliced(parts: Mapping[str, TracedComponent]) -> ir.Model:
    banked: Mapping[str, ir.Model] = {
        "attend": unroll(parts["attend"].model, symbol="t", slots=3, validity="valid"),
        "double": parts["double"].model,
    }
    wires = {"double.x": "query", "attend.query": "double.y", "attend.cache": "cache", "attend.valid": "valid"}
    inferred = Wiring.between("read", wires | {"read": "attend.read"}, banked)
    read: TypedPort = inferred.outputs[0]
    assert read == TypedPort("read", "float32", (1, 1, 1, 4))
    image, twice = (Port(name, "float32", (1, 1, 1, 4), "any numbers") for name in ("x", "twice"))
    whole = Program("twice", (image,), (twice,), (), (Wire("x", "double.x"), Wire("double.y", "twice")))
    link(whole, {"double": parts["double"]})
    try:
        link(Wiring("nothing", (), (read,), ()), {})
    except LinkError as error:
        say(error)
    return link(inferred, banked)


def rewritten(model: ir.Model) -> ir.Model:
    observers: tuple[PassObserver, ...] = (VerifyEach(), Progress([]))
    result: PipelineResult = run_passes(
        model, (AddOfTwins(), FoldConstants(), FuseAttention(), EliminateDead()), observers=observers
    )
    for report in result.reports:
        say(report.name, report.modified)
    statistics: GraphStatistics = graph_statistics(result.model)
    say(statistics.flops)
    return result.model


def passes_of_everybody() -> None:
    summaries: tuple[PassSummary, ...] = pass_summaries()
    assert len(summaries) >= len(PASSES)
    say(*pass_problems(), samonnx.passes.__name__)
    found: type[GraphPass] = pass_by_name("fold_constants")
    assert found is FoldConstants
    try:
        pass_by_name("fold_constant")
    except UnknownPassError as error:
        say(error)
    assert issubclass(PassFailedError, SamonnxError)


def recipes(path: Path, output: Path) -> None:
    recipe: Recipe = load_recipe(path)
    say(recipe.name, recipe.digest)
    options = CompileOptions(output=output, programs=("encode_text",), targets=("onnx",))
    folder: Path = compile(path, options) if output.exists() else compile_recipe(path, options)
    say(folder)


def main(recipe: str, output: str) -> None:
    parts = traced_parts()
    assert_exact(AddOfTwins(), parts["double"].model)
    model = rewritten(spliced(parts))
    try:
        found = optimize(model, target="ort-cpu", timed=False)
        say(found.kept, [comparison.largest_error for comparison in found.comparisons])
    except (OptimizeError, TraceError) as error:
        raise SystemExit(str(error)) from error
    passes_of_everybody()
    recipes(Path(recipe), Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
