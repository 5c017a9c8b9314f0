"""Graphs as text, and the oracle of the pass tests: ONNX Runtime, node by node, nothing optimised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from samonnx.passes import GraphPass
from samonnx.passes.evaluation import run_model
from samonnx.passes.interface import Array
from samonnx.passes.observers import seeded_feeds

OPSETS = 'opset_import: ["" : 23, "com.microsoft" : 1]'


def model_of(text: str) -> ir.Model:
    """A model from the text of its graph: signature, `<initialisers>` and `{nodes}`."""
    return ir.from_onnx_text(f"<ir_version: 10, {OPSETS}>\ngraph {text}")


def body_of(model: ir.Model) -> list[str]:
    """One line a node, in order: `y = Op(a, b)`; without attributes."""
    return [
        f"{', '.join(str(v.name) for v in node.outputs)} = {node.op_type}"
        f"({', '.join(str(v.name) if v is not None else '' for v in node.inputs)})"
        for node in model.graph
    ]


def constants_of(model: ir.Model) -> dict[str, object]:
    """Initialisers as lists."""
    return {
        name: value.const_value.numpy().tolist()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def ports_of(model: ir.Model) -> tuple[list[str | None], list[str | None]]:
    """Names of inputs and outputs, in order."""
    return [v.name for v in model.graph.inputs], [v.name for v in model.graph.outputs]


def assert_same_bits(
    before: ir.Model, after: ir.Model, feeds: Mapping[str, Array] | None = None, pass_: GraphPass | None = None
) -> None:
    """Both graphs have the same outputs and give the same bits on `feeds` (default: seeded)."""
    feeds = seeded_feeds(after) if feeds is None else feeds
    wanted = run_model(before, feeds if pass_ is None else pass_.feeds_before(feeds, before))
    found = run_model(after, feeds)
    assert list(wanted) == list(found)
    for name in wanted:
        assert wanted[name].dtype == found[name].dtype
        assert wanted[name].shape == found[name].shape
        assert wanted[name].tobytes() == found[name].tobytes(), f"{name}: {wanted[name]} became {found[name]}"


def special_floats(shape: tuple[int, ...]) -> Array:
    """Float32 values that show a rule which does not keep every bit: signed zeros, infinities, NaN, denormals."""
    values = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, 1.0, -2.5], np.float32)
    return np.resize(values, shape)
