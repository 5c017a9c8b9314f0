"""Link: what the linked graph looks like, and every misfit of ports and wires in one message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.graph_session import GraphSession
from samonnx.link import LinkError, link
from samonnx.programs.program import Port, Program, Wire
from samonnx.trace import TracedComponent

DOUBLE = """<ir_version: 10, opset_import: ["" : 23]>
double (float[1,3] x) => (float[1,3] y) <float[1] two = {2.0}> { y = Mul(x, two) }"""
JOIN = """<ir_version: 10, opset_import: ["" : 23]>
join (float[1,3] left, float[1,3] right, int32[1] count) => (float[1,3] sum, int32[1] counted)
{ sum = Sub(left, right)
  counted = Add(count, count) }"""

PORTS_IN = (Port("image", "float32", (1, 3), "an image"), Port("number", "int32", (1,), "a number"))
PORTS_OUT = (Port("result", "float32", (1, 3), "a result"), Port("twice", "int32", (1,), "twice the number"))
WIRES = (
    Wire("image", "double.x"),
    Wire("double.y", "join.left"),
    Wire("image", "join.right"),
    Wire("number", "join.count"),
    Wire("join.sum", "result"),
    Wire("join.counted", "twice"),
)


def traced(double: str = DOUBLE, join: str = JOIN) -> dict[str, TracedComponent]:
    graphs = {"double": double, "join": join}
    return {name: TracedComponent(name, ir.from_onnx_text(text)) for name, text in graphs.items()}


def program(
    wires: Sequence[Wire] = WIRES, inputs: Sequence[Port] = PORTS_IN, outputs: Sequence[Port] = PORTS_OUT
) -> Program:
    return Program("toy", tuple(inputs), tuple(outputs), (), tuple(wires), (), {}, ())


def problems(linked: Program, parts: dict[str, TracedComponent] | None = None) -> list[str]:
    with pytest.raises(LinkError) as caught:
        link(linked, traced() if parts is None else parts)
    first, *rest = str(caught.value).splitlines()
    assert first == "program 'toy' cannot be linked:"
    assert all(line.startswith("  - ") for line in rest)
    return [line.removeprefix("  - ") for line in rest]


def rewired(target: str, *sources: str) -> list[Wire]:
    """WIRES with other sources (none, one or several) for one target."""
    return [wire for wire in WIRES if wire.target != target] + [Wire(source, target) for source in sources]


def test_the_linked_graph_has_the_programs_name_and_ports_in_their_order() -> None:
    graph = link(program(), traced()).graph
    assert graph.name == "toy"
    assert [value.name for value in graph.inputs] == ["image", "number"]
    assert [value.name for value in graph.outputs] == ["result", "twice"]
    turned = link(program(inputs=PORTS_IN[::-1], outputs=PORTS_OUT[::-1]), traced()).graph
    assert [value.name for value in turned.inputs] == ["number", "image"]
    assert [value.name for value in turned.outputs] == ["twice", "result"]


def test_the_linked_graph_computes_what_the_wires_say() -> None:
    session = GraphSession(link(program(), traced()), threads=1)
    image = np.array([[1.0, 2.0, 5.0]], np.float32)
    found = session.run({"image": image, "number": np.array([4], np.int32)})
    np.testing.assert_array_equal(found["result"], image)
    np.testing.assert_array_equal(found["twice"], [8])


def test_one_source_may_feed_an_output_and_a_component() -> None:
    both = program(
        [*WIRES, Wire("double.y", "doubled")], outputs=(*PORTS_OUT, Port("doubled", "float32", (1, 3), "twice"))
    )
    session = GraphSession(link(both, traced()), threads=1)
    found = session.run({"image": np.ones((1, 3), np.float32), "number": np.array([1], np.int32)})
    np.testing.assert_array_equal(found["doubled"], [[2, 2, 2]])


def test_the_traced_components_are_left_as_they_were() -> None:
    parts = traced()
    before = {name: ir.to_onnx_text(part.model) for name, part in parts.items()}
    link(program(), parts)
    assert {name: ir.to_onnx_text(part.model) for name, part in parts.items()} == before


@pytest.mark.parametrize("target", ["join.right", "result"])
def test_a_port_that_nothing_feeds_is_named(target: str) -> None:
    assert problems(program(rewired(target))) == [f"nothing feeds '{target}'"]


def test_a_source_that_does_not_exist_is_answered_with_the_nearest() -> None:
    assert problems(program(rewired("join.left", "double.yy"))) == [
        "nothing is called 'double.yy', which should feed 'join.left'; did you mean 'double.y'?"
    ]
    assert problems(program(rewired("join.left", "QQQQ"))) == [
        "nothing is called 'QQQQ', which should feed 'join.left'"
    ]


def test_a_target_that_does_not_exist_is_answered_with_the_nearest() -> None:
    assert problems(program([*WIRES, Wire("number", "join.kount")])) == [
        "nothing is called 'join.kount', which 'number' should feed; did you mean 'join.count'?"
    ]


def test_an_input_of_a_component_is_no_source() -> None:
    assert problems(program(rewired("join.left", "double.x"))) == [
        "nothing is called 'double.x', which should feed 'join.left'; did you mean 'double.y'?"
    ]


def test_a_port_that_is_fed_twice_is_named_with_both_sources() -> None:
    assert problems(program(rewired("join.left", "image", "double.y"))) == [
        "'join.left' is fed twice: by 'image' and by 'double.y'"
    ]


def test_a_dtype_that_does_not_meet_its_partners_is_shown_with_both() -> None:
    assert problems(program(rewired("join.count", "image"))) == [
        "image is float [1, 3], but join.count expects int32 [1]"
    ]


def test_a_shape_that_does_not_meet_its_partners_is_shown_with_both() -> None:
    parts = traced(double=DOUBLE.replace("float[1,3] y", "float[1,n] y"))
    assert problems(program(), parts) == ["double.y is float [1, n], but join.left expects float [1, 3]"]
    larger = (Port("image", "float32", (1, 4), "too large"), PORTS_IN[1])
    assert problems(program(inputs=larger)) == [
        "image is float [1, 4], but double.x expects float [1, 3]",
        "image is float [1, 4], but join.right expects float [1, 3]",
    ]


def test_a_result_that_does_not_fit_the_programs_port_is_shown() -> None:
    outputs = (Port("result", "bool", (1, 3), "not a flag"), PORTS_OUT[1])
    assert problems(program(outputs=outputs)) == ["join.sum is float [1, 3], but result expects bool [1, 3]"]


def test_all_misfits_come_in_one_message() -> None:
    wires = [
        Wire("image", "double.x"),
        Wire("number", "double.x"),
        Wire("double.z", "join.left"),
        Wire("number", "join.rihgt"),
        Wire("join.sum", "result"),
        Wire("join.counted", "twice"),
    ]
    found = problems(program(wires))
    assert found == [
        "'double.x' is fed twice: by 'image' and by 'number'",
        "number is int32 [1], but double.x expects float [1, 3]",
        "nothing is called 'double.z', which should feed 'join.left'; did you mean 'double.y'?",
        "nothing is called 'join.rihgt', which 'number' should feed; did you mean 'join.right'?",
        "nothing feeds 'join.right'",
        "nothing feeds 'join.count'",
    ]


def test_a_component_that_was_not_traced_is_missed_by_its_wires() -> None:
    parts = traced()
    del parts["double"]
    assert problems(program(), parts) == [
        "nothing is called 'double.x', which 'image' should feed",
        "nothing is called 'double.y', which should feed 'join.left'",
    ]
