"""`assert_exact` lets honest passes through, and says of each dishonest one what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.errors import SamonnxError
from samonnx.passes import (
    EliminateDead,
    Exactness,
    FoldConstants,
    FuseAttention,
    GraphPass,
    LowerOnnx,
    PassResult,
    PinInputs,
    UnrollMemory,
    assert_exact,
)
from samonnx.passes.float64 import in_float64
from tests.passes.graph_text import constants_of, model_of

TEXT = """(float[2,3] x) => (float[2,3] y) <float[3] w = {1, 2, 3}, float[3] unused = {0, 0, 0}> {
    h = Mul(x, w)
    y = Neg(h)
}"""
ATTENTION = """(float[1,2,5,4] q, float[1,2,7,4] k, float[1,2,7,4] v) => (float[1,2,5,4] y) <float s = {0.5}> {
    t = Transpose <perm = [0, 1, 3, 2]> (k)
    l = MatMul(q, t)
    m = Mul(l, s)
    p = Softmax(m)
    y = MatMul(p, v)
}"""


@dataclass(frozen=True)
class Edit(GraphPass):
    """Do to the graph what it is told to do, and say of it what it is told to say."""

    name: ClassVar[str] = "edit"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-4

    edit: Callable[[ir.Model], None] = field(default=lambda _: None)
    modified: bool = True

    def call(self, model: ir.Model) -> PassResult:
        self.edit(model)
        return PassResult(model, self.modified)


@dataclass(frozen=True)
class EditBits(Edit):
    """The same, with the promise to keep every bit."""

    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0


@dataclass(frozen=True)
class Once(GraphPass):
    """Another pass, honest about the second run."""

    name: ClassVar[str] = "edit"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-4

    inner: GraphPass = field(default_factory=Edit)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exactness", self.inner.exactness)
        object.__setattr__(self, "tolerance", self.inner.tolerance)

    def call(self, model: ir.Model) -> PassResult:
        before = constants_of(model)
        self.inner.call(model)
        return PassResult(model, constants_of(model) != before)


def scaled(factor: float) -> Callable[[ir.Model], None]:
    """Multiplies the weight, once."""

    def edit(model: ir.Model) -> None:
        value = model.graph.initializers["w"]
        assert value.const_value is not None
        array = value.const_value.numpy()
        if array[0] == 1:
            value.const_value = ir.tensor((array * factor).astype(array.dtype), name="w")

    return edit


def write_into_the_weight(model: ir.Model) -> None:
    value = model.graph.initializers["w"].const_value
    assert value is not None
    array = value.numpy()
    array.setflags(write=True)
    array[0] = 2


def drop_unused(model: ir.Model) -> None:
    model.graph.initializers.pop("unused", None)


def rename_the_input(model: ir.Model) -> None:
    model.graph.inputs[0].name = "z"


def turn_the_dtype(model: ir.Model) -> None:
    model.graph.outputs[0].dtype = ir.DataType.INT32


def double_negation(model: ir.Model) -> None:
    """y = −h → y = −(−(−h)), every time."""
    last = model.graph.node(-1)
    for _ in range(2):
        more = ir.node("Neg", [last.inputs[0]], name=None)
        more.outputs[0].name = f"n{len(list(model.graph))}"
        more.outputs[0].type, more.outputs[0].shape = last.outputs[0].type, last.outputs[0].shape
        model.graph.insert_before(last, more)
        last.replace_input_with(0, more.outputs[0])


def with_a_tensor(model: ir.Model) -> ir.Model:
    """The weight in memory that a pass can write into."""
    model.graph.initializers["w"].const_value = ir.tensor(np.array([1, 2, 3], np.float32), name="w")
    return model


def misspell(model: ir.Model) -> None:
    model.graph.node(0).op_type = "Mull"


@pytest.mark.parametrize(
    ("pass_", "text"),
    [
        (FoldConstants(), TEXT),
        (EliminateDead(), TEXT),
        (FuseAttention(), ATTENTION),
        (LowerOnnx(), "(float[1,2,5,4] q, float[1,2,7,4] k) => (float[1,2,5,4] y) { y = Attention(q, k, k) }"),
        (EliminateDead(), "(float[2,2] x) => (float[2,2] y) { y = com.microsoft.FusedMatMul(x, x) z = Neg(x) }"),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_honest_passes_go_through_and_the_rewritten_graph_comes_back(pass_: GraphPass, text: str) -> None:
    model = model_of(text)
    before = ir.to_onnx_text(model)
    after = assert_exact(pass_, model)
    assert ir.to_onnx_text(model) == before
    if not isinstance(pass_, FoldConstants):
        assert ir.to_onnx_text(after) != before


def test_passes_that_change_inputs_are_held_to_what_they_put_in_their_place() -> None:
    assert_exact(PinInputs({"z": 2.5}), model_of("(float[2] x, float[2] z) => (float[2] y) { y = Add(x, z) }"))
    cache = "(float[1,1,2,4] q, float[1,1,t,4] cache) => (float[1,1,2,4] y) { y = Attention(q, cache, cache) }"
    generator = np.random.default_rng(0)
    feeds: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {
        "q": generator.standard_normal((1, 1, 2, 4)).astype(np.float32),
        "cache": generator.standard_normal((1, 1, 3, 4)).astype(np.float32),
    }
    valid = np.array([[True, False, True]])
    assert_exact(UnrollMemory({"t": 3}, {"t": "valid"}), model_of(cache), feeds={**feeds, "valid": valid})


@pytest.mark.parametrize(
    ("pass_", "message"),
    [
        (Edit(drop_unused, modified=False), "pass 'edit' changed the graph, but says modified=False"),
        (Edit(modified=True), "pass 'edit' says modified=True, but changed nothing"),
        (Edit(double_negation), "pass 'edit' is not idempotent: a second run changes the graph again"),
        (Edit(rename_the_input), "pass 'edit' changed the inputs from ['x FLOAT'] to ['z FLOAT']"),
        (Edit(turn_the_dtype), "pass 'edit' changed the outputs from ['y FLOAT'] to ['y INT32']"),
        (Edit(write_into_the_weight), "pass 'edit' wrote into the tensor of 'w', which other graphs share"),
        (Edit(misspell), "pass 'edit': it left a graph that is not valid: No Op registered for Mull"),
        (
            Once(Edit(scaled(1.5))),
            "pass 'edit' broke its promise on output 'y': largest error 0.5 of the output's largest",
        ),
        (
            Once(Edit(scaled(1 + 1e-6))),
            "of the output's largest magnitude), in float64, seed 0",
        ),
        (Once(EditBits(scaled(1 + 1e-6))), "(promise: bit-exact), in float32, seed 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_dishonest_pass_is_told_what_is_wrong(pass_: GraphPass, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        assert_exact(pass_, with_a_tensor(model_of(TEXT)))


def test_an_input_without_a_shape_needs_feeds() -> None:
    with pytest.raises(SamonnxError, match=r"input 'x' is FLOAT .*: give feeds for it"):
        assert_exact(FoldConstants(), model_of("(float[n] x) => (float[n] y) { y = Neg(x) }"))


def test_a_graph_without_a_form_in_float64_is_compared_in_float32_alone_if_told_so() -> None:
    model = model_of(
        "(float[1,1,2,4] x, float[2,2] c) => (float[1,1,2,4] y) <int64[1,2] p = {0, 1}> {\n"
        "    y = RotaryEmbedding(x, c, c, p)\n}"
    )
    with pytest.raises(
        AssertionError, match=r"the graph has no form in float64, give float64=False: .*RotaryEmbedding"
    ):
        assert_exact(FoldConstants(), model)
    assert_exact(FoldConstants(), model, float64=False)


def test_in_float64_widens_all_but_what_an_operator_wants_in_float32() -> None:
    model = model_of("""(float[1,1,2,2] x, int64[2] i) => (float[1,1,4,4] y, float[2] z, float[2] c)
    <float[4] scales = {1, 1, 2, 2}, float[1] w = {2}, int64[1] two = {2}> {
        r = Resize(x, , scales)
        y = Mul(r, w)
        z = Cast <to = 1> (i)
        c = ConstantOfShape(two)
    }""")
    wide = in_float64(model)
    dtypes = {value.name: value.dtype for value in (*wide.graph.inputs, *wide.graph.initializers.values())}
    assert {name for name, dtype in dtypes.items() if dtype == ir.DataType.DOUBLE} == {"x", "w"}
    assert dtypes["scales"] == ir.DataType.FLOAT
    assert_exact(FoldConstants(), model)
    assert wide.graph.node(2).attributes["to"].value == ir.DataType.DOUBLE
    assert wide.graph.node(3).attributes["value"].value.dtype == ir.DataType.DOUBLE
    assert model.graph.inputs[0].dtype == ir.DataType.FLOAT
