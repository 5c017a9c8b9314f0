"""What is read: checked by ONNX's checker, with its words, and without claims that nobody has proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from samonnx.optimize_load import load_model
from samonnx.optimize_result import OptimizeError
from tests.test_optimize import foldable, model_of, random


def test_a_file_that_is_not_there_or_a_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(OptimizeError, match=r"cannot read .*nothing\.onnx: there is no such file"):
        load_model(tmp_path / "nothing.onnx")
    with pytest.raises(OptimizeError, match=r"it is a folder; give the .onnx file in it"):
        load_model(tmp_path)


def test_the_checker_s_words_name_the_file(tmp_path: Path) -> None:
    model = foldable()
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(OptimizeError, match=r"bad\.onnx is not a valid ONNX model; the checker says: .*nowhere"):
        load_model(tmp_path / "bad.onnx")


def test_a_graph_that_contradicts_itself_is_refused_with_the_inference_s_words() -> None:
    with pytest.raises(OptimizeError, match=r"the checker says: .*Incompatible dimensions"):
        load_model(model_of("(float[2] x, float[3] z) => (float[N] y) { y = Add(x, z) }"))


def test_wrong_claims_about_inner_values_are_dropped_and_named() -> None:
    model = model_of("(float[2] x) => (float[2] y) { t = Neg(x) y = Neg(t) }")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, [3]))
    loaded = load_model(model)
    assert loaded.left[0].what == "shapes of inner values in the file"
    assert [str(node.outputs[0].shape) for node in loaded.model.graph] == ["[2]", "[2]"]


def test_a_size_that_the_file_names_is_not_taken_for_proved() -> None:
    """The transposed value is not [a, b], whatever the file says: a Reshape to [a, b] behind it must stay."""
    text = "(float[a,b] x) => (float[a,b] y) { t = Transpose(x) s = Shape(x) y = Reshape(t, s) }"
    model = model_of(text)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, ["a", "b"]))
    loaded = load_model(model)
    shapes = {str(node.outputs[0].name): str(node.outputs[0].shape) for node in loaded.model.graph}
    assert shapes["t"] == "[b,a]"
    assert {name: str(shape) for name, shape in loaded.declared.items()} == {"y": "[a,b]"}


def test_weights_beside_the_file_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(foldable(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tensor,) = [value.const_value for value in load_model(path).model.graph.initializers.values()]
    assert isinstance(tensor, ir.LazyTensor)  # read when somebody looks at it
    assert np.array_equal(tensor.numpy(), random(3, 4, 1, 1))
    (tmp_path / "w.bin").unlink()
    with pytest.raises(OptimizeError, match="is not a valid ONNX model; the checker says: "):
        load_model(path)


def test_a_graph_in_memory_that_is_not_sorted_is_refused() -> None:
    model = ir.from_proto(model_of("(float[2] x) => (float[2] y) { t = Neg(x) y = Neg(t) }"))
    first, second = model.graph
    model.graph.remove(first)
    model.graph.insert_after(second, first)
    with pytest.raises(OptimizeError, match=r"the checker says: .*topologically sorted"):
        load_model(model)
