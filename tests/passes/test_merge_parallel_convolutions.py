"""A sum of convolutions of one input becomes one convolution, where it is no more work, and nowhere else."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.convolution_call import read_convolution
from samonnx.passes.fold_affine import FoldAffine
from samonnx.passes.graph_values import static_shape
from samonnx.passes.merge_parallel_convolutions import MergeParallelConvolutions
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.graph_text import body_of

REPVIT = """(float[1,4,5,6] x, float[4,1,3,3] w3, float[4] b3, float[4,1,1,1] w1, float[4] b1)
=> (float[1,4,5,6] y) {
    c3 = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w3, b3)
    c1 = Conv <group = 4> (x, w1, b1)
    s = Add(c3, c1)
    y = Add(s, x)
}"""
WEIGHTS = ("w3", "b3", "w1", "b1", "w")


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@st.composite
def sums(draw: st.DrawFn) -> tuple[str, list[str]]:
    """The text of a graph that adds up convolutions of x and perhaps x itself, and the names of its weights."""
    dtype = draw(st.sampled_from(["float", "double"]))
    group = draw(st.sampled_from([1, 2, 4]))
    stride = draw(st.integers(1, 2))
    declared, lines, terms = [f"{dtype}[2,4,6,7] x", f"{dtype}[2,4,a,b] z"], [], []
    for at in range(draw(st.integers(1, 3))):
        # With these kernels and pads every branch has the same output: an even kernel leans to one side or the other.
        height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        pads = [top, left, height - 1 - top, width - 1 - left]
        bias = draw(st.booleans())
        declared += [f"{dtype}[4,{4 // group},{height},{width}] w{at}"] + [f"{dtype}[4] b{at}"] * bias
        lines.append(
            f"c{at} = Conv <group = {group}, strides = [{stride}, {stride}], pads = {pads}> "
            f"(x, w{at}{f', b{at}' if bias else ''})"
        )
        terms.append(f"c{at}")
    skips = draw(st.integers(0, 2)) if stride == 1 else 0
    terms = draw(st.permutations([*terms, *["x"] * skips, *["z"] * draw(st.integers(0, 1))]))
    total = terms[0]
    for at, term in enumerate(terms[1:]):
        lines.append(f"s{at} = Add({', '.join(draw(st.permutations([total, term])))})")
        total = f"s{at}"
    lines.append(f"y = Relu({total})")
    size = {1: "6,7", 2: "3,4"}[stride]
    text = f"({', '.join(declared)}) => ({dtype}[2,4,{size}] y) {{\n" + "\n".join(lines) + "\n}"
    return text.replace("[2,4,a,b]", f"[2,4,{size}]"), [value.split(" ")[1] for value in declared[2:]]


@settings(max_examples=60, deadline=None)
@given(graph=sums(), growth=st.sampled_from([1.0, 100.0]), seed=st.integers(0, 99))
def test_a_sum_of_convolutions_of_one_input_gives_the_same_result(
    graph: tuple[str, list[str]], growth: float, seed: int
) -> None:
    text, names = graph
    model = typed(text, *names, seed=seed)
    feeds = random_feeds(model, seed)
    wanted, before = reference(model, feeds), graph_statistics(model)
    branches = operators(model).count("Conv")
    modified = MergeParallelConvolutions(most_growth=growth)(model).modified
    after = graph_statistics(model)
    assert modified == (after.nodes < before.nodes)
    assert after.flops <= growth * before.flops
    if growth > 1 and branches > 1:
        assert operators(model).count("Conv") == 1
        assert modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE["double" if "double" in text else "float"]
    assert not MergeParallelConvolutions(most_growth=growth)(model).modified


def test_three_branches_become_one_convolution_of_the_largest_kernel() -> None:
    model = typed(REPVIT, *WEIGHTS)
    model.graph.node(0).name = "token_mixer"
    feeds, flops = random_feeds(model, 0), graph_statistics(model).flops
    wanted = reference(model, feeds)
    assert MergeParallelConvolutions()(model).modified
    assert body_of(model) == ["y = Conv(x, token_mixer/weight, token_mixer/bias)"]
    merged = read_convolution(model.graph.node(0)).map
    assert (merged.kernel, merged.pads, merged.group) == ((3, 3), (1, 1, 1, 1), 4)
    assert static_shape(model.graph.outputs[0]) == (1, 4, 5, 6)
    assert flops - graph_statistics(model).flops == 2 * 4 * 5 * 6  # those of the 1 × 1
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    assert not MergeParallelConvolutions()(model).modified


def test_the_normalization_behind_repvits_branches_goes_into_the_merged_kernel() -> None:
    text = REPVIT.replace("y = Add(s, x)", "t = Add(s, x) y = BatchNormalization(t, b1, b1, b3, v)")
    model = typed(text.replace("float[4] b1)", "float[4] b1, float[4] v)"), *WEIGHTS)
    variance = next(value for value in model.graph.inputs if value.name == "v")
    model.graph.inputs.remove(variance)
    variance.const_value = ir.tensor([0.5, 1.0, 2.0, 3.0], dtype=ir.DataType.FLOAT, name="v")
    model.graph.register_initializer(variance)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert not FoldAffine()(model).modified
    assert MergeParallelConvolutions()(model).modified
    assert FoldAffine()(model).modified
    assert operators(model) == ["Conv"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_what_else_is_added_stays_added_in_its_place() -> None:
    text = REPVIT.replace("s = Add(c3, c1)", "r = Add(z, c3) s = Add(r, c1)").replace("] x,", "] x, float[1,4,5,6] z,")
    model = typed(text, *WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert MergeParallelConvolutions()(model).modified
    assert operators(model) == ["Conv", "Add"]
    first = model.graph.node(1).inputs[0]
    assert first is not None
    assert first.name == "z"
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "first", "second", "merges"),
    [
        ("1 x 1 inside 3 x 3", "[4,4,3,3] w3|<pads = [1, 1, 1, 1]>", "[4,4,1,1] w1|", True),
        ("two of a size", "[4,4,3,3] w3|<pads = [1, 1, 1, 1]>", "[4,4,3,3] w1|<pads = [1, 1, 1, 1]>", True),
        ("x in a dense 1 x 1", "[4,4,1,1] w3|", "x", True),
        ("x in a dense 3 x 3", "[4,4,3,3] w3|<pads = [1, 1, 1, 1]>", "x", True),
        ("x in a depthwise 3 x 3", "[4,1,3,3] w3|<group = 4, pads = [1, 1, 1, 1]>", "x", True),
        ("a cross, 1 x 3 and 3 x 1", "[4,4,1,3] w3|<pads = [0, 1, 0, 1]>", "[4,4,3,1] w1|<pads = [1, 0, 1, 0]>", False),
        ("kernels that lean apart", "[4,4,2,2] w3|<pads = [1, 1, 0, 0]>", "[4,4,2,2] w1|<pads = [0, 0, 1, 1]>", False),
        ("dense and depthwise", "[4,1,3,3] w3|<group = 4, pads = [1, 1, 1, 1]>", "[4,4,1,1] w1|", False),
        ("dilated", "[4,4,3,3] w3|<pads = [2, 2, 2, 2], dilations = [2, 2]>", "[4,4,1,1] w1|", False),
        ("transposed", "[4,4,1,1] w3|Transpose", "[4,4,1,1] w1|", False),
        ("transposed, x", "[4,4,1,1] w3|Transpose", "x", False),
    ],
)  # fmt: skip
def test_branches_merge_where_that_is_no_more_work(what: str, first: str, second: str, merges: bool) -> None:
    declared, lines = ["float[1,4,5,6] x"], []
    for name, branch in (("a", first), ("b", second)):
        shape, _, attributes = branch.partition("|")
        if branch == "x":
            lines.append("y = Add(x, a)")
        else:
            declared.append(f"float{shape}")
            lines.append(f"{name} = Conv{attributes} (x, {shape.split(' ')[1]})")
    lines += ["y = Add(a, b)"] * (second != "x")
    model = typed(f"({', '.join(declared)}) => (float[1,4,5,6] y) {{ {' '.join(lines)} }}", *WEIGHTS)
    feeds, before = random_feeds(model, 0), graph_statistics(model)
    wanted = reference(model, feeds)
    assert MergeParallelConvolutions()(model).modified == merges, what
    assert graph_statistics(model).flops <= before.flops
    assert graph_statistics(model).nodes == (1 if merges else before.nodes)
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("another reader of a branch", "s = Add(c3", "z = Neg(c3) s = Add(c3"),
        ("a branch that is an output", "(float[1,4,5,6] y)", "(float[1,4,5,6] y, float[1,4,5,6] c3)"),
        ("weights that are an input", "(x, w3, b3)", "(x, u3, b3)"),
        ("a bias that is an input", "(x, w3, b3)", "(x, w3, u)"),
        ("an activation on a branch", "s = Add(c3,", "r = Relu(c3) s = Add(r,"),
        ("a branch of another input", "Conv <group = 4> (x,", "Conv <group = 4> (q,"),
        ("automatic padding", "pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"'),
        ("another operator", "Add(c3", "Sub(c3"),
    ],
)
def test_a_branch_stays(what: str, old: str, new: str) -> None:
    text = REPVIT.replace("y = Add(s, x)", "y = Neg(s)")
    assert MergeParallelConvolutions()(typed(text, *WEIGHTS)).modified
    assert old in text
    text = text.replace(old, new).replace("] x,", "] x, float[1,4,5,6] q, float[4,1,3,3] u3, float[4] u,")
    if "z = " in new:
        text = text.replace("(float[1,4,5,6] y)", "(float[1,4,5,6] y, float[1,4,5,6] z)")
    assert not MergeParallelConvolutions()(typed(text, *WEIGHTS)).modified, what


def test_a_part_of_a_sum_that_is_read_elsewhere_keeps_its_value() -> None:
    text = REPVIT.replace("y = Add(s, x)", "y = Add(s, x) z = Neg(s)")
    model = typed(text.replace("(float[1,4,5,6] y)", "(float[1,4,5,6] y, float[1,4,5,6] z)"), *WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert MergeParallelConvolutions()(model).modified
    assert sorted(operators(model)) == ["Add", "Conv", "Neg"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    assert not MergeParallelConvolutions()(model).modified


def test_branches_of_other_strides_stay() -> None:
    text = """(float[1,4,1,1] x, float[4,4,3,3] w3, float[4,4,1,1] w1) => (float[1,4,1,1] y) {
        c3 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w3)
        c1 = Conv (x, w1)
        y = Add(c3, c1)
    }"""
    assert not MergeParallelConvolutions()(typed(text, *WEIGHTS)).modified
    assert not MergeParallelConvolutions()(typed(text.replace("Add(c3, c1)", "Add(c3, x)"), *WEIGHTS)).modified
    same = text.replace("Conv (x", "Conv <strides = [2, 2]> (x")
    assert MergeParallelConvolutions()(typed(same, *WEIGHTS)).modified


def test_a_residual_around_two_convolutions_stays() -> None:
    text = """(float[1,4,5,6] x, float[8,4,1,1] w1, float[4,8,1,1] w) => (float[1,4,5,6] y) {
        a = Conv (x, w1)
        g = Gelu (a)
        c = Conv (g, w)
        y = Add(x, c)
    }"""
    assert not MergeParallelConvolutions()(typed(text, *WEIGHTS)).modified


def test_a_sum_that_broadcasts_stays() -> None:
    text = """(float[1,4,5,6] x, float[4,4,5,6] w3, float[4,4,1,1] w1) => (float[1,4,5,6] y) {
        c3 = Conv (x, w3)
        c1 = Conv (x, w1)
        y = Add(c3, c1)
    }"""
    assert not MergeParallelConvolutions(most_growth=100)(typed(text, *WEIGHTS)).modified


def test_the_same_graph_becomes_the_same_bytes() -> None:
    model = typed(REPVIT, *WEIGHTS)
    copy = model.clone()
    MergeParallelConvolutions()(model)
    MergeParallelConvolutions()(copy)
    first, second = (ir.to_proto(one).SerializeToString(deterministic=True) for one in (model, copy))
    assert first == second
