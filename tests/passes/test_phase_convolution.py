"""A transposed convolution computed phase by phase gives the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.convolution_call import read_convolution
from samonnx.passes.graph_values import replace_value
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.phase_convolution import phase_convolution
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    stride=st.integers(2, 3),
    reach=st.tuples(st.integers(1, 3), st.integers(1, 3)).filter(lambda reach: reach != (1, 1)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_phases_and_interleaving_are_the_transposed_convolution(
    dtype: str, stride: int, reach: tuple[int, int], pads: tuple[int, int, int, int], with_bias: bool, seed: int
) -> None:
    model = typed(
        f"""({dtype}[2,3,4,5] x, {dtype}[3,2,{stride * reach[0]},{stride * reach[1]}] w, {dtype}[2] b)
        => ({dtype}[n,c,h,v] y) {{ y = ConvTranspose <strides = [{stride},{stride}], pads = {list(pads)}>
            (x, w{", b" if with_bias else ""}) }}""",
        "w",
        "b",
        seed=seed,
    )
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    call = read_convolution(model.graph[0])
    phases = phase_convolution(call.map)
    assert phases is not None
    shape = call.map.output_shape(call.input_shape)
    built = phases.build(NodeBuilder(model.graph, "new", None), call.data, call.output, shape)
    replace_value(model.graph, call.output, built)
    model.graph.remove(call.node, safe=True)
    assert [node.op_type for node in model.graph] == ["Conv", "DepthToSpace", "Slice"]
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("what", "kernel", "attributes"),
    [
        ("tiles", 2, "strides = [2,2]"),
        ("a kernel that the stride does not divide", 3, "strides = [2,2]"),
        ("unequal strides", 4, "strides = [2,1]"),
        ("no stride", 2, "strides = [1,1]"),
        ("dilation", 4, "strides = [2,2], dilations = [2,2]"),
    ],
)
def test_other_forms_have_no_phases(what: str, kernel: int, attributes: str) -> None:
    model = typed(
        f"(float[1,3,4,5] x, float[3,2,{kernel},{kernel}] w) => (float[n,c,h,v] y) "
        f"{{ y = ConvTranspose <{attributes}> (x, w) }}",
        "w",
    )
    assert phase_convolution(read_convolution(model.graph[0]).map) is None, what
