from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import EliminateDead, graph_statistics
from samonnx.passes.evaluation import run_model
from samonnx.passes.graph_values import static_shape
from samonnx.passes.upscale_by_phase import UpscaleByPhase
from tests.passes.attention_oracle import largest_error, random_feeds, reference, typed
from tests.passes.projected_attention import assert_law, shapes_are_known

PASS = UpscaleByPhase()
ALWAYS = UpscaleByPhase(most_moved=100)
"""Whatever is to be laid out."""

STEPS = {
    "norm": """m{n} = ReduceMean(x{i}, channel) d{n} = Sub(x{i}, m{n}) s{n} = Mul(d{n}, d{n})
        v{n} = ReduceMean(s{n}, channel) e{n} = Add(v{n}, tenth) r{n} = Sqrt(e{n}) q{n} = Div(d{n}, r{n})
        g{n} = Mul(q{n}, gain) x{n} = Add(g{n}, shift)""",
    "gelu": "x{n} = Gelu(x{i})",
    "skip": "x{n} = Add(map{k}, x{i})",
    "same": "a{n} = Tanh(x{i}) x{n} = Mul(x{i}, a{n})",
    "pointwise": "x{n} = Conv(x{i}, mix, shift1)",
    "smooth": "x{n} = Conv <pads = [1, 1, 1, 1]> (x{i}, blur)",
    "output": "x{n} = Relu(x{i}) z = Neg(x{n})",
}
"""Kind → nodes from x{i} to x{n} at k times the grid."""
ENDS = {
    "product": "f = Reshape(x{i}, flat) p = MatMul(rows, f) y = Reshape(p, masks)",
    "channels": "y = Conv(x{i}, narrow)",
    "one": "y = ReduceMax(x{i}, channel)",
    "pool": "o = Tanh(x{i}) y = ReduceMean(o, space)",
    "slice": "o = Tanh(x{i}) y = Slice(o, from, to, last)",
    "all": "y = Identity(x{i})",
}
WEIGHTS = ("w0", "w1", "b0", "b1", "gain", "shift", "shift1", "mix", "blur", "narrow")


@dataclass(frozen=True)
class Upscaling:
    """A map x0 [batch, 4, height, width], enlarged once or twice (`factors`) to 4 channels, with `steps` behind each
    enlargement, and one of `ENDS`."""

    batch: int = 1
    grid: tuple[int, int] = (2, 3)
    factors: tuple[int, ...] = (2, 2)
    steps: tuple[tuple[str, ...], ...] = (("norm", "gelu"), ("gelu",))
    end: str = "product"

    def model(self, *changes: tuple[str, str], seed: int = 0) -> ir.Model:
        body, count, scale, maps, outputs = [], 0, 1, [], ""
        height, width = self.grid
        for at, factor in enumerate(self.factors):
            body.append(f"x{count + 1} = ConvTranspose <strides = [{factor}, {factor}]> (x{count}, w{at}, b{at})")
            count, scale = count + 1, scale * factor
            maps.append(f"float[{self.batch},4,{scale * height},{scale * width}] map{scale}")
            for step in self.steps[at]:
                if step == "output" and outputs:
                    continue
                body.append(STEPS[step].format(i=count, n=count + 1, k=scale))
                outputs = ", float[a,b,c,d] z" if step == "output" else outputs
                count += 1
        body.append(ENDS[self.end].format(i=count))
        height, width = height * scale, width * scale
        weights = [f"float[4,4,{factor},{factor}] w{at}, float[4] b{at}" for at, factor in enumerate(self.factors)]
        weights += ["float[4,1,1] gain, float[4,1,1] shift, float[4] shift1, float[4,4,1,1] mix"]
        weights += ["float[4,4,3,3] blur, float[2,4,1,1] narrow"]
        inputs = f"float[{self.batch},4,{self.grid[0]},{self.grid[1]}] x0, float[{self.batch},2,4] rows"
        constants = (
            f"int64[1] channel = {{1}}, int64[2] space = {{2, 3}}, float tenth = {{0.1}}, int64[1] from = {{1}},"
            f" int64[1] to = {{3}}, int64[1] last = {{-1}}, int64[3] flat = {{{self.batch}, 4, {height * width}}},"
            f" int64[4] masks = {{{self.batch}, 2, {height}, {width}}}"
        )
        text = f"({', '.join([inputs, *maps, *weights])}) => (float[s,t,u,v] y{outputs}) <{constants}> {{ "
        text += " ".join(body) + " }"
        for old, new in changes:
            assert old in text, f"{old!r} is not in {text}"
            text = text.replace(old, new)
        return typed(text, *WEIGHTS, seed=seed)


MASKS = Upscaling(batch=2)
"""As in a mask decoder: 2 masks of 4 channels at 16 times the cells."""


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 2),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    factors=st.lists(st.integers(2, 3), min_size=1, max_size=2),
    steps=st.lists(st.lists(st.sampled_from([*STEPS]), max_size=3), min_size=2, max_size=2),
    end=st.sampled_from([*ENDS]),
    pass_=st.sampled_from([PASS, ALWAYS]),
    seed=st.integers(0, 99),
)
def test_it_computes_the_same_with_no_more_work(
    batch: int,
    grid: tuple[int, int],
    factors: list[int],
    steps: list[list[str]],
    end: str,
    pass_: UpscaleByPhase,
    seed: int,
) -> None:
    upscaling = Upscaling(batch, grid, tuple(factors), tuple(map(tuple, steps)), end)
    after = assert_law(pass_, upscaling.model(seed=seed), seed)
    if pass_ is ALWAYS:
        assert "ConvTranspose" not in operators(after)


def test_a_mask_decoder_lays_out_its_masks_alone() -> None:
    model = MASKS.model()
    before = graph_statistics(model).flops
    after = assert_law(PASS, model)
    assert graph_statistics(after).flops == before
    assert operators(after).count("Transpose") == 1
    laid_out = next(node for node in after.graph if node.op_type == "Transpose").outputs[0]
    assert static_shape(laid_out) == (2, 2, 2, 2, 2, 3, 2, 2)
    assert [value.name for value in after.graph.outputs] == ["y"]


def test_it_computes_the_same_in_an_engine() -> None:
    model = MASKS.model()
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert PASS(model).modified
    assert largest_error(wanted, run_model(model, feeds)) <= PASS.tolerance


def test_every_value_has_a_type_and_a_shape_at_once_after_the_pass() -> None:
    model = MASKS.model()
    assert PASS(model).modified
    assert shapes_are_known(model)
    ir.to_proto(model)


def test_what_it_replaces_is_gone_and_the_nodes_are_in_order() -> None:
    model = Upscaling(end="pool").model()
    assert ALWAYS(model).modified
    count = len(model.graph)
    EliminateDead()(model)
    assert len(model.graph) == count
    known = {*model.graph.inputs, *model.graph.initializers.values()}
    for node in model.graph:
        assert set(node.inputs) <= known
        known |= set(node.outputs)


def test_outputs_in_the_middle_keep_their_names() -> None:
    model = Upscaling(steps=(("output",), ("gelu",))).model()
    after = assert_law(ALWAYS, model)
    assert [value.name for value in after.graph.outputs] == ["y", "z"]
    assert "Neg" in operators(after)


def test_the_small_map_may_have_other_readers() -> None:
    after = assert_law(
        PASS,
        MASKS.model(("(float[s,t,u,v] y", "(float[2,4,2,3] other, float[s,t,u,v] y"), (" { ", " { other = Neg(x0) ")),
    )
    assert "ConvTranspose" not in operators(after)


def declined(model: ir.Model, pass_: UpscaleByPhase = PASS) -> None:
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not pass_(model).modified
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    "upscaling",
    [
        Upscaling(end="all"),
        Upscaling(end="slice"),
        Upscaling(steps=(("skip",), ("skip",)), end="product"),
        Upscaling(factors=(2,), steps=(("gelu", "smooth"), ()), end="product"),
    ],
)
def test_what_would_lay_out_much_stays_as_it_is(upscaling: Upscaling) -> None:
    declined(upscaling.model())


def test_how_much_may_be_laid_out_is_an_option() -> None:
    """Two masks of the second map's four channels, and the first has a quarter of its pixels: 2/5 of what they lay
    out."""
    declined(MASKS.model(), UpscaleByPhase(most_moved=0.39))
    assert_law(UpscaleByPhase(most_moved=0.41), MASKS.model())


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("overlapping tiles", "strides = [2, 2]> (x0", "strides = [1, 1]> (x0"),
        ("gaps between tiles", "strides = [2, 2]> (x0", "strides = [3, 3]> (x0"),
        ("padding", "strides = [2, 2]> (x0", "strides = [2, 2], pads = [0, 1, 1, 0]> (x0"),
        ("groups", "strides = [2, 2]> (x0, w0", "strides = [2, 2], group = 2> (x0, w0"),
        ("a weight that is an input", "(x0, w0, b0)", "(x0, free, b0)"),
        ("a convolution", "ConvTranspose <strides", "Conv <strides"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    one = Upscaling(grid=(4, 4), factors=(2,), steps=(("gelu",), ()), end="channels")
    weights = ("float[4,4,2,2] w0", "float[4,4,2,2] free, float[4,4,2,2] w0")
    bias = ("float[4] b0", "float[8] b0") if "group" in new else ("float[4] b0", "float[4] b0")
    more = (("w0, b0)", "w0)"), ("float[2,4,1,1] narrow", "float[2,8,1,1] narrow")) if "group" in new else ()
    declined(one.model((old, new), weights, bias, *more), ALWAYS)


def test_a_dead_region_stays_as_it_is() -> None:
    declined(Upscaling(end="all").model(("y = Identity(", "y = Neg(x0) o = Identity(")), ALWAYS)
