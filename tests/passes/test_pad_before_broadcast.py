from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.pad_before_broadcast import PadBeforeBroadcast
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import typed
from tests.passes.graph_text import assert_same_bits, ports_of, special_floats

BIAS = """(float[2,5,4,1] a, float[2,5,1,3] b, float[2,6,12] logits) => (float[2,6,12] z)
<int64[3] s = {2, 5, 12}, int64[6] pads = {0, 1, 0, 0, 0, 0}> {
    sum = Add(a, b)
    r = Reshape(sum, s)
    p = Pad(r, pads)
    z = Add(logits, p)
}"""


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_small_operands_are_padded_in_place_of_the_large_sum() -> None:
    before, after = typed(BIAS), typed(BIAS)
    assert PadBeforeBroadcast()(after).modified
    assert operators(after) == ["Pad", "Pad", "Add", "Reshape", "Add"]
    assert [str(node.outputs[0].shape) for node in after.graph][:3] == ["[2,6,4,1]", "[2,6,1,3]", "[2,6,4,3]"]
    assert ports_of(before) == ports_of(after)
    assert_same_bits(before, after)
    shapes = [node.outputs[0].shape for node in after.graph]
    infer_shapes(after, forget=True)
    assert shapes == [node.outputs[0].shape for node in after.graph]
    assert not PadBeforeBroadcast()(after).modified


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    operator=st.sampled_from(["Add", "Sub", "Mul"]),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    reshaped=st.booleans(),
)
def test_any_zeros_around_any_broadcast_keep_every_bit(
    dtype: str, operator: str, pads: list[int], sizes: tuple[int, int, int, int], reshaped: bool
) -> None:
    n, h, rows, columns = sizes
    top, left, bottom, right = pads
    if reshaped:
        middle = "r = Reshape(sum, s) y = Pad(r, pads)"
        amounts = f"{top}, {left}, 0, {bottom}, {right}, 0"
        shape = f"{n + top + bottom},{h + left + right},{rows * columns}"
    else:
        middle = "y = Pad(sum, pads)"
        amounts = f"{top}, {left}, 0, 0, {bottom}, {right}, 0, 0"
        shape = f"{n + top + bottom},{h + left + right},{rows},{columns}"
    text = f"""({dtype}[{n},{h},{rows},1] a, {dtype}[{n},{h},1,{columns}] b) => ({dtype}[{shape}] y)
    <int64[3] s = {{{n}, {h}, {rows * columns}}}, int64[{amounts.count(",") + 1}] pads = {{{amounts}}}> {{
        sum = {operator}(a, b)
        {middle}
    }}"""
    before, after = typed(text), typed(text)
    modified = PadBeforeBroadcast()(after).modified
    smaller = rows + columns < rows * columns
    assert modified == (smaller and any(pads))
    feeds = {"a": special_floats((n, h, rows, 1)), "b": special_floats((n, h, 1, columns))[:, :, :, ::-1].copy()}
    wide = {"float": "float32", "double": "float64"}[dtype]
    assert_same_bits(before, after, {name: array.astype(wide) for name, array in feeds.items()})


def test_axes_of_length_one_are_padded_each_in_its_place() -> None:
    text = """(float[1,1,4,1] a, float[1,1,1,3] b) => (float[2,3,12] y)
    <int64[3] s = {1, 1, 12}, int64[6] pads = {0, 1, 0, 1, 1, 0}> {
        sum = Add(a, b)
        r = Reshape(sum, s)
        y = Pad(r, pads)
    }"""
    before, after = typed(text), typed(text)
    assert PadBeforeBroadcast()(after).modified
    assert_same_bits(before, after)


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("another value", "Pad(r, pads)", "Pad(r, pads, one)"),
        ("negative zero", "Pad(r, pads)", "Pad(r, pads, minus)"),
        ("another mode", "Pad(r, pads)", 'Pad <mode = "edge"> (r, pads)'),
        ("a crop", "{0, 1, 0, 0, 0, 0}", "{0, 2, 0, 0, -1, 0}"),
        ("a reader of the sum", "r = Reshape", "more = Neg(sum) r = Reshape"),
        ("a reader of the reshape", "p = Pad", "more = Neg(r) p = Pad"),
        ("an axis put together", "{0, 1, 0, 0, 0, 0}", "{0, 0, 0, 0, 0, 1}"),
        ("a quotient", "Add(a, b)", "Div(a, b)"),
        ("an operand broadcast along the axis", "float[2,5,1,3] b", "float[2,1,1,3] b"),
        ("an operand of lower rank", "float[2,5,1,3] b", "float[1,3] b"),
        ("large operands", "float[2,5,4,1] a", "float[2,5,4,3] a"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    text = BIAS.replace(old, new)
    assert text != BIAS
    text = text.replace("<int64[3] s", "<float one = {1.0}, float minus = {-0.0}, int64[3] s")
    if what == "an axis put together":
        text = text.replace("[2,6,12]", "[2,5,13]")
    model = typed(text)
    assert not PadBeforeBroadcast()(model).modified, what


def test_axes_given_by_number_are_read() -> None:
    text = BIAS.replace("Pad(r, pads)", "Pad(r, pads, , axes)")
    text = text.replace("int64[6] pads = {0, 1, 0, 0, 0, 0}", "int64[2] pads = {1, 0}, int64[1] axes = {-2}")
    before, after = typed(text), typed(text)
    assert PadBeforeBroadcast()(after).modified
    assert_same_bits(before, after)
