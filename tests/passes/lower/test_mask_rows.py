from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import EliminateDead
from samonnx.passes.lower.mask_rows import mask_rows
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed

RELATIVE = """({dtype}[{batch},{queries},{down},1] a, {dtype}[{batch},{queries},1,{right}] b)
=> ({dtype}[{batch},{queries},{keys}] m) <int64[3] shape = {{{batch}, {queries}, {keys}}}> {{
    s = Add(a, b)
    m = Reshape(s, shape)
}}"""
ATTENTION = """(float[2,3,6,4] q, float[2,3,6,4] k, float[2,3,6,2,1] a, float[2,3,6,1,3] b) => (float[2,3,6,4] y)
<int64[4] shape = {2, 3, 6, 6}> {
    s = Add(a, b)
    m = Reshape(s, shape)
    y = Attention(q, k, k, m)
}"""


def cut(model: ir.Model, start: int, stop: int) -> ir.Model:
    """The output's rows in its place; what is not read any more is gone."""
    build = NodeBuilder(model.graph, "new", None)
    rows = mask_rows(build, model.graph.outputs[0], start, stop)
    model.graph.outputs[0] = rows
    rows.name = "rows"
    rows.type = model.graph.inputs[0].type
    EliminateDead()(model)
    infer_shapes(model)
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    batch=st.integers(1, 3),
    queries=st.integers(1, 6),
    down=st.integers(1, 3),
    right=st.integers(1, 3),
    ends=st.tuples(st.integers(0, 5), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_terms_are_cut_before_they_are_added(
    dtype: str, batch: int, queries: int, down: int, right: int, ends: tuple[int, int], seed: int
) -> None:
    start, stop = min(ends[0], queries - 1), min(max(ends), queries)
    start = min(start, stop - 1)
    text = RELATIVE.format(dtype=dtype, batch=batch, queries=queries, down=down, right=right, keys=down * right)
    model = typed(text)
    feeds = random_feeds(model, seed)
    wanted = {"rows": reference(model, feeds)["m"][:, start:stop]}
    cut(model, start, stop)
    assert operators(model) == ["Slice", "Slice", "Add", "Reshape"]
    assert largest_error(wanted, reference(model, feeds)) == 0


def test_the_whole_mask_is_never_made_for_an_attention_in_blocks() -> None:
    model = typed(ATTENTION)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    LowerOnnx(block_bytes=2 * 3 * 2 * 6 * 4)(model)
    EliminateDead()(model)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE["float"]
    sums = [str(node.outputs[0].shape) for node in model.graph if node.op_type == "Add"]
    assert sums.count("[2,3,2,2,3]") == 3
    assert "[2,3,6,2,3]" not in sums


def test_in_one_block_the_mask_stays_as_it_is() -> None:
    model = typed(ATTENTION)
    LowerOnnx()(model)
    assert "Slice" not in operators(model)


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("an input", "m = Identity(given)"),
        ("a product", "s = Mul(a, b) m = Reshape(s, shape)"),
        ("a sum in shape", "s = Reshape(a6, shape) m = Add(s, given)"),
        ("a term that broadcasts along the queries", "s = Add(a, one) m = Reshape(s, shape)"),
        ("a term of lower rank", "s = Add(a, low) m = Reshape(s, shape)"),
        ("queries that another axis joins", "t = Add(turned, b) m = Reshape(t, shape)"),
        ("rows that are keys", "s = Add(c, d) m = Reshape(s, shape)"),
    ],
)
def test_another_mask_is_cut_as_a_whole(what: str, body: str) -> None:
    model = typed(
        f"""(float[2,6,2,1] a, float[2,6,1,3] b, float[2,6,2,3] a6, float[2,6,6] given, float[2,1,1,3] one,
        float[6,1,3] low, float[2,1,2,3] turned, float[2,2,3,6] c, float[2,2,3,1] d) => (float[2,6,6] m)
        <int64[3] shape = {{2, 6, 6}}> {{ {body} }}"""
    )
    feeds = random_feeds(model, 0)
    wanted = {"rows": reference(model, feeds)["m"][:, 1:4]}
    cut(model, 1, 4)
    assert operators(model)[-1] == "Slice", what
    assert largest_error(wanted, reference(model, feeds)) == 0
