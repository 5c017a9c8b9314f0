"""Graph bytes: the same for the same graph, free of traces of its making, and the caller's model untouched."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from samonnx.graph_file import external_tensors, portable_clone, serialized
from samonnx.weights_file import lay_out
from tests.tiny_artifact import track_model


def bytes_of(model: ir.Model) -> bytes:
    clone = portable_clone(model, "track")
    return serialized(clone, lay_out(external_tensors(clone)))


def proto_of(model: ir.Model) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.ParseFromString(bytes_of(model))
    return proto


def littered_model() -> ir.Model:
    """`track_model` with everything that an exporter leaves behind."""
    model = track_model()
    model.producer_name, model.producer_version, model.doc_string = "pytorch", "2.13.0", "/home/me/model.py"
    model.metadata_props["path"] = "/home/me"
    model.graph.doc_string = "/home/me"
    model.graph.metadata_props["path"] = "/home/me"
    for node in model.graph:
        node.doc_string = "/home/me"
        node.metadata_props["pkg.torch.onnx.stack_trace"] = 'File "/home/me/model.py", line 3'
        node.outputs[0].metadata_props["path"] = "/home/me"
        node.outputs[0].doc_string = "/home/me"
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.doc_string = "/home/me"
        value.metadata_props["path"] = "/home/me"
    return model


def test_nothing_of_the_place_or_the_making_is_left() -> None:
    assert b"/home/me" not in bytes_of(littered_model())
    assert bytes_of(littered_model()) == bytes_of(track_model())


def test_the_module_path_of_a_node_and_notes_of_our_passes_stay() -> None:
    model = track_model()
    model.graph[0].metadata_props.update({"namespace": "tracker/decoder", "samonnx.pass": "fold", "x": "y"})
    kept = {prop.key: prop.value for prop in proto_of(model).graph.node[0].metadata_props}
    assert kept == {"namespace": "tracker/decoder", "samonnx.pass": "fold"}


def test_the_order_of_initialisers_and_opsets_does_not_matter() -> None:
    model = track_model()
    values = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    for value in reversed(values):
        model.graph.initializers.add(value)
    model.opset_imports["com.microsoft"] = 1
    other = track_model()
    versions = dict(other.opset_imports)
    other.opset_imports.clear()
    other.opset_imports.update({"com.microsoft": 1, **versions})
    assert bytes_of(model) == bytes_of(other)


def test_the_model_of_the_caller_is_not_changed() -> None:
    model = littered_model()
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    bytes_of(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in tensors.items())


def test_every_node_gets_a_name_of_its_own() -> None:
    model = track_model()
    model.graph[0].name = model.graph[1].name = "twice"
    model.graph[3].name = "ReduceSum_2"
    names = [node.name for node in proto_of(model).graph.node]
    assert names[:4] == ["twice", "ReduceMean_1", "ReduceSum_2", "Add_3"]
    assert len(set(names)) == len(names)


def test_large_tensors_are_referred_to_and_small_ones_are_inside() -> None:
    located = {
        tensor.name: tensor.data_location == onnx.TensorProto.EXTERNAL
        for tensor in proto_of(track_model()).graph.initializer
    }
    assert located == {"channels": False, "none": False, "weight": True, "window": True, "zero": False}


def test_a_large_constant_node_leaves_the_graph_file() -> None:
    model = track_model()
    table = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16)
    constant = ir.node("Constant", [], {"value": ir.tensor(table)})
    constant.outputs[0].name = "table"
    scale = model.graph[7]
    assert scale.op_type == "Mul"
    model.graph.insert_before(scale, constant)
    scale.replace_input_with(1, constant.outputs[0])
    clone = portable_clone(model, "track")
    assert "table" in {name for name, _ in external_tensors(clone)}
    assert len(bytes_of(model)) < 3000


def test_the_graph_is_named_for_its_program() -> None:
    proto = proto_of(track_model())
    assert proto.graph.name == "track"
    assert proto.producer_name == "samonnx"
