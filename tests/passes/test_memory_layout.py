from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.graph_values import static_shape
from samonnx.passes.interface import Array
from samonnx.passes.memory_layout import Layout, MixedPlacesError, Segment, layout_after
from tests.passes.attention_oracle import reference, typed

SIZES = {"n": 5}
START = Layout(1, (Segment("n", 1),), 0)


def followed(text: str, start: Layout = START) -> tuple[ir.Model, dict[str, Layout]]:
    """The layouts of all tensors behind the input `x`, by name."""
    model = typed(text)
    layouts = {model.graph.inputs[0]: start}
    for node in model.graph:
        if any(value in layouts for value in node.inputs if value is not None):
            layouts.update(layout_after(node, layouts, SIZES))
    return model, {str(value.name): layout for value, layout in layouts.items()}


def owners(layout: Layout) -> Array:
    """The slot of each place; -1 where there is none."""
    return np.concatenate(
        [
            np.repeat(np.arange(SIZES[segment.symbol]), segment.repeat)
            if segment.symbol
            else np.full(segment.repeat, -1)
            for segment in layout.segments
        ]
    )


def assert_true(model: ir.Model, layout: Layout) -> None:
    """Feeds 100 · object + slot as the content of each slot, and finds it where the layout says."""
    value = model.graph.inputs[0]
    shape = static_shape(value)
    assert shape is not None
    content = (100 * np.arange(shape[0])[:, None] + np.arange(shape[1])).reshape(shape[:2] + (1,) * (len(shape) - 2))
    (result,) = reference(model, {"x": np.broadcast_to(content, shape).astype(np.float32)}).values()
    wanted = 100 * np.arange(shape[0])[:, None] + owners(layout)
    assert layout.batch is not None
    wanted = wanted.repeat(layout.rows, axis=0)
    moved = np.moveaxis(result, (layout.batch, layout.axis), (0, 1))
    assert moved.shape[:2] == wanted.shape
    wanted = wanted.reshape(wanted.shape + (1,) * (moved.ndim - 2))
    np.testing.assert_array_equal(
        moved, np.broadcast_to(np.where(owners(layout).reshape(wanted.shape[1:]) < 0, moved, wanted), moved.shape)
    )


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(2, 3), *[st.integers(1, 4)] * 2),
    perm=st.permutations(range(4)),
    cuts=st.lists(st.booleans(), min_size=3, max_size=3),
    ones=st.lists(st.integers(0, 3), max_size=2),
)
def test_reshapes_and_transposes_are_followed_or_refused(
    sizes: tuple[int, ...], perm: list[int], cuts: list[bool], ones: list[int]
) -> None:
    objects, cells, width = sizes
    shape = [objects, SIZES["n"], cells, width]
    moved = [shape[axis] for axis in perm]
    merged = [moved[0]]
    for size, cut in zip(moved[1:], cuts, strict=True):
        if cut:
            merged.append(size)
        else:
            merged[-1] *= size
    for place in ones:
        merged.insert(min(place, len(merged)), 1)
    text = (
        f"(float{shape} x) => (float{merged} y) <int64[{len(merged)}] s = {{{','.join(map(str, merged))}}}>"
        f" {{ t = Transpose <perm = {perm}> (x) y = Reshape(t, s) }}"
    ).replace(" ]", "]")
    try:
        model, layouts = followed(text)
    except MixedPlacesError:
        groups = {axis: sum(cuts[:index]) for index, axis in enumerate(perm)}
        before_slots = [axis for axis in perm[: perm.index(1)] if groups[axis] == groups[1] and shape[axis] > 1]
        before_objects = [axis for axis in perm[: perm.index(0)] if groups[axis] == groups[0] and shape[axis] > 1]
        assert before_slots or before_objects or groups[0] == groups[1], "nothing mixes, and yet it was refused"
    else:
        assert_true(model, layouts["y"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(float[2,5,3] x) => (float[2,5,3] y) { y = Relu(x) }", START),
        ("(float[2,5,3] x, float[5,1] z) => (float[2,5,3] y) { y = Mul(z, x) }", START),
        ("(float[2,5,3] x, float[3,4] w) => (float[2,5,4] y) { y = MatMul(x, w) }", START),
        ("(float[2,5,3] x, float[4,2] w) => (float[2,4,5] y)"
         " { t = Transpose <perm=[0,2,1]> (x) k = Slice(t, zero, two, one) y = MatMul(w, k) }",
         Layout(2, (Segment("n", 1),), 0)),
        ("(float[2,5,3] x) => (float[2,5,12] y) { s = Constant <value_ints = [1,1,4]> () y = Tile(x, s) }", START),
        ("(float[2,5,3] x) => (float[2,5] y) { y = ReduceSum <keepdims = 0> (x, two) }", START),
        ("(float[2,5,3] x) => (float[2,8,3] y) { z = ConstantOfShape(shape) y = Concat <axis = 1> (z, x) }",
         Layout(1, (Segment(None, 3), Segment("n", 1)), 0)),
        ("(float[2,5,3] x) => (float[2,5,3] y) { c = Concat <axis = 1> (x, x) y = Slice(c, zero, five, one) }", START),
    ],
)  # fmt: skip
def test_single_nodes(text: str, wanted: Layout) -> None:
    constants = (
        "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] five = {5}, int64[3] shape = {2,3,3}> {"
    )
    assert followed(text.replace("{", constants, 1))[1]["y"] == wanted


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        ([[5, 2, 6], [5, 4, 3]], Layout(0, (Segment("n", 1),), 1, 2)),  # heads join the objects
        ([[5, 2, 6], [5, 4, 3], [5, 2, 2, 3]], Layout(0, (Segment("n", 1),), 1, 1)),  # and part from them
        ([[5, 2, 6], [5, 12], [5, 4, 3]], Layout(0, (Segment("n", 1),), 1, 2)),
    ],
)
def test_heads_that_join_the_objects_are_rows_of_theirs(shapes: list[list[int]], wanted: Layout) -> None:
    nodes = [f"s{i} = Constant <value_ints = {shape}> ()" for i, shape in enumerate(shapes)]
    nodes += [f"x{i + 1} = Reshape(x{i}, s{i})" for i in range(len(shapes))]
    axes = ",".join(f"d{i}" for i in range(len(shapes[-1])))
    body = " ".join(["x0 = Transpose <perm = [1,0,2]> (x)", *nodes])
    text = f"(float[2,5,6] x) => (float[{axes}] x{len(shapes)}) {{ {body} }}"
    model, layouts = followed(text)
    assert layouts[f"x{len(shapes)}"] == wanted
    assert_true(model, wanted)


@pytest.mark.parametrize(("perm", "shape"), [([1, 0, 2], [5, 3, 4]), ([1, 2, 0], [5, 12, 1])])
def test_an_object_that_is_cut_into_pieces_or_mixed_with_others_is_refused(perm: list[int], shape: list[int]) -> None:
    text = f"""(float[2,5,6] x) => (float[a,b,c] y) {{
        t = Transpose <perm = {perm}> (x)
        s = Constant <value_ints = {shape}> ()
        y = Reshape(t, s)
    }}"""
    with pytest.raises(MixedPlacesError, match="merges or splits the axis of the objects"):
        followed(text)


def test_what_is_cut_off_holds_no_slots() -> None:
    text = """(float[2,5,3] x) => (float[2,3,3] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3},
    int64[3] shape = {2,3,3}> {
        z = ConstantOfShape(shape) c = Concat <axis = 1> (z, x) y = Slice(c, zero, three, one)
    }"""
    assert "y" not in followed(text)[1]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("y = com.microsoft.Gelu(x)", "not known to keep them apart"),
        ("y = CumSum(x, one)", "not known to keep them apart"),
        ("y = Softmax <axis = 1> (x)", "axis 1, which holds the slots"),
        ("y = Softmax <axis = 0> (x)", "axis 0, which holds the objects"),
        ("y = LayerNormalization <axis = 1> (x, g)", "axis 2|axis 1, which holds the slots"),
        ("y = ReduceMax(x)", "axis 1, which holds the slots"),
        ("t = Transpose <perm = [0, 2, 1]> (x) y = Add(sq, t)", "hold the slots in different places"),
        ("y = MatMul(sq, x)", "it sums over the slots"),
        ("y = Gather <axis = 1> (x, one)", "axis 1, which holds the slots"),
        ("y = Concat <axis = 0> (x, x)", "joins along the axis of the objects"),
        ("y = Split <axis = 0, num_outputs = 1> (x)", "splits the axis of the objects"),
        ("s = Constant <value_ints = [1,2,1]> () y = Tile(x, s)", "it repeats axis 1"),
    ],
)
def test_what_mixes_places_is_refused(node: str, reason: str) -> None:
    node = node.replace("Add(sq, t)", "Add(x, t)").replace("MatMul(sq, x)", "MatMul(w, x)")
    width = 5 if "Add" in node else 3
    text = f"(float[2,5,{width}] x, float[4,5] w, float[5,3] g) => (float[a,b,c] y) <int64[1] one = {{1}}> {{ {node} }}"
    with pytest.raises(MixedPlacesError, match=reason):
        followed(text)


def test_the_length_of_a_segment_is_its_repeat_for_each_slot() -> None:
    assert [segment.length({"n": 7}) for segment in (Segment("n", 3), Segment(None, 3))] == [21, 3]
    assert math.prod((Segment("n", 1).length({"n": 1}), 1)) == 1
