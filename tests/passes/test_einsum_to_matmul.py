from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import EinsumToMatmul, FuseAttention, assert_exact
from tests.passes.attention_oracle import typed
from tests.passes.graph_text import body_of, model_of

SIZES = {"b": 2, "h": 3, "q": 4, "t": 5, "d": 6}


def einsum(left: str, right: str, out: str, dtype: str = "float") -> str:
    shapes = [",".join(str(SIZES[letter]) for letter in term) for term in (left, right, out)]
    return (
        f"({dtype}[{shapes[0]}] x, {dtype}[{shapes[1]}] z) => ({dtype}[{shapes[2]}] y)"
        f' {{ y = Einsum <equation = "{left},{right}->{out}"> (x, z) }}'
    )


@settings(max_examples=40, deadline=None)
@given(
    left=st.permutations("bhqd"),
    right=st.permutations("bhtd"),
    out=st.permutations("bhqt"),
    batch=st.sampled_from(["", "b", "bh"]),
)
def test_products_with_axes_in_any_order_are_matrix_products(
    left: list[str], right: list[str], out: list[str], batch: str
) -> None:
    kept = set(batch + "qtd")
    terms = ["".join(letter for letter in term if letter in kept) for term in (left, right, out)]
    after = assert_exact(EinsumToMatmul(), model_of(einsum(*terms)), seeds=(0,))
    assert "MatMul" in {node.op_type for node in after.graph}
    assert {node.op_type for node in after.graph} <= {"MatMul", "Transpose"}


def test_the_graph_before_and_after() -> None:
    model = model_of(einsum("bqd", "btd", "bqt"))
    assert EinsumToMatmul()(model).modified
    assert body_of(model) == ["y/Transpose_0 = Transpose(z)", "y = MatMul(x, y/Transpose_0)"]


def test_attention_by_einsum_is_attention() -> None:
    model = typed("""(float[2,5,3,4] q, float[2,7,3,4] k) => (float[2,5,3,4] y) {
        l = Einsum <equation = "bqhd,bthd->bhqt"> (q, k)
        p = Softmax(l)
        y = Einsum <equation = "bhqt,bthd->bqhd"> (p, k)
    }""")
    EinsumToMatmul()(model)
    assert FuseAttention()(model).modified


@pytest.mark.parametrize(
    ("what", "left", "right", "equation"),
    [
        ("a diagonal", "3,3", "3,2", "ii,ij->j"),
        ("an ellipsis", "2,3", "3,2", "...i,ij->...j"),
        ("no output", "2,3", "3,2", "ij,jk"),
        ("two sums", "2,3,4", "3,4,2", "ijk,jkl->il"),
        ("an outer product", "2", "3", "i,j->ij"),
        ("an axis that is dropped", "2,3", "3,4", "ij,jk->i"),
        ("a size of 1 for any", "2,1", "3,4", "ij,jk->ik"),
        ("sizes that are not known", "2,n", "m,4", "ij,jk->ik"),
    ],
)
def test_it_declines(what: str, left: str, right: str, equation: str) -> None:
    text = f'(float[{left}] x, float[{right}] z) => (float y) {{ y = Einsum <equation = "{equation}"> (x, z) }}'
    assert not EinsumToMatmul()(model_of(text)).modified, what


def test_it_declines_one_operand() -> None:
    model = model_of('(float[2,3] x) => (float[3,2] y) { y = Einsum <equation = "ij->ji"> (x) }')
    assert not EinsumToMatmul()(model).modified
