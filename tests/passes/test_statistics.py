from __future__ import annotations

import numpy as np
import pytest

from samonnx.passes import graph_statistics
from tests.passes.graph_text import model_of


@pytest.mark.parametrize(
    ("what", "text", "flops"),
    [
        ("MatMul", "(float[5,2,3] x, float[3,4] w) => (float[5,2,4] y) { y = MatMul(x, w) }", 2 * 5 * 2 * 4 * 3),
        ("Gemm", "(float[2,3] x, float[4,3] w) => (float[2,4] y) { y = Gemm <transB = 1> (x, w) }", 2 * 2 * 4 * 3),
        (
            "Gemm, transposed",
            "(float[3,2] x, float[3,4] w) => (float[2,4] y) { y = Gemm <transA = 1> (x, w) }",
            2 * 2 * 4 * 3,
        ),
        (
            "grouped Conv",
            "(float[1,4,6,6] x, float[8,2,3,3] w) => (float[1,8,4,4] y) { y = Conv <group = 2> (x, w) }",
            2 * 8 * 4 * 4 * 2 * 9,
        ),
        (
            "ConvTranspose",
            "(float[1,4,3,3] x, float[4,2,2,2] w) => (float[1,2,6,6] y) { y = ConvTranspose <strides = [2,2]> (x, w)}",
            2 * 4 * 3 * 3 * 2 * 4,
        ),
        (
            "Attention, 4-d",
            """(float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,4] v) => (float[1,2,5,4] y) {
                y = Attention(q, k, v) }""",
            2 * 2 * 5 * 7 * (8 + 4),
        ),
        (
            "Attention, 3-d",
            """(float[1,5,16] q, float[1,7,8] k, float[1,7,4] v) => (float[1,5,8] y) {
                y = Attention <q_num_heads = 2, kv_num_heads = 1> (q, k, v) }""",
            2 * 2 * 5 * 7 * (8 + 4),
        ),
        (
            "MultiHeadAttention",
            """(float[1,5,16] q, float[1,7,16] k, float[1,7,8] v) => (float[1,5,8] y) {
                y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v) }""",
            2 * 2 * 5 * 7 * (8 + 4),
        ),
        ("others", "(float[5] x) => (float[5] y) { y = Exp(x) }", 0),
    ],
)
def test_flops_are_twice_the_multiply_accumulates(what: str, text: str, flops: int) -> None:
    statistics = graph_statistics(model_of(text))
    assert (statistics.flops, statistics.uncounted) == (flops, ()), what


def test_a_node_of_symbolic_shape_is_listed_as_uncounted() -> None:
    model = model_of("(float[n,3] x, float[3,4] w) => (float[n,4] y, float[n,4] z) { y = MatMul(x, w) z = Neg(y) }")
    statistics = graph_statistics(model)
    assert statistics.flops == 0
    assert statistics.uncounted == ("MatMul → y",)


def test_nodes_are_counted_by_operator_and_domain() -> None:
    model = model_of("(float[2] x) => (float[2] y) { a = Neg(x) b = com.microsoft.Gelu(a) y = Neg(b) }")
    statistics = graph_statistics(model)
    assert statistics.nodes == 3
    assert dict(statistics.ops) == {"Neg": 2, "com.microsoft::Gelu": 1}


def test_constants_are_counted_wherever_they_are() -> None:
    model = model_of("""(float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        a = Constant <value_floats = [1.0, 2.0]> ()
        b = Constant <value = int64[3] {1, 2, 3}> ()
        y = Mul(x, w)
    }""")
    assert graph_statistics(model).constant_bytes == np.dtype(np.float32).itemsize * 4 + 24
