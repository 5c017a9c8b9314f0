"""Round trips through onnx-graphsurgeon lose nothing, and splices connect what the wires say."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest

from samonnx.passes import EliminateDead, FoldConstants
from samonnx.passes.evaluation import run_model
from samonnx.passes.graphsurgeon import Part, Splice, SurgeryError, from_gs, splice, to_gs

ENCODER = """
<ir_version: 10, opset_import: ["" : 23]>
encoder (float[2,3] image) => (float[2,4] features)
<float[3,4] proj__weight = {1,2,3,4,5,6,7,8,9,10,11,12}, float[1] half = {0.5}>
{
  [matmul] hidden = MatMul(image, proj__weight)
  [mul] features = Mul(hidden, half)
}
"""
DECODER = """
<ir_version: 10, opset_import: ["" : 23]>
decoder (float[2,4] features, float[2,3] image) => (float[2,4] mask, float[2,3] image_again)
<float[3,4] proj__weight = {1,2,3,4,5,6,7,8,9,10,11,12}, float[1] half = {0.25}>
{
  hidden = MatMul(image, proj__weight)
  scaled = Mul(hidden, half)
  mask = Sub(features, scaled)
  image_again = Identity(image)
}
"""


def model(text: str) -> ir.Model:
    """ONNX text has no dots in names; a double underscore stands for one."""
    parsed = ir.from_onnx_text(text)
    for name in [name for name in parsed.graph.initializers if "__" in name]:
        value = parsed.graph.initializers.pop(name)
        value.name = name.replace("__", ".")
        parsed.graph.initializers[value.name] = value
    return parsed


def linked(*wires: tuple[str, str], outputs: tuple[str, ...] = ("mask",)) -> ir.Model:
    parts = (Part("encoder", model(ENCODER)), Part("decoder", model(DECODER)))
    shapes = {"mask": (2, 4), "features": (2, 4), "copy": (2, 3), "twin": (2, 4)}
    ports = tuple((name, "float32", shapes[name]) for name in outputs)
    return splice(Splice("track", parts, (("image", "float32", (2, 3)),), ports, wires))


WIRES = (("image", "encoder.image"), ("encoder.features", "decoder.features"), ("image", "decoder.image"))


def test_a_round_trip_keeps_the_text_of_the_graph() -> None:
    before = model(
        """
        <ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
        g (float[N,4,m] x, int64[K] k) => (float[N,8,l] y, int32[K] z)
        <int64[3] shape = {0,8,-1}, float high = {1.5}, float w_eight = {2}, float[N,8,l] r, float[N,8,l] c>
        {
          [reshape] r = Reshape <allowzero: int = 0> (x, shape)
          [clip] c = Clip (r, , high)
          [gelu] y = com.microsoft.BiasGelu (c, w_eight)
          [cast] z = Cast <to: int = 6> (k)
        }
        """
    )
    after = from_gs(*to_gs(before))
    assert ir.to_onnx_text(after) == ir.to_onnx_text(before)


def test_a_round_trip_hands_back_the_same_tensor_objects() -> None:
    before = model(ENCODER)
    tensor = before.graph.initializers["proj.weight"].const_value
    after = from_gs(*to_gs(before))
    assert after.graph.initializers["proj.weight"].const_value is tensor


def test_a_round_trip_keeps_metadata_and_defaults_of_inputs() -> None:
    before = model(ENCODER)
    before.metadata_props["made by"] = "hand"
    before.graph.node("matmul").metadata_props["scope"] = "encoder.proj"
    before.graph.node("matmul").outputs[0].metadata_props["unit"] = "none"
    before.graph.inputs.append(before.graph.initializers["half"])
    after = from_gs(*to_gs(before))
    assert after.metadata_props == {"made by": "hand"}
    assert after.graph.node("matmul").metadata_props["scope"] == "encoder.proj"
    assert after.graph.node("matmul").outputs[0].metadata_props["unit"] == "none"
    assert after.graph.initializers["half"].is_graph_input()


def test_weights_do_not_travel() -> None:
    graph, kept = to_gs(model(ENCODER))
    assert set(kept.tensors) == {"proj.weight", "half"}
    assert all(type(tensor).__name__ == "Variable" for tensor in graph.tensors().values())


def test_a_splice_computes_what_its_parts_compute_in_turn() -> None:
    program = linked(*WIRES, ("decoder.mask", "mask"))
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    weight = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    np.testing.assert_allclose(run_model(program, {"image": image})["mask"], image @ weight * 0.25)


def test_equal_parameters_are_shared_and_nameless_constants_are_prefixed() -> None:
    program = linked(*WIRES, ("decoder.mask", "mask"))
    assert sorted(program.graph.initializers) == ["decoder/half", "encoder/half", "proj.weight"]


def test_parameters_of_one_name_but_other_content_stay_apart() -> None:
    decoder = model(DECODER.replace("11,12", "11,13"))
    plan = Splice(
        "track",
        (Part("encoder", model(ENCODER)), Part("decoder", decoder)),
        (("image", "float32", (2, 3)),),
        (("mask", "float32", (2, 4)),),
        (*WIRES, ("decoder.mask", "mask")),
    )
    assert {"proj.weight", "decoder/proj.weight"} <= set(splice(plan).graph.initializers)


def test_a_splice_leaves_its_parts_as_they_were() -> None:
    part = Part("encoder", model(ENCODER))
    before = ir.to_onnx_text(part.model)
    wires = (("image", "encoder.image"), ("encoder.features", "features"))
    splice(Splice("p", (part,), (("image", "float32", (2, 3)),), (("features", "float32", (2, 4)),), wires))
    assert ir.to_onnx_text(part.model) == before


def test_an_input_or_a_shared_tensor_may_leave_through_several_ports() -> None:
    program = linked(
        *WIRES,
        ("decoder.mask", "mask"),
        ("encoder.features", "features"),
        ("encoder.features", "twin"),
        ("image", "copy"),
        outputs=("copy", "mask", "twin", "features"),
    )
    assert [value.name for value in program.graph.outputs] == ["copy", "mask", "twin", "features"]
    image = np.ones((2, 3), np.float32)
    result = run_model(program, {"image": image})
    np.testing.assert_array_equal(result["copy"], image)
    np.testing.assert_array_equal(result["twin"], result["features"])


def test_every_misfit_of_the_wires_is_named_at_once() -> None:
    with pytest.raises(SurgeryError) as caught:
        linked(("imago", "encoder.image"), ("image", "decoder.image"), ("image", "decoder.image"), ("image", "nowhere"))
    text = str(caught.value)
    assert "no input port or part output is called 'imago'" in text
    assert "no output port or part input is called 'nowhere'" in text
    assert "'decoder.image' has two sources" in text
    assert "'mask' has no source" in text


def test_a_cycle_between_parts_is_refused() -> None:
    parts = (Part("a", model(DECODER)),)
    wires = (("image", "a.image"), ("a.mask", "a.features"), ("a.mask", "mask"))
    with pytest.raises(SurgeryError, match="cannot be sorted"):
        splice(Splice("loop", parts, (("image", "float32", (2, 3)),), (("mask", "float32", (2, 4)),), wires))


def test_a_part_that_only_passes_its_input_to_itself_is_refused() -> None:
    part = Part("a", model('<ir_version: 10, opset_import: ["" : 23]> g (float[1] x) => (float[1] x) {}'))
    with pytest.raises(SurgeryError, match="wired to itself"):
        splice(Splice("loop", (part,), (), (("y", "float32", (1,)),), (("a.x", "a.x"), ("a.x", "y"))))


def test_parts_of_different_opsets_are_refused() -> None:
    other = model(ENCODER.replace('"" : 23', '"" : 21'))
    plan = Splice("p", (Part("a", model(ENCODER)), Part("b", other)), (), (), ())
    with pytest.raises(SurgeryError, match=r"part 'b' uses opset 21 of domain 'ai\.onnx', part 'a' uses 23"):
        splice(plan)


def test_control_flow_is_refused() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 23]>
    g (bool c, float[1] x) => (float[1] y)
    {
      y = If (c) <then_branch = t () => (float[1] a) { a = Identity(x) },
                  else_branch = e () => (float[1] b) { b = Neg(x) }>
    }
    """
    with pytest.raises(SurgeryError, match="holds a subgraph"):
        to_gs(model(text))


# Passes for users of onnx-graphsurgeon


def surgeons_graph() -> gs.Graph:
    """y = (x + x) · (2 · 3), with the nodes in the wrong order and a node that nothing reads."""
    x, y = gs.Variable("x", np.float32, (2, 3)), gs.Variable("y", np.float32, (2, 3))
    doubled, dead = gs.Variable("doubled"), gs.Variable("dead")
    two, three = gs.Constant("two", np.full((), 2, np.float32)), gs.Constant("three", np.full((), 3, np.float32))
    six = gs.Variable("six")
    nodes = [
        gs.Node("Mul", "last", inputs=[doubled, six], outputs=[y]),
        gs.Node("Mul", "constants", inputs=[two, three], outputs=[six]),
        gs.Node("Add", "first", inputs=[x, x], outputs=[doubled]),
        gs.Node("Neg", "dead", inputs=[x], outputs=[dead]),
    ]
    return gs.Graph(nodes=nodes, inputs=[x], outputs=[y], opset=21, name="surgeons", ir_version=10)


def test_a_pass_is_applied_to_a_surgeons_graph_which_stays_as_it_was() -> None:
    graph = surgeons_graph()
    folded = FoldConstants().apply_gs(graph)
    assert [node.op for node in graph.nodes] == ["Mul", "Mul", "Add", "Neg"]
    assert sorted(node.op for node in folded.nodes) == ["Add", "Mul"]
    cleaned = EliminateDead().apply_gs(folded)
    assert sorted(node.op for node in cleaned.nodes) == ["Add", "Mul"]
    (product,) = (node for node in cleaned.nodes if node.op == "Mul")
    (constant,) = (tensor for tensor in product.inputs if isinstance(tensor, gs.Constant))
    assert constant.values.item() == 6
    assert (cleaned.opset, [tensor.name for tensor in cleaned.inputs]) == (21, ["x"])
    image = np.ones((2, 3), np.float32)
    model = ir.serde.deserialize_model(gs.export_onnx(cleaned))
    np.testing.assert_array_equal(run_model(model, {"x": image})["y"], 12 * image)


def test_a_surgeons_graph_with_a_subgraph_comes_back_whole() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (bool c, float[1] x) => (float[1] y)
    {
      y = If (c) <then_branch = t () => (float[1] a) { a = Identity(x) },
                  else_branch = e () => (float[1] b) { b = Neg(x) }>
    }
    """
    graph = gs.import_onnx(ir.serde.serialize_model(model(text)))
    again = ir.serde.deserialize_model(gs.export_onnx(EliminateDead().apply_gs(graph)))
    feeds = {"c": np.array(False), "x": np.array([2], np.float32)}
    np.testing.assert_array_equal(run_model(again, feeds)["y"], [-2])


def test_a_surgeons_graph_in_a_circle_is_refused() -> None:
    a, b = gs.Variable("a", np.float32, (1,)), gs.Variable("b", np.float32, (1,))
    nodes = [gs.Node("Neg", inputs=[a], outputs=[b]), gs.Node("Neg", inputs=[b], outputs=[a])]
    with pytest.raises(SurgeryError, match="graph 'loop' cannot be sorted"):
        EliminateDead().apply_gs(gs.Graph(nodes=nodes, outputs=[b], opset=21, name="loop"))
