"""A convolution read from a node and built again computes the same, and knows its shapes and its work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.convolution_call import UnreadableConvolutionError, read_convolution
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.node_builder import NodeBuilder
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed


@settings(max_examples=40, deadline=None)
@given(
    operator=st.sampled_from(["Conv", "ConvTranspose"]),
    dtype=st.sampled_from(["float", "double"]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    group=st.sampled_from([1, 2]),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_read_is_what_is_built(
    operator: str, dtype: str, kernel: int, stride: int, pad: int, group: int, with_bias: bool, seed: int
) -> None:
    group = 1 if operator == "ConvTranspose" else group  # with groups ONNX's evaluator fails
    weight = (6, 4 // group) if operator == "Conv" else (4, 6)
    pad = min(pad, kernel - 1)
    text = f"""({dtype}[2,4,5,6] x, {dtype}[{weight[0]},{weight[1]},{kernel},{kernel}] w, {dtype}[6] b)
=> ({dtype}[n,c,h,v] y)
{{ y = {operator} <group = {group}, strides = [{stride},{stride}], pads = [{pad},{pad},{pad},{pad}]>
    (x, w{", b" if with_bias else ""}) }}"""
    model = typed(text, "w", "b", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    call = read_convolution(model.graph[0])
    assert call.map.output_shape(call.input_shape) == static_shape(call.output)
    assert 2 * call.multiply_adds == graph_statistics(model).flops
    built = call.map.wide().rounded(call.dtype).build(NodeBuilder(model.graph, "new", None), call.data, call.output)
    assert static_shape(built) == static_shape(call.output)
    replace_value(model.graph, call.output, built)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ('Conv <auto_pad = "SAME_UPPER"> (x, w)', "automatic"),
        ("Conv (x, v)", "not constant"),
        ("ConvTranspose <strides = [2,2], output_padding = [1,1]> (x, w)", "pads its output"),
        ("Relu (x)", "not a convolution"),
    ],
)
def test_other_forms_are_refused_with_the_reason(node: str, why: str) -> None:
    model = typed(f"(float[1,4,5,5] x, float[4,4,3,3] w, float[4,4,3,3] v) => (float[a,b,c,d] y) {{ y = {node} }}", "w")
    with pytest.raises(UnreadableConvolutionError, match=why):
        read_convolution(model.graph[0])
