"""Repeating pixels by Expand and by Resize is the same, bit for bit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.evaluation import run_model
from samonnx.passes.fuse_nearest_resize import FuseNearestResize
from tests.passes.attention_oracle import random_feeds, reference, typed
from tests.passes.graph_text import assert_same_bits

TEXT = """(float[{n},{c},{h},{w}] x) => (float[{n},{c},{hh},{ww}] y)
<int64[6] single = {{{n},{c},{h},1,{w},1}}, int64[6] repeated = {{{n},{c},{h},{a},{w},{b}}},
 int64[4] large = {{{n},{c},{hh},{ww}}}>
{{
    s = Reshape(x, single)
    r = Expand(s, repeated)
    y = Reshape(r, large)
}}"""


def text(n: int = 1, c: int = 2, h: int = 3, w: int = 4, a: int = 2, b: int = 2) -> str:
    return TEXT.format(n=n, c=c, h=h, w=w, a=a, b=b, hh=h * a, ww=w * b)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 2),
    c=st.integers(1, 3),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    a=st.integers(1, 5),
    b=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_pixels_are_repeated_bit_for_bit(n: int, c: int, h: int, w: int, a: int, b: int, seed: int) -> None:
    before, after = typed(text(n, c, h, w, a, b)), typed(text(n, c, h, w, a, b))
    assert FuseNearestResize()(after).modified
    assert [node.op_type for node in after.graph][-1] == "Resize"
    feeds = random_feeds(after, seed)
    assert_same_bits(before, after, feeds)
    assert (reference(before, feeds)["y"] == run_model(after, feeds)["y"]).all()
    assert not FuseNearestResize()(after).modified


def test_unsqueeze_may_stand_first() -> None:
    spelled = (
        text()
        .replace("s = Reshape(x, single)", "s = Unsqueeze(x, axes)")
        .replace("<int64[6] single", "<int64[2] axes = {3,5}, int64[6] single")
    )
    model = typed(spelled)
    assert FuseNearestResize()(model).modified


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(float[1,2,6,8] y)", "(float[1,2,6,8] y, float[1,2,3,2,4,2] r)"),  # a middle value is an output
        ("(float[1,2,6,8] y)", "(float[1,2,6,8] y, float[1,2,3,1,4,1] s)"),
        ("single = {1,2,3,1,4,1}", "single = {1,2,1,3,4,1}"),  # rows in another place: whole maps are repeated
        ("large = {1,2,6,8}", "large = {1,2,8,6}"),
    ],
)
def test_anything_else_is_left_alone(old: str, new: str) -> None:
    spelled = text().replace(old, new)
    assert spelled != text()
    spelled = spelled.replace("(float[1,2,6,8] y) ", "(float[1,2,p,q] y) ") if "8,6" in new else spelled
    if "1,3,4,1" in new:
        spelled = spelled.replace("repeated = {1,2,3,2,4,2}", "repeated = {1,2,2,3,4,2}")
    if "8,6" in new:
        spelled = spelled.replace("=> (float[1,2,6,8] y)", "=> (float[1,2,8,6] y)")
    model = typed(spelled)
    assert not FuseNearestResize()(model).modified


@pytest.mark.parametrize("dtype", ["double", "float16", "int64", "bool"])
def test_types_that_engines_cannot_resize_stay_repeated(dtype: str) -> None:
    """Found by random graphs: ONNX Runtime has no CPU kernel for Resize of float64."""
    assert not FuseNearestResize()(typed(text().replace("float[", f"{dtype}["))).modified


def test_before_opset_13_a_resize_would_need_a_region() -> None:
    model = typed(text())
    model.opset_imports[""] = 12
    assert not FuseNearestResize()(model).modified
