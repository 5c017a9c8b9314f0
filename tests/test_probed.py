"""Values from inside a graph as further outputs."""

from __future__ import annotations

import onnx_ir as ir

from samonnx.probed import probed


def graph() -> ir.Model:
    """x → h → y, where h is called encode_trunk/trunk_map."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]>\ng (float[2] x) => (float[2] y) { h = Relu(x) y = Neg(h) }'
    )
    model.graph.node(0).outputs[0].name = "encode_trunk/trunk_map"
    return model


def test_a_value_becomes_an_output_of_a_copy() -> None:
    original = graph()
    copy = probed(original, ("encode_trunk/trunk_map",))
    assert [value.name for value in copy.graph.outputs] == ["y", "encode_trunk/trunk_map"]
    assert [value.name for value in original.graph.outputs] == ["y"]


def test_a_value_that_a_pass_has_folded_away_is_not_asked_for() -> None:
    assert [value.name for value in probed(graph(), ("other",)).graph.outputs] == ["y"]


def test_an_output_is_not_given_out_twice() -> None:
    assert [value.name for value in probed(graph(), ("y",)).graph.outputs] == ["y"]
