"""Link: what the linked graph looks like, and every misfit of ports and wires in one message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.graph_session import GraphSession
from samonnx.link import LinkError, Wiring, link
from samonnx.programs.program import Port, Program, TypedPort, Wire
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


# Symbolic dimensions, graphs that are nobody's program

SCALE = """<ir_version: 10, opset_import: ["" : 23]>
scale (float[n,3] x) => (float[n,3] y) <float[1] two = {2.0}> { y = Mul(x, two) }"""
SUM = """<ir_version: 10, opset_import: ["" : 23]>
sum (float[n,3] left, float[n,3] right) => (float[n,3] total) { total = Add(left, right) }"""
FIND = """<ir_version: 10, opset_import: ["" : 23]>
find (float[k] x) => (int64[1,n] places) { places = NonZero(x) }"""
COUNT = """<ir_version: 10, opset_import: ["" : 23]>
count (int64[1,m] places) => (int64[1,m] next) <int64[1] one = {1}> { next = Add(places, one) }"""


def graphs(**texts: str) -> dict[str, ir.Model]:
    return {name: ir.from_onnx_text(text) for name, text in texts.items()}


def wired(image: tuple[int | str, ...], other: tuple[int | str, ...], total: tuple[int | str, ...]) -> Wiring:
    return Wiring(
        "toy",
        (TypedPort("image", "float32", image), TypedPort("other", "float32", other)),
        (TypedPort("total", "float32", total),),
        (
            Wire("image", "scale.x"),
            Wire("scale.y", "sum.left"),
            Wire("other", "sum.right"),
            Wire("sum.total", "total"),
        ),
    )


def misfits(wiring: Wiring, parts: dict[str, ir.Model]) -> list[str]:
    with pytest.raises(LinkError) as caught:
        link(wiring, parts)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def dims(model: ir.Model) -> dict[str, str]:
    values = (*model.graph.inputs, *(output for node in model.graph for output in node.outputs))
    return {str(value.name): str(value.shape) for value in values}


def test_symbols_of_parts_take_the_name_or_the_size_that_feeds_them() -> None:
    parts = graphs(scale=SCALE, sum=SUM)
    symbolic = link(wired(("rows", 3), ("rows", 3), ("rows", 3)), parts)
    assert set(dims(symbolic).values()) == {"[rows,3]"}
    static = link(wired((4, 3), (4, 3), (4, 3)), parts)
    assert set(dims(static).values()) == {"[4,3]"}
    for model, rows in ((symbolic, 7), (static, 4)):
        feeds = {name: np.full((rows, 3), fill, np.float32) for name, fill in (("image", 1), ("other", 3))}
        np.testing.assert_array_equal(GraphSession(model, threads=1).run(feeds)["total"], np.full((rows, 3), 5))
    assert "[n,3]" in dims(parts["scale"])["x"]


def test_a_symbol_that_meets_two_sizes_is_shown_with_the_first() -> None:
    assert misfits(wired((4, 3), (5, 3), (4, 3)), graphs(scale=SCALE, sum=SUM)) == [
        "other is float [5, 3], but sum.right expects float [n, 3], where n is 4"
    ]
    assert misfits(wired(("rows", 3), ("rows", 3), (4, 3)), graphs(scale=SCALE, sum=SUM)) == [
        "sum.total is float [n, 3], where n is rows, but total expects float [4, 3]"
    ]


def test_two_symbols_of_the_ports_are_not_one() -> None:
    assert misfits(wired(("rows", 3), ("others", 3), ("rows", 3)), graphs(scale=SCALE, sum=SUM)) == [
        "other is float [others, 3], but sum.right expects float [n, 3], where n is rows"
    ]


def test_a_number_that_the_data_decide_goes_where_any_number_may_and_nowhere_else() -> None:
    parts = graphs(find=FIND, count=COUNT)
    wires = {"find.x": "x", "count.places": "find.places", "found": "count.next"}
    model = link(Wiring.between("toy", wires, parts), parts)
    assert dims(model) == {"x": "[k]", "find/places": "[1,find/n]", "found": "[1,m]"}
    found = GraphSession(model, threads=1).run({"x": np.array([0, 5, 0, 5], np.float32)})["found"]
    np.testing.assert_array_equal(found, [[2, 4]])
    parts = graphs(find=FIND, count=COUNT.replace("[1,m]", "[1,2]"))
    assert misfits(Wiring.between("toy", wires, parts), parts) == [
        "find.places is int64 [1, n], but count.places expects int64 [1, 2]"
    ]


def test_wires_alone_say_the_ports_in_their_order() -> None:
    parts = traced()
    wires = {wire.target: wire.source for wire in WIRES}
    found = Wiring.between("toy", wires, parts)
    assert [(port.name, port.dtype, port.shape) for port in (*found.inputs, *found.outputs)] == [
        (port.name, port.dtype, port.shape) for port in (*PORTS_IN, *PORTS_OUT)
    ]
    assert ir.to_onnx_text(link(found, parts)) == ir.to_onnx_text(link(program(), parts))


def test_wires_alone_say_what_they_leave_open() -> None:
    with pytest.raises(LinkError) as caught:
        Wiring.between("toy", {"double.x": "image", "double.z": "image", "copy": "other"}, traced())
    assert str(caught.value).splitlines() == [
        "program 'toy' cannot be linked:",
        "  - nothing is called 'double.z', which is wired to 'image'; did you mean 'double.x'?",
        "  - port 'other' is wired to no part, so nothing says its type",
        "  - port 'copy' is wired to no part, so nothing says its type",
    ]


def test_a_dtype_that_is_none_and_a_name_of_two_ports_are_named() -> None:
    found = misfits(
        Wiring(
            "toy",
            (TypedPort("image", "float33", (1, 3)), TypedPort("image", "float32", (1, 3))),
            (),
            (Wire("image", "double.x"),),
        ),
        {"double": ir.from_onnx_text(DOUBLE)},
    )
    assert found == [
        "port 'image' has the dtype 'float33'; expected a name of NumPy's, as 'float32'",
        "2 ports are called 'image'",
    ]
