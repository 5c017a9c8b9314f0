from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.fold_constants import FoldConstants
from samonnx.passes.interface import Array
from samonnx.passes.observers import seeded_feeds
from samonnx.passes.pin_inputs import PinInputError, PinInputs
from tests.passes.graph_text import assert_same_bits, body_of, constants_of, model_of, ports_of

BANK = """(float[2,3] image, float[4,3] memory, bool[4] valid, int32 frame) => (float[2,3] features, float[4,3] next) {
    memory_t = Transpose <perm = [1, 0]> (memory)
    scores = MatMul(image, memory_t)
    weights = Softmax(scores)
    attended = MatMul(weights, memory)
    valid_i = Cast <to = 6> (valid)
    count = ReduceMax <keepdims = 0> (valid_i)
    some = Cast <to = 9> (count)
    features = Where(some, attended, image)
    shift = Cast <to = 1> (frame)
    next = Add(memory, shift)
}"""


def test_a_pinned_empty_bank_removes_the_memory_attention() -> None:
    model, original = model_of(BANK), model_of(BANK)
    pin = PinInputs({"memory": 0.0, "valid": False})
    assert pin(model).modified
    assert ports_of(model) == (["image", "frame"], ["features", "next"])
    assert_same_bits(original, model, pass_=pin)
    FoldConstants()(model)
    assert body_of(model) == [
        "shift = Cast(frame)",
        "next = Add(memory/pinned, shift)",
        "features = Identity(image)",
    ]
    assert_same_bits(original, model, pass_=pin)


def test_an_array_becomes_an_initialiser() -> None:
    model = model_of("(float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }")
    PinInputs({"w": np.array([1, 2], np.float32)})(model)
    assert body_of(model) == ["y = Mul(x, w/pinned)"]
    assert constants_of(model) == {"w/pinned": [1, 2]}


@pytest.mark.parametrize("value", [0.0, np.zeros((1000, 1000), np.float32)], ids=["scalar", "array"])
def test_a_large_fill_does_not_become_bytes(value: Array | float) -> None:
    model = model_of("(float[1000] x, float[1000,1000] w) => (float[1000,1000] y) { y = Max(x, w) }")
    PinInputs({"w": value})(model)
    assert body_of(model) == ["w/pinned = ConstantOfShape(w/pinned/shape)", "y = Max(x, w/pinned)"]
    assert constants_of(model) == {"w/pinned/shape": [1000, 1000]}
    FoldConstants()(model)
    assert body_of(model) == ["w/pinned = ConstantOfShape(w/pinned/shape)", "y = Max(x, w/pinned)"]


def test_an_input_that_is_an_output_stays_an_output() -> None:
    model = model_of("(float[2] x, float[2] w) => (float[2] y, float[2] w) { y = Mul(x, w) }")
    PinInputs({"w": 3})(model)
    assert body_of(model) == ["y = Mul(x, w/pinned)", "w = Identity(w/pinned)"]
    assert ports_of(model) == (["x"], ["y", "w"])


def test_an_array_binds_a_symbolic_dimension() -> None:
    model = model_of("(float[2,1] x, float[1,n] w) => (float[2,n] y) { y = Mul(x, w) }")
    PinInputs({"w": np.ones((1, 5), np.float32)})(model)
    FoldConstants()(model)
    assert model.graph.outputs[0].shape == ir.Shape([2, 5])


def test_nothing_to_pin_changes_nothing() -> None:
    assert not PinInputs({})(model_of(BANK)).modified


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"memori": 0.0},
            r"cannot pin 'memori': the graph has no such input; did you mean memory\?\n"
            r"known inputs: image float\[2,3\], memory float\[4,3\], valid bool\[4\], frame int32\[\]",
        ),
        (
            {"memory": np.zeros((4, 3))},
            r"cannot pin memory float\[4,3\]: the value has dtype float64, expected float32",
        ),
        ({"memory": np.zeros((3, 4), np.float32)}, r"cannot pin memory float\[4,3\]: the value has shape \[3, 4\]"),
        ({"memory": np.zeros(3, np.float32)}, r"cannot pin memory float\[4,3\]: the value has shape \[3\]"),
        ({"valid": 0}, r"cannot pin valid bool\[4\] to 0: expected true or false"),
        ({"frame": 0.5}, r"cannot pin frame int32\[\] to 0.5: expected an integer"),
        ({"frame": True}, r"cannot pin frame int32\[\] to True: expected an integer"),
        ({"memory": True}, r"cannot pin memory float\[4,3\] to True: expected a number"),
        ({"frame": 1 << 40}, r"cannot pin frame int32\[\] to 1099511627776: out of the range of int32"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_and_nothing_changes(
    values: dict[str, Array | bool | int | float], message: str
) -> None:
    model = model_of(BANK)
    before = ir.to_onnx_text(model)
    with pytest.raises(PinInputError, match=message):
        PinInputs({"image": 0.0, **values})(model)
    assert ir.to_onnx_text(model) == before


def test_a_fill_of_a_symbolic_shape_is_an_error() -> None:
    model = model_of("(float[2,n] x) => (float[2,n] y) { y = Neg(x) }")
    with pytest.raises(
        PinInputError, match=r"cannot pin x float\[2,n\] to 0.0: its shape is not static; give an array"
    ):
        PinInputs({"x": 0.0})(model)


@settings(max_examples=30, deadline=None)
@given(names=st.sets(st.sampled_from(["image", "memory", "valid", "frame"])), seed=st.integers(0, 99))
def test_pinning_any_inputs_to_any_values_and_folding_keeps_every_bit(names: set[str], seed: int) -> None:
    model, original = model_of(BANK), model_of(BANK)
    values = seeded_feeds(original, seed=seed)
    pin = PinInputs({name: values[name] for name in sorted(names)})
    pin(model)
    FoldConstants()(model)
    assert set(ports_of(model)[0]) == set(values) - names
    assert_same_bits(original, model, pass_=pin)
