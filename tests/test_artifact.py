"""The emitted artifact: what its folder promises, target by target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from samonnx.programs.recipe_programs import recipe_programs
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Session
from tests.conftest import Compile
from tests.laws import detection_scenario as detecting
from tests.laws.scenario import Array, click, give, idle_feeds, next_bank, relative, run_graph
from tests.tiny_model import tiny_model, tiny_recipe

Artifacts = Callable[..., Path]
PROGRAMS = (
    *("encode_text", "encode_image", "ground", "segment"),
    *("track", "track@first", "track@3", "step"),
)
TARGETS = ("onnx", "ort-cpu")
OTHER_FLOATS = (onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)

NECK = "detector.backbone.vision_backbone"
DETECTORS_OWN = (
    "detector.backbone.language_backbone.",
    f"{NECK}.convs.",
    "detector.dot_prod_scoring.",
    "detector.geometry_encoder.",
    "detector.segmentation_head.",
    "detector.transformer.",
)
TRACKERS_OWN = ("tracker.", f"{NECK}.sam2_convs.")


def load(path: Path) -> onnx.ModelProto:
    """The graph; large weights stay where they are."""
    return onnx.load(str(path), load_external_data=False)


def graph_files(folder: Path, program: str) -> list[Path]:
    return [folder / name for name in Manifest.load(folder).program(program).files.values()]


def regions(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Tensor → where it lies in the weights file: first byte, number of bytes."""
    found = {}
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            assert entries["location"] == "weights.bin"
            found[tensor.name] = int(entries["offset"]), int(entries["length"])
    return found


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
                assert shaped[name].type.tensor_type.elem_type not in OTHER_FLOATS, name


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("target", TARGETS)
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


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_constant_is_a_float_of_another_width(artifacts: Artifacts, program: str, target: str) -> None:
    folder = artifacts()
    model = load(folder / Manifest.load(folder).program(program).files[target])
    assert not [tensor.name for tensor in model.graph.initializer if tensor.data_type in OTHER_FLOATS]
    constants = [node for node in model.graph.node if node.op_type == "Constant"]
    assert not [node.name for node in constants for a in node.attribute if a.t.data_type in OTHER_FLOATS]


def test_all_graphs_share_one_weights_file_that_holds_every_tensor_once(artifacts: Artifacts) -> None:
    folder = artifacts()
    weights = (folder / "weights.bin").read_bytes()
    assert [path.name for path in folder.iterdir() if path.suffix not in (".onnx", ".json")] == ["weights.bin"]
    contents: dict[tuple[int, int], bytes] = {}
    place: dict[str, tuple[int, int]] = {}
    for program in PROGRAMS:
        for path in graph_files(folder, program):
            placed = regions(load(path))
            assert placed, f"{path.name} refers to no weight in the file"
            contents |= {(start, length): weights[start : start + length] for start, length in placed.values()}
            for name, region in placed.items():
                if name.startswith(("detector.", "tracker.")):
                    assert place.setdefault(name, region) == region, f"{name} lies in two places"
    assert len(set(contents.values())) == len(contents)
    spans = sorted(contents)
    assert all(a + length <= b for (a, length), (b, _) in pairwise(spans))


@pytest.mark.parametrize(
    ("program", "foreign"),
    [
        ("track", DETECTORS_OWN),
        ("track@first", DETECTORS_OWN),
        ("segment", TRACKERS_OWN),
        ("encode_text", (*TRACKERS_OWN, NECK)),
        ("encode_image", TRACKERS_OWN),
        ("ground", (*TRACKERS_OWN, "detector.backbone.")),
    ],
)
def test_a_program_holds_no_weight_of_the_part_it_does_not_run(
    artifacts: Artifacts, program: str, foreign: tuple[str, ...]
) -> None:
    """Neither by its name, nor under another one, transposed or reshaped."""
    folder = artifacts()
    programs = recipe_programs(tiny_model(), tiny_recipe())
    own = {part.name for one in programs if program in one.names for part in one.components}
    others = {part.name for one in programs for part in one.components} - own
    weights = {name: tensor.numpy() for name, tensor in tiny_model().state_dict().items() if name.startswith(foreign)}
    contents = {values(array) for array in weights.values() if array.size >= 16}
    # Passes merge some of them with their neighbours.
    assert len(contents & contents_of(folder / "step.onnx")) > len(contents) / 3, "the program that has them shows them"
    for path in graph_files(folder, program):
        model = load(path)
        names = [tensor.name for tensor in model.graph.initializer] + [node.name for node in model.graph.node]
        assert not [name for name in names if name.startswith(foreign) or name.split("/")[0] in others]
        assert not contents & contents_of(path)


def values(array: Array) -> bytes:
    """The numbers of an array, whatever its layout."""
    return np.sort(array, axis=None).tobytes()


def contents_of(path: Path) -> set[bytes]:
    tensors = load(path).graph.initializer
    return {values(onnx.numpy_helper.to_array(tensor, str(path.parent))) for tensor in tensors}


@pytest.mark.parametrize("program", ["ground", "segment", "step"])
@pytest.mark.parametrize("target", TARGETS)
def test_boxes_are_pooled_by_one_standard_operator(artifacts: Artifacts, program: str, target: str) -> None:
    folder = artifacts()
    model = load(folder / Manifest.load(folder).program(program).files[target])
    (pooling,) = [node for node in model.graph.node if node.op_type == "RoiAlign"]
    assert pooling.domain == ""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in pooling.attribute}
    assert given["coordinate_transformation_mode"] == b"output_half_pixel"
    assert (given["output_height"], given["output_width"], given["sampling_ratio"]) == (7, 7, 0)


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
    session = compiled()
    bank = next_bank(run_graph(session, [{0: click(33.6, 44.8)}], 4)[-1])
    feeds = idle_feeds(session, 4, 0) | bank
    found = run_in_openvino(artifacts() / "track.onnx", feeds)
    for name, expected in session.run(feeds).items():
        assert relative(found[name], expected) <= 1e-4, name


@pytest.mark.parametrize("program", ["encode_text", "encode_image", "ground", "segment", "step"])
def test_openvino_detects_with_the_numbers_of_onnx_runtime(artifacts: Artifacts, program: str) -> None:
    folder = artifacts(*detecting.BASE)

    def open_(name: str) -> Session:
        return detecting.opened(folder, name)

    feeds = detecting.idle_feeds(open_, program)
    if "prompt_boxes" in feeds:
        detecting.show(feeds, "box", {0: ((0.3, 0.4, 0.24, 0.18), 1), 2: ((0.71, 0.66, 0.131, 0.217), 0)})
        detecting.show(feeds, "point", {1: ((0.6, 0.2), 1)})
    if "bank.memory" in feeds:
        give(feeds, 0, click(33.6, 44.8), None)
        feeds |= {"frame_index": np.array(1, np.int32), **next_bank(open_(program).run(feeds))}
    errors = detecting.distance(run_in_openvino(folder / f"{program}.onnx", feeds), open_(program).run(feeds))
    assert max(errors.values()) <= 1e-4, errors


def run_in_openvino(graph: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    import openvino

    engine = openvino.Core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = engine({name: np.asarray(array) for name, array in feeds.items()})
    return {name: np.asarray(value) for port, value in results.items() for name in port.get_names()}


def _dtype(value: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
