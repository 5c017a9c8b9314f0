from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.graph_values import static_shape
from samonnx.passes.shape_inference import infer_shapes
from samonnx.passes.transposed_conv_to_matmul import TransposedConvToMatmul
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed

ALL = TransposedConvToMatmul()
TILES = """({dtype}[{batch},{channels},{h},{w}] x, {dtype}[{channels},5,{k},{k}] w, {dtype}[5] b)
=> ({dtype}[n,c,p,q] y, {dtype}[n,c,p,q] z) {{
    y = ConvTranspose <strides = [{k},{k}]> (x, w{b})
    z = Neg (y)
}}"""


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    batch=st.integers(1, 2),
    channels=st.integers(1, 6),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    tile=st.integers(1, 3),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_tiles_are_products_of_their_pixels(
    dtype: str, batch: int, channels: int, size: tuple[int, int], tile: int, with_bias: bool, seed: int
) -> None:
    text = TILES.format(
        dtype=dtype, batch=batch, channels=channels, h=size[0], w=size[1], k=tile, b=", b" if with_bias else ""
    )
    model = typed(text, "w", "b", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    assert ALL(model).modified
    assert "ConvTranspose" not in [node.op_type for node in model.graph]
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    assert not ALL(model).modified


def _model(k: int = 2) -> ir.Model:
    return typed(TILES.format(dtype="float", batch=2, channels=4, h=3, w=5, k=k, b=", b"), "w", "b")


def test_the_work_stays_and_five_nodes_take_the_place_of_one() -> None:
    model = _model()
    flops = graph_statistics(model).flops
    ALL(model)
    assert graph_statistics(model).flops == flops
    assert [node.op_type for node in model.graph] == ["Reshape", "MatMul", "Add", "Reshape", "DepthToSpace", "Neg"]


def test_every_new_value_has_the_type_and_shape_that_inference_finds() -> None:
    model = _model()
    ALL(model)
    found = [(node.outputs[0].type, node.outputs[0].shape) for node in model.graph]
    assert static_shape(model.graph[1].outputs[0]) == (2, 20, 15)
    for node in model.graph:
        node.outputs[0].shape = None
    infer_shapes(model)
    assert [(node.outputs[0].type, node.outputs[0].shape) for node in model.graph] == found


def test_a_tile_of_one_pixel_needs_no_rearrangement() -> None:
    model = _model(k=1)
    ALL(model)
    assert [node.op_type for node in model.graph] == ["Reshape", "MatMul", "Add", "Reshape", "Neg"]


def test_many_channels_are_left_to_the_engine() -> None:
    assert not TransposedConvToMatmul(most_channels=3)(_model()).modified
    assert TransposedConvToMatmul(most_channels=4)(_model()).modified


@pytest.mark.parametrize(
    ("what", "node"),
    [
        ("overlapping tiles", "ConvTranspose <strides = [2, 2]> (x, w3)"),
        ("gaps between tiles", "ConvTranspose <strides = [3, 3]> (x, w)"),
        ("padding", "ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)"),
        ("padded output", "ConvTranspose <strides = [2, 2], output_padding = [1, 1]> (x, w)"),
        ("dilation", "ConvTranspose <strides = [2, 2], dilations = [2, 2]> (x, w)"),
        ("groups", "ConvTranspose <strides = [2, 2], group = 2> (x, w)"),
        ("tiles that are not square", "ConvTranspose <strides = [2, 3]> (x, w23)"),
        ("a weight that is an input", "ConvTranspose <strides = [2, 2]> (x, u)"),
        ("a convolution", "Conv <strides = [2, 2]> (x, w)"),
    ],
)
def test_it_declines(what: str, node: str) -> None:
    signature = "float[1,4,3,3] x, float[4,4,2,2] u, float[4,4,2,2] w, float[4,4,3,3] w3, float[4,4,2,3] w23"
    model = typed(f"({signature}) => (float[n,c,p,q] y) {{ y = {node} }}", "w", "w3", "w23")
    assert not ALL(model).modified, what
