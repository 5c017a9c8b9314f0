"""Made-up inputs fit the graph, and differ where axes could be mistaken for each other."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.optimize_feeds import FeedChoices, Guess, guesses, make_feeds
from samonnx.optimize_result import OptimizeError
from samonnx.passes.interface import Array
from tests.test_optimize import model_of, random

TEXT = """(float[n,3,h,w] x, int64[n] i, bool[k] b, float[?] u) => (float[m] y) { y = Neg(u) }"""


def graph_of(text: str, **weights: Array) -> ir.Graph:
    return ir.from_proto(model_of(text, weights)).graph


def test_equal_symbols_get_equal_sizes_and_others_do_not() -> None:
    feeds, sizes = make_feeds(graph_of(TEXT), FeedChoices(), next(guesses()), 0)
    assert {name: array.shape for name, array in feeds.items()} == {"x": (2, 3, 3, 5), "i": (2,), "b": (4,), "u": (7,)}
    assert sizes == {"n": 2, "h": 3, "w": 5, "k": 4}
    assert [array.dtype.name for array in feeds.values()] == ["float32", "int64", "bool", "float32"]


def test_a_given_shape_binds_its_symbols_everywhere() -> None:
    feeds, sizes = make_feeds(graph_of(TEXT), FeedChoices(shapes={"x": (6, 3, 8, 9)}), Guess((2,)), 0)
    assert feeds["i"].shape == (6,)
    assert sizes == {"n": 6, "h": 8, "w": 9, "k": 2}


def test_indices_stay_within_the_table_that_they_reach() -> None:
    text = """(int64[200] i, int64[200] j) => (float[200,2] y, int64[200] z) {
        c = Cast <to = 6> (i) y = Gather(table, c) z = Neg(j)
    }"""
    feeds, _ = make_feeds(graph_of(text, table=random(7, 2)), FeedChoices(), Guess((1,)), 0)
    assert set(feeds["i"].tolist()) == set(range(7))
    assert set(feeds["j"].tolist()) == {0, 1}
    choices = FeedChoices(ranges={"i": (3, 4)})
    feeds, _ = make_feeds(graph_of(text, table=random(7, 2)), choices, Guess((1,)), 0)
    assert set(feeds["i"].tolist()) == {3, 4}


def test_floats_are_normal_or_in_the_range_that_is_given() -> None:
    graph = graph_of("(float[1000] x) => (float[1000] y) { y = Neg(x) }")
    normal, _ = make_feeds(graph, FeedChoices(), Guess((1,)), 0)
    assert normal["x"].min() < -1
    uniform, _ = make_feeds(graph, FeedChoices(ranges={"x": (2.0, 3.0)}), Guess((1,)), 0)
    assert 2 <= uniform["x"].min() <= uniform["x"].max() <= 3
    other, _ = make_feeds(graph, FeedChoices(), Guess((1,)), 1)
    assert not np.array_equal(normal["x"], other["x"])


def test_with_an_odd_seed_defaults_are_overridden() -> None:
    graph = graph_of("(float[2] x, float[2] d) => (float[2] y) { y = Add(x, d) }", d=np.ones(2, np.float32))
    assert list(make_feeds(graph, FeedChoices(), Guess((1,)), 0)[0]) == ["x"]
    overridden, _ = make_feeds(graph, FeedChoices(), Guess((1,)), 1)
    assert overridden["d"].tolist() == [1.3125, 1.3125]


def test_inputs_that_cannot_be_made_up_are_named() -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Neg(x) }")
    graph.inputs[0].shape = None
    with pytest.raises(OptimizeError, match="input 'x' has no known rank: give --shape x=…"):
        make_feeds(graph, FeedChoices(), Guess((1,)), 0)
    feeds, _ = make_feeds(graph, FeedChoices(shapes={"x": (3,)}), Guess((1,)), 0)
    assert feeds["x"].shape == (3,)
    graph.inputs[0].type = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    with pytest.raises(OptimizeError, match="no inputs of that kind can be made up"):
        make_feeds(graph, FeedChoices(shapes={"x": (3,)}), Guess((1,)), 0)
