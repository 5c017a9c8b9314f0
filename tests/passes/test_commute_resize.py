from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.commute_resize import CommuteResize
from samonnx.passes.evaluation import run_model
from samonnx.passes.graph_values import static_shape
from samonnx.passes.lower import runnable
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed

ALWAYS = CommuteResize(interpolation=0, rearrangement=0)
"""Moves whatever has fewer multiply-adds on the small side."""

BOTH = """({dtype}[{batch},3,{h},{w}] x, {dtype}[4,3,1,1] w, {dtype}[4] b, {dtype}[3,2,{k},{k}] v, {dtype}[2] c)
=> ({dtype}[n0,c0,h0,w0] y, {dtype}[n1,c1,h1,w1] z) <{operand}> {{
    r = Resize <mode = "{mode}", coordinate_transformation_mode = "{positions}"{axes}> (x, , {names})
    y = Conv (r, w{b})
    z = ConvTranspose <strides = [{k},{k}]> (r, v{c})
}}"""
TWO = """(float[1,8,3,4] x, float[4,8,1,1] w, float[4] b, float[5,4,1,1] v) => (float[1,5,6,8] y)
<float[4] scales = {1, 1, 2, 2}> {
    r = Resize <mode = "linear"> (x, , scales)
    t = Conv (r, w, b)
    y = Conv (t, v)
}"""


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    mode=st.sampled_from(["linear", "nearest"]),
    positions=st.sampled_from(
        ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
    ),
    operand=st.sampled_from(["sizes", "scales", "sizes of axes", "scales of axes"]),
    batch=st.integers(1, 2),
    small=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    grown=st.tuples(st.integers(0, 5), st.integers(1, 5)),
    tile=st.integers(1, 3),
    biases=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 99),
)
def test_maps_of_pixels_commute_with_interpolation(
    dtype: str, mode: str, positions: str, operand: str, batch: int, small: tuple[int, int], grown: tuple[int, int],
    tile: int, biases: tuple[bool, bool], seed: int,
) -> None:  # fmt: skip
    height, width = small[0] + grown[0], small[1] + grown[1]
    first = "" if "axes" in operand else "1, 1, " if "scales" in operand else f"{batch}, 3, "
    count = 2 if "axes" in operand else 4
    if "scales" in operand:  # half a pixel more, which the output size does not show
        elements = f"{(height + 0.5) / small[0]}, {(width + 0.5) / small[1]}"
        declared, names = f"float[{count}] s = {{{first}{elements}}}", "s"
    else:
        declared, names = f"int64[{count}] s = {{{first}{height}, {width}}}", ", s"
    text = BOTH.format(
        dtype=dtype, batch=batch, h=small[0], w=small[1], k=tile, mode=mode, positions=positions, operand=declared,
        axes=", axes = [2, 3]" if "axes" in operand else "", names=names,
        b=", b" if biases[0] else "", c=", c" if biases[1] else "",
    )  # fmt: skip
    model = typed(text, "w", "b", "v", "c", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    assert ALWAYS(model).modified
    assert operators(model) == ["Conv", "Resize"] * 2 + ["DepthToSpace"] * (tile > 1)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    assert not ALWAYS(model).modified


def test_every_new_value_has_the_type_and_shape_that_inference_finds() -> None:
    text = BOTH.format(
        dtype="float", batch=2, h=3, w=4, k=2, mode="linear", positions="half_pixel", axes="", names=", s",
        operand="int64[4] s = {2, 3, 5, 9}", b=", b", c="",
    )  # fmt: skip
    model = typed(text, "w", "b", "v", "c")
    ALWAYS(model)
    shapes = {node.op_type: static_shape(node.outputs[0]) for node in model.graph}
    assert shapes == {"Conv": (2, 8, 3, 4), "Resize": (2, 8, 5, 9), "DepthToSpace": (2, 2, 10, 18)}
    found = {output.name: (output.type, output.shape) for node in model.graph for output in node.outputs}
    for node in model.graph:
        node.outputs[0].shape = None
    infer_shapes(model)
    assert {output.name: (output.type, output.shape) for node in model.graph for output in node.outputs} == found


def test_an_engine_gives_the_same_before_and_after() -> None:
    text = BOTH.format(
        dtype="float", batch=1, h=32, w=32, k=2, mode="linear", positions="half_pixel", axes="", names=", s",
        operand="int64[4] s = {1, 3, 72, 72}", b=", b", c=", c",
    )  # fmt: skip
    model = typed(text, "w", "b", "v", "c")
    feeds = random_feeds(model, 0)
    wanted = run_model(runnable(model), feeds)
    ALWAYS(model)
    assert largest_error(wanted, run_model(runnable(model), feeds)) <= 1e-5


def test_a_second_map_follows_the_first() -> None:
    model = typed(TWO, "w", "b", "v")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert ALWAYS(model).modified
    assert operators(model) == ["Conv", "Conv", "Resize"]
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE["float"]


def test_multiply_adds_fall_by_the_ratio_of_the_pixels() -> None:
    model = typed(TWO, "w", "b", "v")
    assert graph_statistics(model).flops == 2 * (8 * 4 + 4 * 5) * 48
    ALWAYS(model)
    assert graph_statistics(model).flops == 2 * (8 * 4 + 4 * 5) * 12


def test_weights_of_a_convolution_stay_the_initialisers_that_they_are() -> None:
    model = typed(TWO, "w", "b", "v")
    before = set(model.graph.initializers)
    ALWAYS(model)
    assert set(model.graph.initializers) == before
    assert [node.inputs[1].name for node in model.graph if node.inputs[1] is not None] == ["w", "v"]


NECK = """(float[1,1024,4,4] x, float[1024,64,2,2] v, float[64] c, float[256,1024,1,1] w, float[256] b)
=> (float[1,64,18,18] z, float[1,256,9,9] y) <int64[4] s = {1, 1024, 9, 9}> {
    r = Resize <mode = "linear"> (x, , , s)
    z = ConvTranspose <strides = [2, 2]> (r, v, c)
    y = Conv (r, w, b)
}"""
WIDE = """(float[1,100,4,4] x, float[120,100,1,1] w, float[2,100,1,1] u) => (float[1,120,8,8] y)
<int64[4] s = {1, 100, 8, 8}> {
    r = Resize <mode = "linear"> (x, , , s)
    y = Conv (r, w)
}"""


def test_the_head_of_the_trunk_moves_whole() -> None:
    model = typed(NECK, "w", "b", "v", "c")
    assert CommuteResize()(model).modified
    assert operators(model) == ["Conv", "Resize", "DepthToSpace", "Conv", "Resize"]
    assert graph_statistics(model).flops == 2 * 16 * 1024 * 512


def test_a_map_that_is_dearer_alone_moves_where_that_saves_the_resize() -> None:
    # before: 100 · 120 · 64 + 150 · 100 · 64; after: 100 · 120 · 16 + 150 · 120 · 64
    model = typed(WIDE, "w", "u")
    assert CommuteResize()(model).modified
    assert operators(model) == ["Conv", "Resize"]


@pytest.mark.parametrize("reader", ["q = Relu (r)", "q = Conv <strides = [2, 2]> (r, u)", "output"])
def test_it_stays_where_another_reader_keeps_the_resize(reader: str) -> None:
    text = WIDE.replace("y = Conv", f"{'' if reader == 'output' else reader} y = Conv")
    output = "float[1,100,8,8] r" if reader == "output" else "float[a,b,c,d] q"
    model = typed(text.replace("=> (", f"=> ({output}, "), "w", "u")
    assert not CommuteResize()(model).modified


def test_each_map_moves_on_its_own_beside_a_map_that_stays() -> None:
    text = WIDE.replace("y = Conv", "z = ConvTranspose <strides = [2, 2]> (r, v) y = Conv")
    text = text.replace("=> (", "=> (float[1,120,16,16] z, ").replace("float[2,100,1,1] u", "float[100,120,2,2] v")
    model = typed(text, "w", "v")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    tiles_are_dear = CommuteResize(interpolation=70, rearrangement=20)  # 70 < 3/4 · 100 channels < 90
    assert tiles_are_dear(model).modified
    assert operators(model) == ["Resize", "ConvTranspose", "Conv", "Resize"]
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE["float"]
    assert not tiles_are_dear(model).modified


def test_behind_a_downsampling_only_narrowing_moves() -> None:
    # before: 100 · D · 9 + 150 · 100 · 9; after: 100 · D · 16 + 150 · D · 9
    down = WIDE.replace("100, 8, 8", "100, 3, 3").replace("float[1,120,8,8] y", "float[1,n,3,3] y")
    assert not CommuteResize()(typed(down, "w", "u")).modified
    model = typed(down.replace("120,", "60,"), "w", "u")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert CommuteResize()(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE["float"]


def test_axes_may_count_from_the_end() -> None:
    text = WIDE.replace('"linear"', '"linear", axes = [-1, -2]').replace("[4] s = {1, 100, 8, 8}", "[2] s = {8, 8}")
    model = typed(text, "w", "u")
    assert CommuteResize()(model).modified


PLAIN = """(float[1,4,3,3] x, float[4,4,1,1] w, float[4,4,3,3] w3, float[4,2,1,1] w2, float[4,2,2,2] w22,
    float[4,4,2,3] w23)
=> (float[a,b,c,d] y) <int64[4] s = {1, 4, 6, 6}, float[4] f = {1, 1, 2, 2}, int64[3] t = {4, 6, 6}> {
    r = Resize <mode = "linear"> (x, , , s)
    y = Conv (r, w)
}"""


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("cubic", '"linear"', '"cubic"'),
        ("a constant outside", '"linear"',
         '"linear", coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 1.0'),
        ("antialias", '"linear"', '"linear", antialias = 1'),
        ("renormalised borders", '"linear"', '"linear", exclude_outside = 1'),
        ("an aspect ratio policy", '"linear"', '"linear", keep_aspect_ratio_policy = "not_larger"'),
        ("downsampling", "4, 6, 6", "4, 2, 2"),
        ("more rows, fewer pixels", "4, 6, 6", "4, 4, 2"),
        ("resized channels", "{1, 4, 6, 6}", "{1, 8, 6, 6}"),
        ("scaled channels", "(x, , , s)", "(x, , f)"),
        ("channels among the axes", '"linear"> (x, , , s)', '"linear", axes = [1, 2, 3]> (x, , , t)'),
        ("an activation in between", "y = Conv (r, w)", "q = Relu (r) y = Conv (q, w)"),
        ("a padded convolution", "Conv (r, w)", "Conv <pads = [1, 1, 1, 1]> (r, w)"),
        ("a 3 x 3 convolution", "Conv (r, w)", "Conv (r, w3)"),
        ("groups", "Conv (r, w)", "Conv <group = 2> (r, w2)"),
        ("a weight that is an input", "Conv (r, w)", "Conv (r, u)"),
        ("tiles that overlap", "Conv (r, w)", "ConvTranspose <strides = [2, 2]> (r, w3)"),
        ("tiles that are not square", "Conv (r, w)", "ConvTranspose <strides = [2, 3]> (r, w23)"),
        ("tiles of groups", "Conv (r, w)", "ConvTranspose <strides = [2, 2], group = 2> (r, w22)"),
    ],
)  # fmt: skip
def test_it_declines(what: str, old: str, new: str) -> None:
    text = PLAIN.replace(old, new)
    assert text != PLAIN
    text = text.replace("float[4,4,1,1] w,", "float[4,4,1,1] w, float[4,4,1,1] u,")
    if what == "resized channels":
        text = text.replace("[4,4,1,1] w", "[4,8,1,1] w")
    if what == "scaled channels":
        text = text.replace("f = {1, 1,", "f = {1, 1.01,")
    model = typed(text, "w", "w2", "w22", "w3", "w23")
    assert not ALWAYS(model).modified, what


def test_the_plain_form_of_those_moves() -> None:
    model = typed(PLAIN, "w")
    assert ALWAYS(model).modified


def test_composed_weights_are_those_of_the_tiles() -> None:
    """No rounding: the weights are reordered only."""
    model = typed(NECK, "w", "b", "v", "c")
    old = model.graph.initializers["v"].const_value
    CommuteResize()(model)
    new = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
    assert old is not None
    assert new is not None
    assert new.const_value is not None
    assert np.array_equal(np.sort(old.numpy(), axis=None), np.sort(new.const_value.numpy(), axis=None))


def test_an_empty_operand_of_old_opsets_stays() -> None:
    """Before opset 13 `scales` is no optional operand: where sizes are given it is empty."""
    text = """(float[1,8,3,4] x, float[4,8,1,1] w) => (float[1,4,6,8] y)
    <float[0] none = {}, int64[4] sizes = {1, 8, 6, 8}> {
        r = Resize <mode = "nearest"> (x, none, none, sizes)
        y = Conv (r, w)
    }"""
    before, after = typed(text, "w"), typed(text, "w")
    for model in (before, after):
        model.opset_imports[""] = 11
    assert ALWAYS(after).modified
    resize = next(node for node in after.graph if node.op_type == "Resize")
    assert [value is not None for value in resize.inputs] == [True, True, True, True]
    feeds = random_feeds(after, 0)
    assert largest_error(run_model(before, feeds), run_model(after, feeds)) <= TOLERANCE["float"]
