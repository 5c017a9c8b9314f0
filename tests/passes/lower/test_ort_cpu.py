from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics, run_passes
from samonnx.passes.evaluation import run_model
from samonnx.passes.lower import ORT_CPU_PASSES, LowerOnnx
from samonnx.passes.lower.ort_cpu import LowerOrtCpu
from samonnx.passes.mask_as_channel import MaskAsChannel
from tests.passes.attention_oracle import largest_error, random_feeds, reference, typed
from tests.passes.graph_text import body_of, model_of

ALL = LowerOrtCpu(least_pairs=1, least_channels=1)


def attention(heads: int, queries: int, keys: int, channels: int, value_channels: int) -> ir.Model:
    return model_of(
        f"(float[2,{heads},{queries},{channels}] q, float[2,{heads},{keys},{channels}] k,"
        f" float[2,{heads},{keys},{value_channels}] v) => (float[2,{heads},{queries},{value_channels}] y)"
        " { y = Attention <scale = 0.25> (q, k, v) }"
    )


def operators(model: ir.Model) -> list[str]:
    return [line.split(" = ")[1].split("(")[0] for line in body_of(model)]


def test_one_head_needs_no_transpose() -> None:
    model = attention(1, 5, 7, 4, 3)
    assert ALL(model).modified
    assert operators(model) == ["Reshape", "Reshape", "Reshape", "MultiHeadAttention", "Reshape"]


def test_transposes_from_and_to_token_major_are_undone() -> None:
    model = typed(
        """(float[2,5,3,4] x) => (float[2,5,3,4] y) {
            q = Transpose <perm = [0, 2, 1, 3]> (x)
            a = Attention(q, q, q)
            y = Transpose <perm = [0, 2, 1, 3]> (a)
        }"""
    )
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    ALL(model)
    assert operators(model)[1:] == ["Reshape", "Reshape", "Reshape", "MultiHeadAttention", "Reshape"]
    assert not model.graph.node(0).outputs[0].uses()  # the transpose is left to eliminate_dead
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 3),
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    channels=st.integers(1, 9),
    value_channels=st.integers(1, 9),
)
def test_multi_head_attention_computes_the_attention(
    heads: int, queries: int, keys: int, channels: int, value_channels: int
) -> None:
    model = attention(heads, queries, keys, channels, value_channels)
    feeds = random_feeds(model, heads)
    wanted = reference(model, feeds)
    before = graph_statistics(model).flops
    ALL(model)
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5
    assert graph_statistics(model).flops == before


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "channels"),
    [(8, 12, 5184, 16), (8, 5184, 12, 16), (1, 1024, 1023, 64), (1, 1024, 1024, 31)],
)
def test_small_attentions_stay_for_lower_onnx(heads: int, queries: int, keys: int, channels: int) -> None:
    assert not LowerOrtCpu()(attention(heads, queries, keys, channels, channels)).modified


def test_large_attentions_are_taken() -> None:
    assert LowerOrtCpu()(attention(1, 1024, 1024, 32, 32)).modified


def test_a_mask_keeps_the_node_unless_it_became_a_channel() -> None:
    text = """(float[1,1,5,4] q, float[1,1,7,4] k, float[1,1,1,7] m) => (float[1,1,5,4] y) {
        y = Attention(q, k, k, m)
    }"""
    assert not ALL(model_of(text)).modified
    model = model_of(text)
    run_passes(model, (MaskAsChannel(least_pairs=1), ALL))
    assert "MultiHeadAttention" in operators(model)


def test_float64_stays() -> None:
    model = model_of("(double[1,1,9,4] q) => (double[1,1,9,4] y) { y = Attention(q, q, q) }")
    assert not ALL(model).modified


def test_the_pipeline_leaves_no_standard_attention_and_keeps_the_numbers() -> None:
    model = typed(
        """(float[1,1,1040,32] q, float[1,1,1040,32] k, float[1,1040,8] x, float[1,1,1,1040] m, float[1,4,3,16] t,
            float[8,32] w, float[32] b) => (float[1,1,1040,32] y, float[1,4,3,16] z) <int64[1] one = {1}> {
            p = MatMul(x, w)
            s = Add(p, b)
            v = Unsqueeze(s, one)
            y = Attention(q, k, v, m)
            z = Attention(t, t, t)
        }""",
        "w",
        "b",
    )
    feeds = random_feeds(model, 0)
    feeds["m"] = np.where(feeds["m"] > 0.5, np.float32(-1e30), np.float32(0))
    wanted = reference(model, feeds)
    run_passes(model, ORT_CPU_PASSES)
    assert operators(model).count("MultiHeadAttention") == 1
    assert "Attention" not in operators(model)
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_both_lowerings_agree() -> None:
    one, other = attention(3, 5, 7, 4, 2), attention(3, 5, 7, 4, 2)
    feeds = random_feeds(one, 1)
    ALL(one)
    LowerOnnx()(other)
    assert largest_error(run_model(one, feeds), run_model(other, feeds)) <= 1e-5
