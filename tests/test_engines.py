"""Which engine verifies which target, and that both engines give the same numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.engines import TARGETS, OpenvinoGraph, open_graph_for, verifying_engine
from samonnx.graph_session import Array, GraphSession
from samonnx.pass_pipelines import LOWERINGS
from samonnx.recipe import Target
from samonnx.runtime.extras import MissingExtraError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Session
from samonnx.verify import DOMAINS
from tests.conftest import Compile
from tests.laws.scenario import click, idle_feeds, next_bank, relative, run_graph

ASKED = "targets=[onnx,openvino]"


def product() -> ir.Model:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]>\ng (float[2,600] x, float[3] unread, float[600,600] w)'
        " => (float[2,600] y, float[2] z) <int64[1] one = {1}>"
        "{ p = MatMul(x, w) y = Relu(p) z = ReduceSum <keepdims = 0> (y, one) }"
    )
    weight = next(value for value in model.graph.inputs if value.name == "w")
    model.graph.inputs.remove(weight)
    weight.const_value = ir.tensor(np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32), name="w")
    model.graph.register_initializer(weight)
    return model


def test_every_target_is_known_everywhere() -> None:
    assert set(TARGETS) == set(LOWERINGS) == set(DOMAINS) == set(get_args(Target))


def test_both_engines_give_every_output_by_name_and_take_weights_of_any_size() -> None:
    model = product()
    noise = np.random.default_rng(1).standard_normal((2, 600)).astype(np.float32)
    feeds: dict[str, Array] = {"x": noise, "unread": np.zeros(3, np.float32), "more": np.zeros(1)}
    before = ir.to_onnx_text(model)
    found, wanted = OpenvinoGraph(model).run(feeds), GraphSession(model).run(feeds)
    assert list(found) == list(wanted) == ["y", "z"]
    for name, array in wanted.items():
        assert relative(found[name], array) <= 1e-5
    assert ir.to_onnx_text(model) == before


def test_results_of_an_earlier_run_are_not_overwritten() -> None:
    graph = OpenvinoGraph(product())
    feeds = {"x": np.ones((2, 600), np.float32), "unread": np.zeros(3, np.float32)}
    first = graph.run(feeds)["y"]
    kept = first.copy()
    graph.run(feeds | {"x": np.zeros((2, 600), np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_only_its_own_target_is_verified_in_openvino() -> None:
    assert {target: verifying_engine(target) for target in TARGETS} == {
        "onnx": "onnxruntime",
        "ort-cpu": "onnxruntime",
        "openvino": "openvino",
    }
    assert open_graph_for("openvino") is OpenvinoGraph
    assert open_graph_for("onnx") is GraphSession


def test_without_openvino_onnx_runtime_verifies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert verifying_engine("openvino") == "onnxruntime"
    assert open_graph_for("openvino") is GraphSession


def test_a_missing_openvino_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'pip install "samonnx\[openvino\]"'):
        OpenvinoGraph(product())


def test_the_openvino_target_in_openvino_gives_the_numbers_of_onnx_runtime(compiled: Compile) -> None:
    session = compiled(ASKED)
    bank = next_bank(run_graph(session, [{0: click(33.6, 44.8)}], 4)[-1])
    feeds = idle_feeds(session, 4, 0) | bank
    made = compiled(ASKED, target="openvino")
    found = OpenvinoGraph(ir.load(made.folder / made.program.files["openvino"])).run(feeds)
    for name, expected in session.run(feeds).items():
        assert relative(found[name], expected) <= 1e-4, name
        assert relative(made.run(feeds)[name], expected) <= 1e-4, f"{name}, the same graph in ONNX Runtime"


def test_the_manifest_says_what_the_targets_are_for_and_what_ran_them(compiled: Compile) -> None:
    folder: Path = compiled(ASKED).folder
    manifest = Manifest.load(folder)
    assert manifest.targets == {target: TARGETS[target] for target in ("onnx", "openvino")}
    assert manifest.targets["openvino"].precisions == ("f32", "bf16")
    assert {(one.target, one.engine) for one in manifest.verification} == {
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
    }
    assert manifest.tools["openvino"]
    assert (folder / "track@first.openvino.onnx").is_file()
    assert Session(folder, "track").target == "onnx", "nobody gets the graph for OpenVINO unasked"


def test_an_artifact_without_the_target_does_not_speak_of_openvino(compiled: Compile) -> None:
    manifest = Manifest.load(compiled().folder)
    assert set(manifest.targets) == {"onnx", "ort-cpu"}
    assert "openvino" not in manifest.tools
