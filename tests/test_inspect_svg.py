"""The picture: valid, the same each time, nothing on top of anything else, lines downwards."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.inspect_layout import lay_out
from samonnx.inspect_region import choose_region
from samonnx.inspect_svg import draw_region
from tests.random_graphs import random_models
from tests.test_inspect_region import TEXT
from tests.test_optimize import model_of, random

SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> str:
    model = ir.from_proto(model_of(TEXT, {"w": random(2)}))
    node = model.graph[0]
    node.name = 'a<b>&"c"\x00' + "x" * 60
    return draw_region(choose_region(model.graph, None, None), "in.onnx")


def test_boxes_lines_and_shapes_are_there_and_escaped() -> None:
    root = ElementTree.fromstring(drawn())
    boxes = [group for group in root.iter(f"{SVG}g") if group.get("class") == "node"]
    assert [box.findtext(f"{SVG}text") for box in boxes] == ["Neg", "Relu", "Abs", "Add", "Mul", "If", "Exp"]
    assert "a<b>&" in (boxes[0].findtext(f"{SVG}title") or "")
    assert "…" in [text.text or "" for text in boxes[0].iter(f"{SVG}text")][1]
    assert "w [2]" in [text.text for text in boxes[4].iter(f"{SVG}text")]
    labels = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "edge halo"]
    assert "[2]" in labels


def test_the_same_graph_gives_the_same_file() -> None:
    assert drawn() == drawn()


def test_lines_end_above_the_box_that_they_reach() -> None:
    root = ElementTree.fromstring(drawn())
    for path in root.iter(f"{SVG}path"):
        if path.get("class") != "tip":
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d") or "")]
            assert all(one <= other for one, other in pairwise(numbers[1::2]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 14).flatmap(lambda n: st.tuples(
    st.lists(st.floats(20, 200), min_size=n, max_size=n),
    st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda line: line[0] < line[1]),
             max_size=25) if n > 1 else st.just([]),
)))  # fmt: skip
def test_boxes_of_a_layer_stand_apart_and_lines_go_down(drawn: tuple[list[float], list[tuple[int, int]]]) -> None:
    widths, lines = drawn
    layout = lay_out(widths, lines)
    for upper, lower in lines:
        assert layout.centres[upper][1] < layout.centres[lower][1]
    for layer in range(layout.layers):
        row = sorted((x, widths[box]) for box, (x, at) in enumerate(layout.centres) if at == layer)
        for (x, width), (next_x, next_width) in pairwise(row):
            assert next_x - x >= (width + next_width) / 2 - 1e-6
    for (x, _), width in zip(layout.centres, widths, strict=True):
        assert x - width / 2 >= -1e-6
        assert x + width / 2 <= layout.width + 1e-6
    for (upper, lower), route in zip(lines, layout.routes, strict=True):
        assert len(route) == layout.centres[lower][1] - layout.centres[upper][1] - 1


@settings(max_examples=15, deadline=None, derandomize=True)
@given(random_models())
def test_any_graph_can_be_drawn(model: onnx.ModelProto) -> None:
    graph = ir.from_proto(model).graph
    ElementTree.fromstring(draw_region(choose_region(graph, None, None), "random"))
