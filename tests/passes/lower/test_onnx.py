from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import EliminateDead
from samonnx.passes.evaluation import run_model
from samonnx.passes.graph_values import static_shape
from samonnx.passes.lower import runnable
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference
from tests.passes.graph_text import body_of, model_of


def attention(dtype: str = "float", mask: str = "", heads: int = 2, queries: int = 5, keys: int = 7) -> ir.Model:
    """`mask`: shape and dtype, such as "float[2,1,1,7]", or nothing."""
    name = ", m" if mask else ""
    return model_of(
        f"({dtype}[2,{heads},{queries},4] q, {dtype}[2,{heads},{keys},4] k, {dtype}[2,{heads},{keys},3] v"
        f"{f', {mask} m' if mask else ''}) => ({dtype}[2,{heads},{queries},3] y) {{ y = Attention(q, k, v{name}) }}"
    )


def test_attention_becomes_two_products_around_a_softmax() -> None:
    model = attention(mask="float[2,1,1,7]")
    assert LowerOnnx()(model).modified
    assert [line.split(" = ")[1].split("(")[0] for line in body_of(model)] == [
        "Mul",
        "Transpose",
        "MatMul",
        "Add",
        "Softmax",
        "MatMul",
    ]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert not LowerOnnx()(model).modified


def test_queries_are_taken_in_blocks_whose_logits_stay_below_the_limit() -> None:
    model = attention()
    LowerOnnx(block_bytes=2 * 2 * 2 * 7 * 4)(model)  # 2 of 5 queries, 7 keys, 2 × 2 heads
    logits = [node.outputs[0].shape for node in model.graph if node.op_type == "Softmax"]
    assert sorted(str(shape) for shape in logits) == ["[2,2,1,7]", "[2,2,2,7]", "[2,2,2,7]"]


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    mask=st.sampled_from(["", "1,7", "2,1,1,7", "1,2,5,7", "5,7", "bool", "bool5"]),
    block_bytes=st.integers(1, 3000),
    seed=st.integers(0, 99),
)
def test_any_block_size_computes_the_attention(dtype: str, mask: str, block_bytes: int, seed: int) -> None:
    named = {"": "", "bool": "bool[2,1,1,7]", "bool5": "bool[2,1,5,7]"}
    model = attention(dtype, named.get(mask, f"{dtype}[{mask}]"))
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    LowerOnnx(block_bytes=block_bytes)(model)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    if dtype == "float":
        assert largest_error(wanted, run_model(model, feeds)) <= TOLERANCE[dtype]


def test_openvino_and_onnx_runtime_agree() -> None:
    model = attention(mask="float[2,1,1,7]")
    feeds = random_feeds(model, 0)
    LowerOnnx(block_bytes=200)(model)
    compiled = ov.Core().compile_model(
        ov.Core().read_model(ir.to_proto(model).SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = {"y": compiled(feeds)[compiled.output(0)]}
    assert largest_error(run_model(model, feeds), found) <= 1e-5


def test_a_decomposed_copy_runs_and_leaves_the_model_alone() -> None:
    model = attention(mask="float[2,1,1,7]")
    before = ir.to_onnx_text(model)
    feeds = random_feeds(model, 0)
    assert largest_error(reference(model, feeds), run_model(runnable(model), feeds)) <= 1e-5
    assert ir.to_onnx_text(model) == before


def test_a_row_without_any_key_is_finite() -> None:
    model = attention(mask="bool[2,1,1,7]")
    feeds = random_feeds(model, 0)
    feeds["m"] = np.zeros_like(feeds["m"])
    LowerOnnx()(model)
    assert np.isfinite(run_model(model, feeds)["y"]).all()


def test_the_result_passes_the_full_checker_with_static_shapes() -> None:
    model = attention(mask="float[2,1,1,7]")
    LowerOnnx(block_bytes=200)(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert all(output.shape is not None and output.shape.is_static() for node in model.graph for output in node.outputs)


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,5,8] q, float[2,7,8] k) => (float[2,5,8] y)"
        " { y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, k) }",
        "(float[2,4,5,8] q, float[2,2,7,8] k) => (float[2,4,5,8] y) { y = Attention(q, k, k) }",
        "(float[2,2,5,8] q, float[2,2,5,8] k) => (float[2,2,5,8] y) { y = Attention <is_causal = 1> (q, k, k) }",
        "(float[2,2,5,8] q, float[2,2,5,8] k) => (float[2,2,5,8] y) { y = Attention <softcap = 2.0> (q, k, k) }",
        "(float[2,2,5,8] q, float[2,2,N,8] k) => (float[2,2,5,8] y) { y = Attention(q, k, k) }",
        "(float[2,2,5,8] q, float[2,2,5,8] k) => (float[2,2,5,8] y) { y, a, b = Attention(q, k, k, , k, k) }",
    ],
)
def test_other_forms_of_attention_stay(text: str) -> None:
    model = model_of(text)
    assert not LowerOnnx()(model).modified
    assert "Attention" in body_of(model)[0]


def expanded(which: str, mask: str = "", batch: int = 3) -> ir.Model:
    """Attention of 2 heads, 5 queries and 7 keys, where the operands named in `which` are the same for the batch."""
    inputs, body = [], []
    for name, tokens, channels in (("q", 5, 4), ("k", 7, 4), ("v", 7, 3)):
        single = name in which
        inputs.append(f"float[{1 if single else batch},2,{tokens},{channels}] {name}1")
        body.append(f"{name} = Expand({name}1, all)" if single else f"{name} = Neg({name}1)")
    return model_of(
        f"({', '.join(inputs)}{', ' * bool(mask) + mask}) => (float[{batch},2,5,3] y)"
        f" <int64[4] all = {{{batch}, 1, 1, 1}}>"
        f" {{ {' '.join(body)} y = Attention(q, k, v{', m' * bool(mask)}) }}"
    )


@pytest.mark.parametrize("which", ["q", "k", "v", "qk", "kv", "qv", "qkv"])
@pytest.mark.parametrize("mask", ["", "float[3,1,1,7] m", "float[1,1,1,7] m", "float[5,7] m", "bool[3,1,1,7] m"])
@pytest.mark.parametrize("block_bytes", [96 << 20, 300])
def test_what_the_batch_shares_is_not_repeated(which: str, mask: str, block_bytes: int) -> None:
    model = expanded(which, mask)
    infer_shapes(model)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    LowerOnnx(block_bytes=block_bytes)(model)
    EliminateDead()(model)
    repeated = [node.outputs[0].name for node in model.graph if node.op_type == "Expand"]
    single = which == "qkv" and "[3" not in mask
    assert repeated == (["y"] if single else [])
    assert static_shape(model.graph.outputs[0]) == (3, 2, 5, 3)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE["float"]
    assert largest_error(wanted, run_model(model, feeds)) <= TOLERANCE["float"]


def test_what_is_repeated_along_heads_or_tokens_too_stays_repeated() -> None:
    model = model_of(
        "(float[1,1,5,4] q1, float[1,2,1,4] k1, float[3,2,7,4] v) => (float[3,2,5,4] y)"
        " <int64[4] heads = {3, 2, 5, 4}, int64[4] keys = {3, 2, 7, 4}>"
        " { q = Expand(q1, heads) k = Expand(k1, keys) y = Attention(q, k, v) }"
    )
    infer_shapes(model)
    LowerOnnx()(model)
    EliminateDead()(model)
    assert [node.op_type for node in model.graph].count("Expand") == 2
