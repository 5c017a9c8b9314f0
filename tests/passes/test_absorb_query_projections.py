from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.absorb_query_projections import AbsorbQueryProjections
from samonnx.passes.evaluation import run_model
from samonnx.passes.lower.onnx import LowerOnnx
from tests.passes.attention_oracle import largest_error, random_feeds, reference
from tests.passes.projected_attention import ProjectedAttention, assert_law, sizes

FEW_KEYS = ProjectedAttention(batch=2, queries=40, keys=3)
"""Heads of 4 channels: 6 columns a query take the place of 8 projected ones, before and behind the softmax."""
PASS = AbsorbQueryProjections()


def names(model: ir.Model) -> set[str]:
    """What is made of which weights: names of the new constants."""
    return {name.rpartition("/")[2] for name in model.graph.initializers if "/absorbed/" in name}


def is_absorbed(model: ir.Model) -> bool:
    return "Attention" not in [node.op_type for node in model.graph]


@settings(max_examples=50, deadline=None)
@given(attention=sizes(queries=st.integers(5, 60), keys=st.integers(1, 4)), seed=st.integers(0, 99))
def test_it_computes_the_same_with_no_more_work(attention: ProjectedAttention, seed: int) -> None:
    after = assert_law(PASS, attention.model(seed=seed), seed)
    if attention.heads == 1 or attention.mask.endswith("a query"):
        assert not is_absorbed(after)


def test_the_projections_of_queries_and_output_go_into_keys_and_values() -> None:
    model = FEW_KEYS.model()
    before = graph_statistics(model).flops
    after = assert_law(PASS, model)
    assert {"query_weight", "query_bias", "output_weight"} <= names(after)
    assert not {"qw", "qb", "z"} & set(after.graph.initializers)
    behind = 40 * 2 * 4 * (6 + 3) - 2 * 3 * (40 + 4) * 6
    front = 40 * 6 * 8 + 2 * 40 * 3 * 4 - 2 * 3 * (40 + 4) * 6 - 2 * 3 * 4
    assert graph_statistics(after).flops == before - 2 * 2 * (behind + front)
    assert [value.name for value in after.graph.outputs] == ["y"]


def test_queries_that_the_batch_shares_stay_projected() -> None:
    after = assert_law(PASS, ProjectedAttention(batch=4, queries=40, keys=3, single=frozenset("q")).model())
    assert {"output_weight"} <= names(after)
    assert not {"query_weight", "query_bias"} & names(after)
    assert "Expand" not in [node.op_type for node in after.graph], "products repeat them"


def test_queries_that_are_no_projection_stay_as_they_are() -> None:
    after = assert_law(PASS, FEW_KEYS.model(("q = Identity(qt)", "q = Relu(qt)")))
    assert is_absorbed(after)
    assert not {"query_weight", "query_bias"} & names(after)


@pytest.mark.parametrize("mask", ["float a key", "float a head", "bool a key", "bool for all", "expanded"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_masks_that_are_the_same_for_all_queries_are_added(mask: str, shared: bool, bare: bool) -> None:
    attention = ProjectedAttention(
        batch=2,
        queries=40,
        keys=3,
        mask=mask,
        single=frozenset("q" * shared),
        bare=frozenset("q" * bare),
    )
    assert is_absorbed(assert_law(PASS, attention.model()))


def test_a_row_without_any_key_is_finite_as_after_lowering() -> None:
    model = ProjectedAttention(batch=2, queries=40, keys=3, mask="bool a key").model()
    feeds = random_feeds(model, 0)
    feeds["m"] = np.zeros_like(feeds["m"])
    lowered = model.clone()
    LowerOnnx()(lowered)
    wanted = run_model(lowered, feeds)
    assert PASS(model).modified
    assert largest_error(wanted, run_model(model, feeds)) <= PASS.tolerance


def test_it_computes_the_same_in_an_engine() -> None:
    model = FEW_KEYS.model()
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert PASS(model).modified
    assert largest_error(wanted, run_model(model, feeds)) <= PASS.tolerance


def test_the_projected_output_keeps_its_name() -> None:
    after = assert_law(PASS, FEW_KEYS.model(("y) <", "y, float[2,40,6] p) <")))
    assert is_absorbed(after)
    assert [value.name for value in after.graph.outputs] == ["y", "p"]


def test_the_bias_of_the_queries_counts_as_work() -> None:
    """A head: 3·(8 + 2)·3 multiply-adds take the place of 8·3·2 + 8·3·2; the bias would take 3·2 more."""
    attention = ProjectedAttention(queries=8, keys=3, channels=2, width=3, out=9)
    assert "query_weight" not in names(assert_law(PASS, attention.model()))
    assert "query_weight" in names(assert_law(PASS, replace(attention, bare=frozenset("q")).model()))


def declined(model: ir.Model) -> None:
    before = ir.to_onnx_text(model)
    assert not PASS(model).modified
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("merged heads of another reader", (("y) <", "y, float[2,40,8] w) <"), ("y = Add", "w = Neg(r) y = Add"))),
        ("heads that are an output", (("y) <", "y, float[2,2,40,4] a) <"),)),
        ("an activation behind the heads", (("p = MatMul(r, z)", "n = Relu(r) p = MatMul(n, z)"),)),
        ("a weight that is an input", (("p = MatMul(r, z)", "p = MatMul(r, free)"),)),
        ("merged heads on the right", (("p = MatMul(r, z)", "n = MatMul(mix, r) p = MatMul(n, z)"),)),
        ("rows that are heads", (("t = Transpose <perm = [0, 2, 1, 3]> (a)", "t = Reshape(a, apart)"),)),
        ("a flat product", (("merged) p = MatMul", "flat) p = Gemm"), ("[2,40,6] y", "[80,6] y"))),
        ("a causal mask", (("Attention <scale = 0.3>", "Attention <is_causal = 1>"),)),
    ],
)  # fmt: skip
def test_it_declines(what: str, changes: tuple[tuple[str, str], ...]) -> None:
    shapes = "int64[4] apart = {2, 40, 2, 4}, int64[2] flat = {80, 8}"
    inputs = ("float[8,6] z", "float[8,6] free, float[40,40] mix, float[8,6] z")
    declined(FEW_KEYS.model(*changes, inputs, ("> {", f", {shapes}> {{")))


@pytest.mark.parametrize("mask", ["float a query", "bool a query"])
def test_masks_that_differ_by_query_are_declined(mask: str) -> None:
    declined(ProjectedAttention(batch=2, queries=40, keys=3, mask=mask).model())


def test_many_keys_stay_apart() -> None:
    declined(ProjectedAttention(queries=40, keys=40).model())


def test_one_head_is_left_alone() -> None:
    declined(ProjectedAttention(heads=1, queries=90, keys=2, channels=8, value_channels=8).model())
