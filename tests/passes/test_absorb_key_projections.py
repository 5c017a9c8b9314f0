from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.absorb_key_projections import AbsorbKeyProjections
from samonnx.passes.evaluation import run_model
from samonnx.passes.graph_values import static_shape
from samonnx.passes.lower.onnx import LowerOnnx
from tests.passes.attention_oracle import largest_error, random_feeds, reference
from tests.passes.projected_attention import ProjectedAttention, assert_law, sizes

FEW_QUERIES = ProjectedAttention(batch=2, queries=3, keys=40)
"""Heads of 4 channels, sources of 6 and 5: 6 rows times 11 channels a key take the place of 16 projected ones."""
PASS = AbsorbKeyProjections()


def attentions(model: ir.Model) -> list[tuple[int, ...] | None]:
    """The shapes of what attentions give."""
    return [static_shape(node.outputs[0]) for node in model.graph if node.op_type == "Attention"]


@settings(max_examples=40, deadline=None)
@given(attention=sizes(queries=st.integers(1, 4), keys=st.integers(5, 60)), seed=st.integers(0, 99))
def test_it_computes_the_same_with_no_more_work(attention: ProjectedAttention, seed: int) -> None:
    model = attention.model(seed=seed)
    before = attentions(model)
    after = assert_law(PASS, model, seed)
    if attention.mask or attention.heads == 1:
        assert attentions(after) == before


def test_heads_become_queries_of_one_head() -> None:
    after = assert_law(PASS, FEW_QUERIES.model())
    assert attentions(after) == [(2, 1, 2 * 3, 5)]
    assert not [node for node in after.graph if set(node.inputs) & {after.graph.initializers.get("kb")}]
    before = graph_statistics(FEW_QUERIES.model()).flops
    saved = 2 * (40 * (6 + 5) * 8 + 2 * 3 * 40 * 8) - 2 * (2 * 3 * 4 * 11 + 2 * 3 * 40 * 11)
    assert graph_statistics(after).flops == before - 2 * saved


def test_keys_that_the_batch_shares_are_attended_by_its_queries_together() -> None:
    after = assert_law(PASS, ProjectedAttention(batch=3, queries=3, keys=90, single=frozenset("kv")).model())
    assert attentions(after) == [(1, 1, 3 * 2 * 3, 5)]


def test_it_computes_the_same_in_an_engine() -> None:
    model = FEW_QUERIES.model()
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert PASS(model).modified
    LowerOnnx()(model)
    assert largest_error(wanted, run_model(model, feeds)) <= PASS.tolerance


def test_the_scale_of_a_head_is_kept_where_none_is_given() -> None:
    after = assert_law(PASS, ProjectedAttention(queries=2, keys=60, channels=3, scale="").model())
    assert attentions(after) == [(1, 1, 4, 5)]


def test_what_the_attention_gives_may_be_an_output_and_keeps_its_name() -> None:
    model = FEW_QUERIES.model(("y) <", "y, float[2,2,3,4] a) <"))
    after = assert_law(PASS, model)
    assert attentions(after) == [(2, 1, 6, 5)]
    assert [value.name for value in after.graph.outputs] == ["y", "a"]


@pytest.mark.parametrize("what", ["ks", "kr", "k", "vs", "vr", "v"])
def test_a_projection_that_others_read_is_not_saved(what: str) -> None:
    """It pays without the second reader only."""
    attention = ProjectedAttention(batch=2, queries=7, keys=60)
    assert attentions(assert_law(PASS, attention.model())) == [(2, 1, 14, 5)]
    rank = "b,s,c" if what.endswith("s") else "b,s,h,c"
    declined(attention.model(("y) <", f"y, float[{rank}] z2) <"), ("y = Add", f"z2 = Neg({what}) y = Add")))


@pytest.mark.parametrize("mask", ["float a key", "bool a key", "expanded", "float a query"])
def test_masks_are_declined(mask: str) -> None:
    declined(ProjectedAttention(batch=2, queries=3, keys=40, mask=mask).model())


def declined(model: ir.Model) -> None:
    before = ir.to_onnx_text(model)
    assert not PASS(model).modified
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("an activation in front of the heads", "ks = Add(kp, kb)", "kn = Add(kp, kb) ks = Relu(kn)"),
        ("an activation behind them", "k = Identity(kt)", "k = Relu(kt)"),
        ("a weight that is an input", "vp = MatMul(vx, vw)", "vp = MatMul(vx, free)"),
        ("a bias that is an input", "vs = Add(vp, vb)", "vs = Add(vp, some)"),
        ("heads that are rows", "kt = Transpose <perm = [0, 2, 1, 3]> (kr)", "kt = Reshape(kr, apart)"),
        ("heads cut before", "kr = Reshape(ks, kcut)", "kn = Reshape(ks, flat) kr = Reshape(kn, kcut)"),
        ("rows of a flat product", "kp = MatMul(kx, kw)", "kn = Reshape(kx, rows) kp = Gemm(kn, kw)"),
        ("a causal mask", "Attention <scale = 0.3>", "Attention <is_causal = 1>"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    shapes = "int64[4] apart = {2, 2, 40, 4}, int64[2] flat = {80, 8}, int64[2] rows = {80, 6}"
    inputs = ("[5,8] vw", "[5,8] free, float[8] some, float[5,8] vw")
    declined(FEW_QUERIES.model((old, new), inputs, ("> {", f", {shapes}> {{")))


def test_keys_of_the_batch_and_values_that_it_shares_are_declined() -> None:
    declined(ProjectedAttention(batch=2, queries=3, keys=90, single=frozenset("k")).model())


def test_many_queries_stay_projected() -> None:
    declined(ProjectedAttention(queries=40, keys=40).model())


def test_one_head_is_left_to_another_pass() -> None:
    declined(ProjectedAttention(heads=1, queries=2, keys=90, channels=8, value_channels=8, width=2).model())
