from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.evaluation import run_model
from samonnx.passes.fuse_linear_chain import FuseLinearChain
from samonnx.passes.graph_values import static_shape
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed

ANY_MAP = FuseLinearChain(multiply_adds_per_byte=0)
"""On small images a map costs more than it saves; this one does not count it."""


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def assert_shapes_are_those_of_inference(model: ir.Model) -> None:
    found = {value.name: static_shape(value) for node in model.graph for value in node.outputs}
    infer_shapes(model, forget=True)
    assert found == {value.name: static_shape(value) for node in model.graph for value in node.outputs}


LINKS = {
    "point": ("Conv", 1, "group = {g}", 3),
    "same": ("Conv", 3, "group = {g}, pads = [1,1,1,1]", 3),
    "uneven": ("Conv", 2, "group = {g}, pads = [0,1,1,0]", 3),
    "coarser": ("Conv", 3, "group = {g}, strides = [2,1], pads = [1,1,1,1]", 1),
    "finer": ("ConvTranspose", 2, "strides = [2,2]", 1),
    "widened": ("ConvTranspose", 3, "strides = [2,2], pads = [1,1,1,1]", 1),
}
"""Kind → operator, kernel, attributes, how often it is drawn. ONNX's evaluator has no transposed groups."""
OFTEN = [kind for kind, link in LINKS.items() for _ in range(link[3])]


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    kinds=st.lists(st.sampled_from(OFTEN), min_size=2, max_size=4),
    channels=st.lists(st.sampled_from([2, 4, 6]), min_size=5, max_size=5),
    groups=st.lists(st.sampled_from([1, 1, 2]), min_size=4, max_size=4),
    biases=st.lists(st.booleans(), min_size=4, max_size=4),
    options=st.builds(FuseLinearChain, st.booleans(), st.booleans(), st.sampled_from([0, 8])),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_chain_of_convolutions_stays_what_it_was(
    dtype: str,
    kinds: list[str],
    channels: list[int],
    groups: list[int],
    biases: list[bool],
    options: FuseLinearChain,
    seed: int,
) -> None:
    inputs, body, names = [f"{dtype}[1,{channels[0]},4,5] x0"], [], []
    for i, kind in enumerate(kinds):
        operator, kernel, attributes, _ = LINKS[kind]
        group = groups[i] if operator == "Conv" else 1
        before, after = channels[i], channels[i + 1]
        shape = (after, before // group) if operator == "Conv" else (before, after)
        inputs += [f"{dtype}[{shape[0]},{shape[1]},{kernel},{kernel}] w{i}", f"{dtype}[{after}] b{i}"]
        names += [f"w{i}", f"b{i}"]
        operands = f"x{i}, w{i}, b{i}" if biases[i] else f"x{i}, w{i}"
        body.append(f"x{i + 1} = {operator} <{attributes.format(g=group)}> ({operands})")
    text = f"({', '.join(inputs)}) => ({dtype}[a,b,c,d] x{len(kinds)}) {{ {' '.join(body)} }}"
    model = typed(text, *names, seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    before_flops = graph_statistics(model).flops
    modified = options(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    assert not options(model).modified
    assert_shapes_are_those_of_inference(model)
    if not options.interleaved:  # interleaving adds a row and a column
        assert graph_statistics(model).flops <= before_flops
    assert modified == (sum(operator in ("Conv", "ConvTranspose") for operator in operators(model)) < len(kinds))


NARROWING = """(float[1,8,6,7] x, float[8,8,3,3] w, float[8] b, float[2,8,1,1] v, float[2] c) => (float[1,2,6,7] y) {
    a = Conv <pads = [1,1,1,1]> (x, w, b)
    y = Conv (a, v, c)
}"""
WIDENING = """(float[1,4,6,7] x, float[8,4,1,1] w, float[8] b, float[2,8,3,3] v, float[2] c) => (float[1,2,6,7] y) {
    a = Conv (x, w, b)
    y = Conv <pads = [1,1,1,1]> (a, v, c)
}"""
NECK = """(float[1,16,6,7] x, float[16,8,2,2] w0, float[8] b0, float[8,8,1,1] w1, float[8] b1, float[8,8,3,3] w2,
    float[8] b2, float[2,8,1,1] w3, float[2] b3) => (float[1,2,12,14] y) {
    a = ConvTranspose <strides = [2,2]> (x, w0, b0)
    c = Conv (a, w1, b1)
    d = Conv <pads = [1,1,1,1]> (c, w2, b2)
    y = Conv (d, w3, b3)
}"""
NECK_WEIGHTS = ("w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3")


def test_a_convolution_takes_in_the_pointwise_one_behind_it() -> None:
    model = typed(NARROWING, "w", "b", "v", "c")
    assert FuseLinearChain()(model).modified
    assert operators(model) == ["Conv"]
    assert graph_statistics(model).flops == 2 * 42 * 2 * 8 * 9
    assert str(model.graph.outputs[0].name) == "y"


def test_a_bias_before_padding_becomes_a_map_of_few_values() -> None:
    model = typed(WIDENING, "w", "b", "v", "c")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert ANY_MAP(model).modified
    assert operators(model) == ["Conv", "Gather", "Gather", "Add"]
    table = next(value for name, value in model.graph.initializers.items() if "border" in name)
    assert static_shape(table) == (1, 2, 3, 3)
    assert graph_statistics(model).flops == 2 * 42 * 2 * 4 * 9
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_without_a_bias_before_padding_there_is_no_map() -> None:
    for text in (WIDENING.replace("(x, w, b)", "(x, w)"), WIDENING):
        model = typed(text, "w", "b", "v", "c")
        if "b" in model.graph.initializers:
            model.graph.initializers["b"].const_value = ir.tensor(np.zeros(8, np.float32), name="b")
        assert FuseLinearChain()(model).modified
        assert operators(model) == ["Conv"]


def test_a_map_that_costs_more_than_it_saves_is_not_made() -> None:
    assert not FuseLinearChain()(typed(WIDENING, "w", "b", "v", "c")).modified


def test_the_neck_becomes_one_transposed_convolution() -> None:
    model = typed(NECK, *NECK_WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FuseLinearChain(interleaved=False, multiply_adds_per_byte=0)(model).modified
    assert operators(model) == ["ConvTranspose", "Gather", "Gather", "Add"]
    assert model.graph[0].attributes.get_ints("kernel_shape") == (4, 4)
    assert model.graph[0].attributes.get_ints("pads") == (1, 1, 1, 1)
    assert graph_statistics(model).flops == 2 * 42 * 16 * 2 * 16
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_a_transposed_convolution_that_overlaps_is_computed_by_phases() -> None:
    model = typed(NECK, *NECK_WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert ANY_MAP(model).modified
    assert sorted(operators(model)) == ["Add", "Conv", "DepthToSpace", "Gather", "Gather", "Slice"]
    assert graph_statistics(model).flops == 2 * (7 * 8) * (4 * 2) * 16 * 4
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_pairs_without_a_map_go_first_since_nothing_passes_a_map() -> None:
    text = """(float[1,2,6,7] x, float[8,2,1,1] w0, float[8] b0, float[8,8,3,3] w2, float[6,8,1,1] w3)
    => (float[1,6,6,7] y) {
        a = Conv (x, w0, b0)
        d = Conv <pads = [1,1,1,1]> (a, w2)
        y = Conv (d, w3)
    }"""
    model = typed(text, *NECK_WEIGHTS)
    assert ANY_MAP(model).modified
    assert operators(model) == ["Conv", "Gather", "Gather", "Add"]


def test_what_is_made_in_several_runs_has_names_of_its_own() -> None:
    text = """(float[1,3,6,7] x, float[3,2,2,2] w0, float[2] b0, float[8,2,1,1] w1, float[8] b1, float[8,8,3,3] w2)
    => (float[1,8,12,14] y) {
        a = ConvTranspose <strides = [2,2]> (x, w0, b0)
        c = Conv (a, w1, b1)
        y = Conv <pads = [1,1,1,1]> (c, w2)
    }"""
    model = typed(text, *NECK_WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FuseLinearChain(overlapping=False, multiply_adds_per_byte=0)(model).modified
    assert ANY_MAP(model).modified
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    assert operators(model).count("Add") == 2
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_tiles_stay_apart_until_they_may_overlap() -> None:
    model = typed(NECK, *NECK_WEIGHTS)
    apart = FuseLinearChain(overlapping=False, multiply_adds_per_byte=0)
    assert apart(model).modified
    assert operators(model) == ["ConvTranspose", "Conv"]
    assert model.graph[0].attributes.get_ints("kernel_shape") == (2, 2)
    assert not apart(model).modified
    assert ANY_MAP(model).modified


def test_a_scale_of_each_channel_goes_into_the_convolution() -> None:
    text = NARROWING.replace("float[2,8,1,1] v, float[2] c", "float[8,1,1,1] v, float[8] c").replace(
        "float[1,2,6,7]", "float[1,8,6,7]"
    )
    model = typed(text.replace("Conv (a", "Conv <group = 8> (a"), "w", "b", "v", "c")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FuseLinearChain()(model).modified
    assert operators(model) == ["Conv"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "text", "old", "new"),
    [
        ("another reader", NARROWING, "y = Conv", "z = Neg(a) y = Conv"),
        ("an output in between", NARROWING, "(float[1,2,6,7] y)", "(float[1,2,6,7] y, float[1,8,6,7] a)"),
        ("a weight that is an input", NARROWING, "(x, w, b)", "(x, u, b)"),
        ("an activation in between", NARROWING, "y = Conv (a", "r = Relu(a) y = Conv (r"),
        ("padding of the pointwise one", NARROWING, "y = Conv (", "y = Conv <pads = [1,1,1,1]> ("),
        ("a stride of the pointwise one", NARROWING, "y = Conv (", "y = Conv <strides = [2,2]> ("),
        ("two padded 3 x 3", NARROWING, "float[2,8,1,1] v", "float[2,8,3,3] v"),
        ("more work", NARROWING, "float[8,8,3,3] w, float[8] b, float[2,8", "float[2,8,3,3] w, float[2] b, float[6,2"),
        ("a group for each channel", NARROWING, "float[8,8,3,3] w", "float[8,1,3,3] w"),
        ("a stride after tiles", NECK, "d = Conv <pads = [1,1,1,1]>", "d = Conv <pads = [1,1,1,1], strides = [2,2]>"),
        ("a stride before a padded one", WIDENING, "a = Conv", "a = Conv <strides = [2,2]>"),
    ],
)
def test_it_declines(what: str, text: str, old: str, new: str) -> None:
    changed = text.replace(old, new)
    assert changed != text
    changed = changed.replace("(float[1,8,6,7] x,", "(float[1,8,6,7] x, float[8,8,3,3] u,")
    if "float[8,1,3,3] w" in changed:
        changed = changed.replace("a = Conv <", "a = Conv <group = 8, ")
    if "z = Neg" in changed:
        changed = changed.replace("float[1,2,6,7] y)", "float[1,2,6,7] y, float[1,8,6,7] z)")
    if text is NECK:  # only the step in question: a 2 x 2 transposed convolution, then 3 x 3 with stride 2
        changed = (
            changed.replace("c = Conv (a, w1, b1)", "").replace("(c, w2", "(a, w2").replace("y = Conv (d, w3, b3)", "")
        )
        changed = changed.replace("=> (float[1,2,12,14] y)", "=> (float[1,8,6,7] d)")
    for shape in ("float[1,2,6,7] y", "float[1,2,6,7]"):
        changed = changed.replace(shape, shape.replace("1,2,6,7", "n,c,h,v"))
    model = typed(changed, "w", "b", "v", "c", *NECK_WEIGHTS)
    assert not ANY_MAP(model).modified, what


PRODUCTS = """({dtype}[2,3,1,{a}] x, {dtype}[{a},{b}] w, {dtype}[{b}] p, {dtype}[{b},{c}] v, {dtype}[1,{c}] q)
=> ({dtype}[1,3,2,{c}] y) <int64[4] shape = {{1, 3, 2, -1}}, int64[1] one = {{2}}> {{
    {first}
    t = Transpose <perm = [1, 2, 0, 3]> (f)
    r = Reshape(t, shape)
    {second}
}}"""


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    biases=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 99),
)
def test_products_with_moves_and_biases_between_become_one_where_that_is_no_more_work(
    dtype: str, sizes: tuple[int, int, int], biases: tuple[bool, bool], seed: int
) -> None:
    a, b, c = sizes
    text = PRODUCTS.format(
        dtype=dtype, a=a, b=b, c=c,
        first="m = MatMul(x, w) f = Add(p, m)" if biases[0] else "f = MatMul(x, w)",
        second="n = MatMul(r, v) y = Add(n, q)" if biases[1] else "y = MatMul(r, v)",
    )  # fmt: skip
    model = typed(text, "w", "p", "v", "q", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    before = graph_statistics(model).flops
    fires = a * c <= b * (a + c)
    assert FuseLinearChain()(model).modified == fires
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    assert not FuseLinearChain()(model).modified
    assert_shapes_are_those_of_inference(model)
    if fires:
        assert graph_statistics(model).flops == 2 * 6 * a * c <= before
        assert operators(model).count("MatMul") == 1
        assert operators(model).count("Add") == any(biases)


def test_three_products_become_one() -> None:
    text = """(float[5,6] x, float[6,8] w, float[8,8] v, float[8] p, float[8,3] u) => (float[5,3] y) {
        a = MatMul(x, w)
        c = MatMul(a, v)
        d = Add(c, p)
        y = MatMul(d, u)
    }"""
    for inner in (text, text.replace("d = Add(c, p)", "").replace("(d, u)", "(c, u)")):
        model = typed(inner, "w", "v", "p", "u")
        feeds = random_feeds(model, 0)
        wanted = reference(model, feeds)
        assert FuseLinearChain()(model).modified
        assert operators(model) == (["MatMul", "Add"] if inner is text else ["MatMul"])
        assert largest_error(wanted, reference(model, feeds)) <= 1e-5


GEMMS = """(float[5,6] x, float[7,6] w, float[7] p, float[7,3] v, float[3] q) => (float[5,3] y) {
    m = Gemm <transB = 1> (x, w, p)
    y = Gemm (m, v, q)
}"""


def test_gemms_are_products_with_a_bias() -> None:
    model = typed(GEMMS, "w", "p", "v", "q")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FuseLinearChain()(model).modified
    assert operators(model) == ["MatMul", "Add"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("another reader", "y = Gemm", "z = Neg(m) y = Gemm"),
        ("an output in between", "(float[5,3] y)", "(float[5,3] y, float[5,7] m)"),
        ("a weight that is an input", "(x, w, p)", "(x, u, p)"),
        ("a factor", "transB = 1", "transB = 1, alpha = 0.5"),
        ("a bias for each row", "float[7] p", "float[5,1] p"),
        ("channels that move", "y = Gemm (m", "t = Transpose(m) y = Gemm <transA = 1> (t"),
        ("more work", "float[7,6] w, float[7] p, float[7,3]", "float[1,6] w, float[1] p, float[1,3]"),
    ],
)
def test_products_that_do_not_compose_stay(what: str, old: str, new: str) -> None:
    text = GEMMS.replace(old, new)
    assert text != GEMMS
    text = text.replace("(float[5,6] x,", "(float[5,6] x, float[7,6] u,")
    if "z = Neg" in text:
        text = text.replace("(float[5,3] y)", "(float[5,3] y, float[5,7] z)")
    assert not FuseLinearChain()(typed(text, "w", "p", "v", "q")).modified, what


SQUARE = """(float[6,6] x, float[6,6] w, float[6,6] v, float[6,1] p, float[9,4] u) => (float[n,m] y)
<int64[2] shape = {4, 9}> {
    a = MatMul(x, w)
    f = Identity(a)
    y = MatMul(f, v)
}"""


@pytest.mark.parametrize("between", ["Transpose(a)", "Add(a, p)", "Reshape(a, shape)"])
def test_what_stands_between_products_must_leave_rows_as_they_are(between: str) -> None:
    text = SQUARE.replace("Identity(a)", between)
    if "Reshape" in between:
        text = text.replace("(f, v)", "(f, u)")
    assert not FuseLinearChain()(typed(text, "w", "v", "p", "u")).modified
