from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Array, InputError, Session, SessionError, execution_providers, short_provider_name
from tests.runtime.hand_made_artifact import build


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact that a test may damage."""
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


@pytest.fixture(scope="module")
def session(artifact: Path) -> Session:
    return Session(artifact)


@pytest.fixture
def inputs(session: Session) -> dict[str, Array]:
    """Valid inputs for `track`: noise for the floats, an empty bank."""
    noise = np.random.default_rng(0)
    given: dict[str, Array] = {}
    for port in session.program.inputs:
        if port.dtype == "float32":
            given[port.name] = noise.standard_normal(port.sides()).astype(np.float32)
        else:
            given[port.name] = np.zeros(port.sides(), dtype=port.dtype)
    for pair in session.manifest.bank:
        given[pair.input] = np.full(pair.shape, pair.empty, dtype=pair.dtype)
    return given


def test_every_output_of_the_manifest_comes_back(session: Session, inputs: dict[str, Array]) -> None:
    outputs = session.run(inputs)
    assert {n: (str(a.dtype), a.shape) for n, a in outputs.items()} == {
        port.name: (port.dtype, port.shape) for port in session.program.outputs
    }


def test_arrays_that_are_not_contiguous_give_the_same(session: Session, inputs: dict[str, Array]) -> None:
    expected = session.run(inputs)
    strided = {n: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for n, a in inputs.items()}
    assert not strided["image"].flags.c_contiguous
    for name, value in session.run(strided).items():
        np.testing.assert_array_equal(value, expected[name])


def test_the_call_order_does_not_matter(session: Session, inputs: dict[str, Array]) -> None:
    other = {**inputs, "image": np.zeros_like(inputs["image"])}
    first, _, again = session.run(inputs), session.run(other), session.run(inputs)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])


def test_the_ort_cpu_graph_is_preferred(artifact: Path, session: Session) -> None:
    assert session.target == "ort-cpu"
    assert Session(artifact, target="onnx").target == "onnx"


def test_without_an_ort_cpu_graph_the_onnx_one_is_taken(copy: Path) -> None:
    text = (copy / "manifest.json").read_text().replace('"ort-cpu"', '"openvino"')
    (copy / "manifest.json").write_text(text)
    assert Session(copy).target == "onnx"


def test_a_wrong_dtype_and_shape_are_said_in_the_callers_terms(session: Session, inputs: dict[str, Array]) -> None:
    bad = {**inputs, "bank.memory": np.zeros((2, 4), dtype=np.float64), "point_labels": np.zeros((2, 4))}
    with pytest.raises(InputError) as caught:
        session.run(bad)
    assert str(caught.value) == (
        "program 'track': point_labels: expected int32 [2, 4], got float64 [2, 4]; "
        "bank.memory: expected float32 [2, 3, 4, 2, 2], got float64 [2, 4]"
    )


def test_missing_and_unknown_inputs_are_listed_together(session: Session, inputs: dict[str, Array]) -> None:
    bad = {**inputs, "imaeg": inputs["image"]}
    del bad["image"]
    with pytest.raises(InputError) as caught:
        session.run(bad)
    assert "imaeg: the program has no such input" in str(caught.value)
    assert "image: missing, expected float32 [1, 3, 28, 28] (normalised frame)" in str(caught.value)
    assert "inputs are: image, frame_index" in str(caught.value)


def test_a_python_number_is_not_an_int32(session: Session, inputs: dict[str, Array]) -> None:
    with pytest.raises(InputError, match=r"frame_index: expected int32 \[\], got int64 \[\]"):
        session.run({**inputs, "frame_index": 3})


def test_an_unknown_target_lists_those_there_are(artifact: Path) -> None:
    with pytest.raises(SessionError, match="not compiled for target 'tensorrt'; it has: onnx, ort-cpu"):
        Session(artifact, target="tensorrt")


def test_a_program_only_for_other_targets_says_so(copy: Path) -> None:
    text = (copy / "manifest.json").read_text().replace('"ort-cpu"', '"web"').replace('"onnx"', '"openvino"')
    (copy / "manifest.json").write_text(text)
    with pytest.raises(SessionError, match="no graph for ort-cpu or onnx, only for: openvino, web"):
        Session(copy)


def test_a_missing_graph_is_said(copy: Path) -> None:
    (copy / "track.ort-cpu.onnx").unlink()
    with pytest.raises(SessionError, match=r"track\.ort-cpu\.onnx is missing: the manifest lists it"):
        Session(copy)


def test_a_missing_weights_file_is_said(copy: Path) -> None:
    (copy / "weights.bin").unlink()
    with pytest.raises(SessionError, match=r"weights\.bin is missing; the graphs need it beside them \(3136 bytes\)"):
        Session(copy)


def test_a_truncated_weights_file_is_said(copy: Path) -> None:
    (copy / "weights.bin").write_bytes((copy / "weights.bin").read_bytes()[:100])
    with pytest.raises(SessionError, match="is truncated: it has 100 bytes, the manifest says 3136"):
        Session(copy)


def test_a_weights_file_of_another_compile_is_said(copy: Path) -> None:
    (copy / "weights.bin").write_bytes(bytes(4000))
    with pytest.raises(SessionError, match="is of another compile: it has 4000 bytes"):
        Session(copy)


def test_a_truncated_graph_is_said(copy: Path) -> None:
    graph = copy / "track.ort-cpu.onnx"
    graph.write_bytes(graph.read_bytes()[:500])
    with pytest.raises(SessionError, match=r"ONNX Runtime .* cannot open .*track\.ort-cpu\.onnx"):
        Session(copy)


def test_a_graph_of_another_compile_is_said(copy: Path) -> None:
    shutil.copy(copy / "track@first.onnx", copy / "track.ort-cpu.onnx")
    with pytest.raises(SessionError, match="is not the graph that the manifest describes: they differ in the inputs"):
        Session(copy)


def test_an_unknown_provider_lists_those_there_are(artifact: Path) -> None:
    with pytest.raises(SessionError, match=r"'NoSuchProvider' is not in this build of ONNX Runtime; it has: .*CPU"):
        Session(artifact, providers=["NoSuchProvider"])


def test_providers_may_be_given_by_short_names(artifact: Path) -> None:
    assert Session(artifact, providers=["cpu"]).engine.get_providers() == ["CPUExecutionProvider"]
    assert execution_providers(["CPU", "CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert execution_providers("cpu") == ["CPUExecutionProvider"], "a name alone, not its letters"


def test_short_names_are_those_of_onnx_runtime_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CoreML", "CPU")]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: full)
    assert execution_providers(["coreml", "cpu", "cuda", "tensorrt"]) == [full[2], full[3], full[1], full[0]]
    assert [short_provider_name(name) for name in full] == ["tensorrt", "cuda", "coreml", "cpu"]


def test_a_provider_of_another_build_and_one_that_does_not_exist_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SessionError) as caught:
        execution_providers(["cpu", "cuda"])
    assert str(caught.value) == (
        "execution provider 'cuda' (CUDAExecutionProvider) is not in this build of ONNX Runtime; it has: "
        "cpu (CPUExecutionProvider); install the package of ONNX Runtime that has it"
    )
    with pytest.raises(SessionError) as caught:
        execution_providers(["gpu"])
    assert str(caught.value) == (
        "execution provider 'gpu' is not in this build of ONNX Runtime; it has: cpu (CPUExecutionProvider)"
    )


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_an_error_and_not_the_cpu_in_its_place(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: here)
    with pytest.raises(SessionError, match=r"could not start the execution provider CUDA.* on: CPUExecutionProvider"):
        Session(artifact, providers=["cuda"])


def test_threads_must_be_positive(artifact: Path) -> None:
    with pytest.raises(SessionError, match="threads is 0; expected 1 or more"):
        Session(artifact, threads=0)


def test_a_manifest_may_be_given(artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    assert Session(artifact, manifest=manifest, threads=1).manifest is manifest


def test_a_failure_inside_the_engine_is_said(tmp_path: Path) -> None:
    manifest = build(tmp_path / "a", objects=2)
    text = (tmp_path / "a/manifest.json").read_text().replace(manifest.recipe_digest, "0" * 64)
    # the manifest promises another size than the graph takes: caught by the engine, not by the check of inputs
    (tmp_path / "a/manifest.json").write_text(text.replace("28,\n            28", "29,\n            28"))
    session = Session(tmp_path / "a")
    given = {port.name: np.zeros(port.sides(), dtype=port.dtype) for port in session.program.inputs}
    with pytest.raises(SessionError, match="program 'track' failed in ONNX Runtime"):
        session.run(given)
