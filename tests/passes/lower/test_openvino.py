from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.engines import OpenvinoGraph
from samonnx.passes import graph_statistics, run_passes
from samonnx.passes.evaluation import run_model
from samonnx.passes.lower import OPENVINO_PASSES
from samonnx.passes.lower.openvino import LowerOpenvino
from samonnx.passes.sink_value_projection import SinkValueProjection
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.graph_text import body_of, model_of


def attention(dtype: str = "float", mask: str = "", heads: int = 2, queries: int = 5, keys: int = 7) -> ir.Model:
    name = ", m" if mask else ""
    return model_of(
        f"({dtype}[2,{heads},{queries},4] q, {dtype}[2,{heads},{keys},4] k, {dtype}[2,{heads},{keys},3] v"
        f"{f', {mask} m' if mask else ''}) => ({dtype}[2,{heads},{queries},3] y) {{ y = Attention(q, k, v{name}) }}"
    )


def operators(model: ir.Model) -> list[str]:
    return [line.split(" = ")[1].split("(")[0] for line in body_of(model)]


@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    mask=st.sampled_from(["", "1,{keys}", "2,1,1,{keys}", "1,2,{queries},{keys}", "bool"]),
    heads=st.integers(2, 3),
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_one_block_computes_the_attention_whatever_the_sizes(
    dtype: str, mask: str, heads: int, queries: int, keys: int, seed: int
) -> None:
    shape = mask.replace("1,2,", f"1,{heads},").format(queries=queries, keys=keys)
    named = {"": "", "bool": f"bool[2,1,1,{keys}]"}.get(mask, f"{dtype}[{shape}]")
    model = attention(dtype, named, heads, queries, keys)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    assert LowerOpenvino()(model).modified
    assert operators(model).count("Softmax") == 1
    assert not LowerOpenvino()(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


def test_openvino_computes_the_masked_attention_too() -> None:
    model = attention(mask="float[2,1,1,7]")
    feeds = random_feeds(model, 0)
    feeds["m"] = np.where(feeds["m"] > 0.5, np.float32(-1e30), np.float32(0))
    wanted = reference(model, feeds)
    LowerOpenvino()(model)
    assert largest_error(wanted, OpenvinoGraph(model).run(feeds)) <= 1e-5
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_openvino_puts_a_large_masked_attention_into_its_own_kernel() -> None:
    """What the choice of this form rests on: no product and no softmax of its own is left, so no logits are stored."""
    model = attention(mask="float[2,1,1,512]", heads=1, queries=256, keys=512)
    LowerOpenvino()(model)
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(ir.to_proto(model).SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    kinds = {str(node.get_rt_info()["layerType"].astype(str)) for node in compiled.get_runtime_model().get_ops()}
    assert "Subgraph" in kinds
    assert not kinds & {"MatMul", "FullyConnected", "Softmax", "SoftMax"}


def test_the_pipeline_is_of_the_standard_domain_and_keeps_the_numbers() -> None:
    model = typed(
        """(float[1,1,40,32] q, float[1,1,1040,32] k, float[1,1040,8] x, float[1,1,1,1040] m, float[1,4,3,16] t,
            float[8,32] w, float[32] b) => (float[1,1,40,32] y, float[1,4,3,16] z) <int64[1] one = {1}> {
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
    before = graph_statistics(model).flops
    run_passes(model, (SinkValueProjection(), *OPENVINO_PASSES))
    assert {node.domain for node in model.graph} == {""}
    assert operators(model).count("Softmax") == 2
    assert "Attention" not in operators(model)
    assert graph_statistics(model).flops < before, "the value projection runs over 40 queries, not 1,040 keys"
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert largest_error(wanted, OpenvinoGraph(model).run(feeds)) <= 1e-5


@pytest.mark.parametrize("attribute", ["is_causal = 1", "softcap = 2.0"])
def test_other_forms_of_attention_stay(attribute: str) -> None:
    model = model_of(
        f"(float[2,2,5,8] q, float[2,2,5,8] k) => (float[2,2,5,8] y) {{ y = Attention <{attribute}> (q, k, k) }}"
    )
    assert not LowerOpenvino()(model).modified
