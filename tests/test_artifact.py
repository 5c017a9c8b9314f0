"""The emitted artifact: what its folder promises, target by target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from samonnx.runtime.manifest import Manifest
from tests.conftest import Compile
from tests.laws.scenario import click, give, idle_feeds, next_bank, relative, run_graph

Artifacts = Callable[..., Path]
PROGRAMS = ("track", "track@first")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_onnx_target_is_standard_checked_and_fully_shaped(artifacts: Artifacts, program: str) -> None:
    path = artifacts() / f"{program}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    assert {opset.domain for opset in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in model.graph.node}
    with tempfile.TemporaryDirectory() as folder:
        inferred = Path(folder) / "inferred.onnx"
        onnx.shape_inference.infer_shapes_path(str(path), str(inferred), strict_mode=True, data_prop=True)
        shaped = {info.name: info for info in onnx.load(str(inferred), load_external_data=False).graph.value_info}
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in outputs:
                dims = shaped[name].type.tensor_type.shape.dim
                assert all(dim.HasField("dim_value") for dim in dims), f"{name} has no static shape"
                assert shaped[name].type.tensor_type.elem_type != onnx.TensorProto.DOUBLE, name


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
def test_every_initialiser_is_used_and_the_manifest_lists_the_ports(
    artifacts: Artifacts, program: str, target: str
) -> None:
    folder = artifacts()
    info = Manifest.load(folder).program(program)
    model = onnx.load(str(folder / info.files[target]), load_external_data=False)
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    for listed, values in ((info.inputs, model.graph.input), (info.outputs, model.graph.output)):
        found = [(v.name, _dtype(v), tuple(dim.dim_value for dim in v.type.tensor_type.shape.dim)) for v in values]
        assert [(port.name, port.dtype, port.shape) for port in listed] == found
        assert all(port.meaning for port in listed)


def test_all_graphs_share_one_weights_file_that_holds_every_tensor_once(artifacts: Artifacts) -> None:
    folder = artifacts()
    regions: dict[tuple[int, int], bytes] = {}
    weights = (folder / "weights.bin").read_bytes()
    for path in folder.glob("*.onnx"):
        for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                assert entries["location"] == "weights.bin"
                start, length = int(entries["offset"]), int(entries["length"])
                regions[start, length] = weights[start : start + length]
    assert len(set(regions.values())) == len(regions)
    spans = sorted(regions)
    assert all(a + length <= b for (a, length), (b, _) in pairwise(spans))


def test_track_first_holds_no_memory_attention_and_takes_no_bank(artifacts: Artifacts) -> None:
    model = onnx.load(str(artifacts() / "track@first.onnx"), load_external_data=False)
    assert not [value.name for value in model.graph.input if value.name.startswith("bank.")]
    assert not [tensor.name for tensor in model.graph.initializer if "tracker.transformer" in tensor.name]
    assert not [node.name for node in model.graph.node if node.name.startswith("attend_memory")]
    whole = onnx.load(str(artifacts() / "track.onnx"), load_external_data=False)
    assert [node.name for node in whole.graph.node if node.name.startswith("attend_memory")]


def test_a_recipe_without_mask_prompts_compiles_to_a_graph_without_them(compiled: Compile) -> None:
    plain, full = compiled("programs.track.mask_prompt=false", program="track@first"), compiled(program="track@first")
    names = {port.name for port in plain.program.inputs}
    assert names == {port.name for port in full.program.inputs} - {"mask_prompt", "mask_prompt_valid"}
    feeds = idle_feeds(compiled(), 0, 0)
    give(feeds, 0, click(33.6, 44.8), None)
    expected = full.run({port.name: feeds[port.name] for port in full.program.inputs})
    found = plain.run({name: feeds[name] for name in names})
    for name, array in expected.items():
        assert relative(found[name], array) <= 1e-5, name


def test_openvino_gives_the_numbers_of_onnx_runtime(artifacts: Artifacts, compiled: Compile) -> None:
    import openvino

    session = compiled()
    bank = next_bank(run_graph(session, [{0: click(33.6, 44.8)}], 4)[-1])
    feeds = idle_feeds(session, 4, 0) | bank
    engine = openvino.Core().compile_model(str(artifacts() / "track.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = engine({name: np.asarray(array) for name, array in feeds.items()})
    found = {name: np.asarray(value) for port, value in results.items() for name in port.get_names()}
    for name, expected in session.run(feeds).items():
        assert relative(found[name], expected) <= 1e-4, name


def _dtype(value: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
