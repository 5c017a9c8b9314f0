"""Fingerprints: equal where values are computed alike, different where anything that matters differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samonnx.fingerprint import Fingerprints
from tests.passes.graph_text import model_of

GRAPH = """(float[2,2] x, float[2,2] z) => (float[2,2] y)
<float[2,2] w = {1, 2, 3, 4}>
{ h = MatMul(x, w)  k = Relu(h)  y = Concat<axis = 0>(k, z) }"""


def fingerprint(text: str, names: Sequence[str] = ("y",)) -> str | None:
    return Fingerprints().of(model_of(text), names)


def test_names_of_values_nodes_and_weights_do_not_count() -> None:
    renamed = GRAPH.replace("h", "hidden_1").replace("k", "kept").replace("w", "weight_1")
    assert fingerprint(renamed) == fingerprint(GRAPH)


def test_what_the_value_does_not_depend_on_does_not_count() -> None:
    more = GRAPH.replace("k = Relu(h)", "k = Relu(h)  unread = Neg(h)")
    assert fingerprint(more) == fingerprint(GRAPH)
    assert fingerprint(GRAPH, ("k",)) == fingerprint(GRAPH.replace("axis = 0", "axis = 1"), ("k",))


def test_weights_that_the_value_does_not_depend_on_are_not_read() -> None:
    class Unread(ir.Tensor[np.ndarray[Any, np.dtype[Any]]]):
        def tobytes(self) -> bytes:
            raise AssertionError("read")

    model = model_of("(float[2] x, float[2] w) => (float[2] k, float[2] y) { k = Relu(x)  y = Add(x, w) }")
    weight = model.graph.inputs.pop(1)
    weight.const_value = Unread(np.ones(2, np.float32), name="w")
    model.graph.register_initializer(weight)
    assert Fingerprints().of(model, ("k",)) is not None
    with pytest.raises(AssertionError, match="read"):
        Fingerprints().of(model, ("y",))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Relu", "Neg"),
        ("axis = 0", "axis = 1"),
        ("{1, 2, 3, 4}", "{1, 2, 3, 5}"),
        ("MatMul(x, w)", "MatMul(w, x)"),
        ("MatMul(x, w)", "MatMul(z, w)"),
        ("float[2,2] w = {1, 2, 3, 4}", "float[2,2] w = {1, 2, 4, 3}"),
    ],
    ids=["operator", "attribute", "weight", "order of operands", "input", "order of numbers"],
)
def test_everything_that_the_value_depends_on_counts(old: str, new: str) -> None:
    assert GRAPH.count(old) == 1
    assert fingerprint(GRAPH.replace(old, new)) != fingerprint(GRAPH)


def test_the_outputs_of_one_node_differ_from_each_other() -> None:
    split = "(float[4] x) => (float[2] a, float[2] b) { a, b = Split<axis = 0, num_outputs = 2>(x) }"
    assert fingerprint(split, ("a",)) != fingerprint(split, ("b",))
    assert fingerprint(split, ("a", "b")) != fingerprint(split, ("b", "a"))


def test_an_absent_operand_is_not_the_one_after_it() -> None:
    clip = "(float[2] x, float b) => (float[2] y) {{ y = Clip({}) }}"
    assert fingerprint(clip.format("x, b")) != fingerprint(clip.format("x, , b"))


def test_no_fingerprint_without_the_value_or_behind_a_subgraph() -> None:
    assert fingerprint(GRAPH, ("y", "folded_away")) is None
    branch = """(bool c, float[2] x) => (float[2] y)
{ y = If (c) <then_branch = t () => (float[2] a) { a = Relu(x) },
              else_branch = e () => (float[2] b) { b = Neg(x) }> }"""
    assert fingerprint(branch) is None


@given(
    st.lists(st.sampled_from(["Relu", "Neg", "Abs"]), max_size=4),
    st.lists(st.sampled_from(["Relu", "Neg", "Abs"]), max_size=4),
)
def test_chains_are_equal_if_and_only_if_their_operators_are(one: list[str], other: list[str]) -> None:
    def chain(operators: list[str]) -> str | None:
        steps = [f"v{place + 1} = {name}(v{place})" for place, name in enumerate(operators)]
        text = f"(float[2] v0) => (float[2] y) {{ {' '.join(steps)} y = Identity(v{len(operators)}) }}"
        return fingerprint(text)

    assert (chain(one) == chain(other)) == (one == other)
