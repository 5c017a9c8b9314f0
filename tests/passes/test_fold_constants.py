from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.errors import SamonnxError
from samonnx.passes import graph_statistics
from samonnx.passes.fold_constants import FoldConstants
from samonnx.passes.interface import Array
from samonnx.passes.shape_inference import ShapeInferenceError
from tests.passes.graph_text import assert_same_bits, body_of, constants_of, model_of, ports_of


def folded(text: str, *, size_limit: int = 1 << 20, feeds: dict[str, Array] | None = None) -> ir.Model:
    """The folded graph, after checking that it computes the same bits, is stable, and kept its ports."""
    model, original = model_of(text), model_of(text)
    FoldConstants(size_limit=size_limit)(model)
    assert_same_bits(original, model, feeds)
    assert ports_of(model) == ports_of(original)
    again = model.clone()
    assert not FoldConstants(size_limit=size_limit)(again).modified
    assert ir.to_onnx_text(again) == ir.to_onnx_text(model)
    return model


def test_a_chain_of_constants_becomes_one_initialiser() -> None:
    model = folded("""(float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 5}> {
        c = Mul(a, b)
        d = Sqrt(c)
        y = Mul(x, d)
    }""")
    assert body_of(model) == ["y = Mul(x, d/constant)"]
    assert constants_of(model) == {"d/constant": np.sqrt(np.array([3, 10], np.float32)).tolist()}


def test_constant_nodes_become_initialisers() -> None:
    model = folded("""(float[2] x) => (float[2] y) {
        c = Constant <value_float = 3.0> ()
        y = Mul(x, c)
    }""")
    assert body_of(model) == ["y = Mul(x, c)"]


def test_a_constant_output_keeps_its_name_behind_an_identity() -> None:
    model = folded("""(float[1] x) => (float[1] y, float[1] z) <float[1] a = {4}> {
        y = Sqrt(a)
        z = Neg(x)
    }""")
    assert body_of(model) == ["z = Neg(x)", "y = Identity(y/constant)"]


def test_every_named_output_of_a_node_folds() -> None:
    model = folded("""(float[2] x) => (float[2] y) <float[4] a = {1, 2, 3, 4}> {
        b, c = Split <axis = 0, num_outputs = 2> (a)
        d = Add(x, b)
        y = Mul(d, c)
    }""")
    assert constants_of(model) == {"b/constant": [1, 2], "c/constant": [3, 4]}


def test_an_unnamed_optional_output_is_no_obstacle() -> None:
    model = folded("""(float[1,1,1,1] x) => (float[1,1,1,1] y) <float[1,1,1,2] a = {1, 2}> {
        b = MaxPool <kernel_shape = [1, 2]> (a)
        y = Mul(x, b)
    }""")
    assert body_of(model) == ["y = Mul(x, b/constant)"]


def test_a_table_above_the_limit_is_not_stored() -> None:
    text = """(float[64] x) => (float[64,64] y) <int64 zero = {0}, int64 n = {64}, int64 one = {1},
                                                 int64[2] column = {64, 1}> {
        i = Range(zero, n, one)
        r = Cast <to = 1> (i)
        c = Reshape(r, column)
        table = Mul(c, r)
        y = Add(x, table)
    }"""
    assert [node.op_type for node in folded(text, size_limit=64 * 64 * 4).graph] == ["Add"]
    kept = folded(text, size_limit=64 * 64 * 4 - 1)
    assert [node.op_type for node in kept.graph] == ["Mul", "Add"]
    assert graph_statistics(kept).constant_bytes == 2 * 64 * 4


def test_a_result_above_the_limit_is_stored_when_it_replaces_as_many_bytes() -> None:
    text = """(float[1,2] x) => (float[1,3] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
        t = Transpose <perm = [1, 0]> (w)
        y = MatMul(x, t)
    }"""
    model = folded(text, size_limit=0)
    assert body_of(model) == ["y = MatMul(x, t/constant)"]
    assert list(constants_of(model)) == ["t/constant"]


def test_a_result_above_the_limit_stays_a_node_while_its_source_lives_on() -> None:
    model = folded(
        """(float[2,2] x) => (float[2,2] y, float[2,2] z) <float[2,2] w = {1, 2, 3, 4}> {
        t = Transpose <perm = [1, 0]> (w)
        y = MatMul(x, t)
        z = MatMul(x, w)
    }""",
        size_limit=0,
    )
    assert body_of(model) == ["t = Transpose(w)", "y = MatMul(x, t)", "z = MatMul(x, w)"]


def test_one_source_does_not_pay_for_two_results() -> None:
    model = folded(
        """(float[2,2] x) => (float[2,2] y, float[2,2] z) <float[2,2] w = {1, 2, 3, 4}> {
        t = Transpose <perm = [1, 0]> (w)
        y = MatMul(x, t)
        s = Sqrt(w)
        z = MatMul(x, s)
    }""",
        size_limit=0,
    )
    assert graph_statistics(model).constant_bytes == 16
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul", "Sqrt", "MatMul"]


def test_a_small_result_of_a_large_intermediate_folds() -> None:
    model = folded(
        """(float[1] x) => (float[1] y) <int64[1] n = {100000}, float[1] two = {2}> {
        ones = ConstantOfShape <value = float[1] {1}> (n)
        twos = Mul(ones, two)
        top = ReduceMax <keepdims = 1> (twos)
        y = Mul(x, top)
    }""",
        size_limit=16,
    )
    assert body_of(model) == ["y = Mul(x, top/constant)"]
    assert constants_of(model) == {"top/constant": [2]}


def test_a_large_uniform_result_becomes_one_fill() -> None:
    model = folded("""(float[100,20] x) => (float[100,20] y) <int64[2] n = {20, 100}, float three = {3}> {
        e = Expand(three, n)
        t = Transpose <perm = [1, 0]> (e)
        y = Max(x, t)
    }""")
    assert [node.op_type for node in model.graph] == ["ConstantOfShape", "Max"]
    assert constants_of(model) == {"t/constant/shape": [100, 20]}


def test_what_stays_a_node_reads_a_stored_result_rather_than_its_larger_source() -> None:
    model = folded(
        """(float[8] x) => (float[8] y) <double[2] w = {1, 2}, int64[1] four = {4}> {
        narrow = Cast <to = 1> (w)
        wide = Tile(narrow, four)
        y = Add(x, wide)
    }""",
        size_limit=8,
    )
    assert body_of(model) == ["wide = Tile(narrow/constant, four)", "y = Add(x, wide)"]


def test_what_a_constant_condition_cuts_off_is_gone() -> None:
    model = folded("""(float[2,3] x, bool[2,1] valid) => (float[2,3] y) <bool[1] pinned = {0}> {
        used = And(valid, pinned)
        heavy = Mul(x, x)
        y = Where(used, heavy, x)
    }""")
    assert body_of(model) == ["y = Identity(x)"]


def test_shapes_are_static_after_folding() -> None:
    model = folded("""(float[2,6] x, float[2,3,2] z) => (float[a,b,c] y) {
        s = Shape(z)
        r = Reshape(x, s)
        y = Add(r, z)
    }""")
    assert body_of(model) == ["r = Reshape(x, s/constant)", "y = Add(r, z)"]
    assert model.graph.outputs[0].shape == ir.Shape([2, 3, 2])


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (
            "a foreign domain",
            "(float[2] x) => (float[2] y) <float[2] a = {1, 2}> { b = com.microsoft.Gelu(a) y = Mul(x, b) }",
        ),
        ("a random operator", "(float[2] x) => (float[2] y) { b = RandomNormal <shape = [2]> () y = Mul(x, b) }"),
        (
            "an initialiser that is an input",
            "(float[2] x, float[2] a) => (float[2] y) <float[2] a = {1, 2}> { b = Sqrt(a) y = Mul(x, b) }",
        ),
        (
            "quantised weights",
            "(float[2] x) => (float[2] y) <int8[2] a = {1, 2}, float s = {0.5}>"
            " { b = DequantizeLinear(a, s) y = Mul(x, b) }",
        ),
    ],
)
def test_it_declines(what: str, text: str) -> None:
    model = model_of(text)
    nodes = body_of(model)
    FoldConstants()(model)
    assert body_of(model) == nodes, what


def test_a_contradiction_in_the_graph_is_an_error_and_not_a_warning() -> None:
    model = model_of("(float[2,3] x, float[4,5] z) => (float[2,n] y) { y = Add(x, z) }")
    with pytest.raises(
        ShapeInferenceError, match=r"shape inference failed in graph 'graph': .*Incompatible dimensions"
    ):
        FoldConstants()(model)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(SamonnxError, match="size_limit is -1; expected a number of bytes"):
        FoldConstants(size_limit=-1)


def test_large_weights_are_not_serialised_for_shape_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("(float[1,300] x) => (float[1,n] y) <float[300,2] w> { y = MatMul(x, w) }")
    weight = model.graph.inputs[1] if len(model.graph.inputs) > 1 else None
    assert weight is None
    value = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([300, 2]))
    value.const_value = _Unreadable()
    model.graph.register_initializer(value)
    model.graph.node(0).replace_input_with(1, value)
    FoldConstants()(model)
    assert model.graph.outputs[0].shape == ir.Shape([1, 2])


class _Unreadable(ir.LazyTensor):
    def __init__(self) -> None:
        super().__init__(self._refuse, dtype=ir.DataType.FLOAT, shape=ir.Shape([300, 2]), name="w")

    def _refuse(self) -> ir.TensorProtocol:
        raise AssertionError("the weight was read")


@st.composite
def masked_graphs(draw: st.DrawFn) -> str:
    """Random logic over an input and constants of broadcastable shapes, ending in a Where."""
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shapes = [(rows, columns), (rows, 1), (1, columns), (1, 1), (columns,), (1,)]
    lines, names = [], ["valid"]
    constants = []
    for index in range(draw(st.integers(1, 3))):
        shape = draw(st.sampled_from(shapes))
        size = int(np.prod(shape))
        bits = draw(st.sampled_from([[0] * size, [1] * size, [position % 2 for position in range(size)]]))
        dims, numbers = ",".join(map(str, shape)), ", ".join(map(str, bits))
        constants.append(f"bool[{dims}] c{index} = {{{numbers}}}")
        names.append(f"c{index}")
    for index in range(draw(st.integers(1, 5))):
        op = draw(st.sampled_from(["And", "Or", "Xor", "Not"]))
        left, right = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        lines.append(f"m{index} = {op}({left}{'' if op == 'Not' else ', ' + right})")
        names.append(f"m{index}")
    lines.append(f"y = Where({names[-1]}, a, b)")
    header = f"(bool[{rows},1] valid, float[{rows},{columns}] a, float[1,{columns}] b) => (float[p,q] y)"
    return f"{header} <{', '.join(constants)}> {{ {' '.join(lines)} }}"


@settings(max_examples=40, deadline=None)
@given(masked_graphs())
def test_masks_fold_without_changing_a_bit(text: str) -> None:
    folded(text)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    limit=st.sampled_from([0, 16, 1 << 20]),
    data=st.data(),
)
def test_data_movement_over_constants_folds_for_any_shape(shape: list[int], limit: int, data: st.DataObject) -> None:
    size = int(np.prod(shape))
    dims = ",".join(map(str, shape))
    perm = data.draw(st.permutations(range(len(shape))))
    numbers = ", ".join(str(number) for number in range(size))
    text = f"""(float[{dims}] x) => (float[n] y, float[{",".join(str(shape[axis]) for axis in perm)}] z)
        <float[{dims}] w = {{{numbers}}}, int64[1] flat = {{-1}}> {{
        t = Transpose <perm = {list(perm)}> (w)
        xt = Transpose <perm = {list(perm)}> (x)
        z = Add(xt, t)
        f = Reshape(t, flat)
        g = Concat <axis = 0> (f, f)
        y = Neg(g)
    }}"""
    if size == 0:
        text = (
            text.replace("Reshape(t, flat)", "Reshape <allowzero = 0> (t, flat)")
            .replace("{-1}", "{0}")
            .replace("allowzero = 0", "allowzero = 1")
        )
    folded(text, size_limit=limit)


@pytest.mark.parametrize(
    "body",
    [
        "s = SequenceConstruct(c, c) y = ConcatFromSequence <axis = 0> (s)",
        "t = Cast <to = 8> (c) y = Cast <to = 1> (t)",
    ],
)
def test_sequences_and_text_are_not_stored(body: str) -> None:
    model = model_of(f"(float[2] x) => (float[N] y) <float[2] c = {{1, 2}}> {{ {body} }}")
    original = model.clone()
    FoldConstants()(model)
    assert [node.op_type for node in model.graph] == [node.op_type for node in original.graph]
    assert_same_bits(original, model)
