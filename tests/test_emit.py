"""The artifact folder: what is in it, that it is the same twice, and that nothing half-written ever shows."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx import emit as emit_module
from samonnx.emit import EmitError, Verified, emit, graph_file_name
from samonnx.errors import SamonnxError, VerificationError
from samonnx.runtime.manifest import Manifest, VerificationInfo
from samonnx.runtime.session import Session
from samonnx.weights_file import WeightsLayout
from tests.tiny_artifact import emit_tiny, manifest_of, track_model

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_artifact_holds_graphs_weights_and_manifest(tmp_path: Path) -> None:
    written = emit_tiny(tmp_path / "tiny")
    files = files_of(tmp_path / "tiny")
    assert sorted(files) == ["manifest.json", "track.onnx", "track.ort-cpu.onnx", "weights.bin"]
    assert Manifest.load(tmp_path / "tiny") == written
    assert written.weights.bytes == len(files["weights.bin"]) == 4096
    assert written.program("track").files == {"onnx": "track.onnx", "ort-cpu": "track.ort-cpu.onnx"}


def test_an_artifact_carries_its_recipe_and_may_be_replaced_with_it(tmp_path: Path) -> None:
    model = {"track": {"onnx": track_model()}}
    for text in ("{}\n", '{"name": "tiny"}\n'):
        emit(model, manifest_of(model), tmp_path / "tiny", recipe=text)
        assert files_of(tmp_path / "tiny")["recipe.json"] == text.encode()


def test_the_manifest_is_asked_for_when_all_else_is_on_disk(tmp_path: Path) -> None:
    draft = manifest_of({"track": {"onnx": track_model()}})
    figure = VerificationInfo("track", "onnx", "masks", 1e-4)
    seen: list[set[str]] = []

    def verified() -> Verified:
        (partial,) = (path for path in tmp_path.iterdir() if path.is_dir())
        seen.append(set(files_of(partial)))
        return Verified(replace(draft, verification=(figure,)), "[]\n")

    written = emit({"track": {"onnx": track_model()}}, draft, tmp_path / "tiny", verified)
    assert seen == [{"track.onnx", "weights.bin"}]
    assert written.verification == Manifest.load(tmp_path / "tiny").verification == (figure,)
    assert files_of(tmp_path / "tiny")["verification.json"] == b"[]\n"


def test_what_the_verification_raises_leaves_the_previous_artifact_whole(tmp_path: Path) -> None:
    emit_tiny(tmp_path / "tiny")
    before = files_of(tmp_path / "tiny")

    def failed() -> Verified:
        raise VerificationError("masks are off")

    model = track_model()
    with pytest.raises(VerificationError, match="masks are off"):
        emit({"track": {"onnx": model}}, manifest_of({"track": {"onnx": model}}), tmp_path / "tiny", failed)
    assert files_of(tmp_path / "tiny") == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_file_names_tell_program_and_target() -> None:
    assert graph_file_name("track", "onnx") == "track.onnx"
    assert graph_file_name("track@first", "onnx") == "track@first.onnx"
    assert graph_file_name("track@first", "ort-cpu") == "track@first.ort-cpu.onnx"


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    emit_tiny(tmp_path / "one")
    emit_tiny(tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_the_graph_runs_from_its_folder_and_computes_what_the_model_does(tmp_path: Path) -> None:
    emit_tiny(tmp_path / "tiny")
    session = Session(tmp_path / "tiny", "track", target="onnx")
    random = np.random.default_rng(7)
    inputs: dict[str, npt.ArrayLike] = {
        "image": random.standard_normal((1, 3, 16, 16), dtype=np.float32),
        "frame_index": np.array(3, np.int32),
        "num_frames": np.array(0, np.int32),
        "point_coords": np.ones((1, 2, 2), np.float32),
        "point_labels": np.array([[1, -1]], np.int32),
        "attend_memory": np.array([True]),
        "bank.memory": random.standard_normal((1, 2, 16, 16), dtype=np.float32),
        "bank.memory_frame": np.array([[-1, -1]], np.int32),
    }
    outputs = session.run(inputs)
    whole = onnxruntime.InferenceSession(ir.to_proto(track_model()).SerializeToString())
    for name, value in zip((o.name for o in whole.get_outputs()), whole.run(None, inputs), strict=True):
        assert np.array_equal(outputs[name], value), name


dtypes = st.sampled_from(["float32", "int32", "int64", "bool"])
arrays = st.tuples(dtypes, st.integers(0, 600), st.integers(0, 3)).map(
    lambda of: (np.random.default_rng(of[2]).integers(0, 2, of[1]) * 3).astype(of[0])
)


def identity_model(tensors: Sequence[ir.TensorProtocol]) -> ir.Model:
    """A graph that returns its initialisers w0, w1, … as y0, y1, …"""
    values = [
        ir.Value(name=f"w{i}", shape=ir.Shape(t.shape.numpy()), type=ir.TensorType(t.dtype), const_value=t)
        for i, t in enumerate(tensors)
    ]
    nodes = [ir.node("Identity", [value]) for value in values]
    for i, (node, value) in enumerate(zip(nodes, values, strict=True)):
        node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = f"y{i}", value.type, value.shape
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports={"": 23}, name="g")
    return ir.Model(graph, ir_version=10)


@settings(max_examples=25, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=6), st.booleans())
def test_any_initialisers_come_back_from_disk_as_they_were(
    contents: list[npt.NDArray[np.generic]], is_shared: bool
) -> None:
    """Equal contents, one tensor object under two names, tensors on both sides of the size limit, empty ones."""
    tensors = [ir.tensor(array) for array in contents]
    if is_shared:
        tensors += [tensors[0], ir.tensor(contents[0].copy())]
    programs = {"track": {"onnx": identity_model(tensors)}, "reversed": {"onnx": identity_model(tensors[::-1])}}
    with tempfile.TemporaryDirectory() as folder:
        emit(programs, manifest_of(programs), Path(folder) / "a")
        for program, targets in programs.items():
            model = targets["onnx"]
            loaded = onnx.load(Path(folder) / "a" / graph_file_name(program, "onnx"))
            found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
            for name, value in model.graph.initializers.items():
                assert value.const_value is not None
                expected = value.const_value.numpy()
                assert found[name].dtype == expected.dtype
                assert found[name].tobytes() == expected.tobytes()
        distinct = {array.tobytes() for array in contents if array.nbytes >= 1024}
        stored = (Path(folder) / "a" / "weights.bin").stat().st_size
        assert stored <= sum(-(-len(content) // 64) * 64 for content in distinct)


def test_the_models_of_the_caller_are_not_changed(tmp_path: Path) -> None:
    model = track_model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    programs = {"track": {"onnx": model}}
    emit(programs, manifest_of(programs), tmp_path / "a")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_model_loaded_from_the_artifact_itself_can_replace_it(tmp_path: Path) -> None:
    """Its tensors are mapped from the file that is being replaced."""
    emit_tiny(tmp_path / "a")
    before = files_of(tmp_path / "a")
    loaded = ir.load(tmp_path / "a" / "track.onnx")
    programs = {"track": {"onnx": loaded, "ort-cpu": loaded}}
    emit(programs, manifest_of(programs), tmp_path / "a")
    assert files_of(tmp_path / "a") == before


def test_programs_and_targets_share_one_copy_of_the_weights(tmp_path: Path) -> None:
    programs = {"track": {"onnx": track_model(), "ort-cpu": track_model()}, "track@first": {"onnx": track_model()}}
    written = emit(programs, manifest_of(programs), tmp_path / "a")
    assert written.weights.bytes == 4096


Step = Callable[[], None]


def failing_step(fail_at: int, error: BaseException) -> tuple[Step, list[int]]:
    """A function that raises `error` when it is called for the `fail_at`-th time, and a list with an entry a call."""
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        if len(calls) == fail_at:
            raise error

    return step, calls


def before_and_after(step: Step, real: Callable[..., object]) -> Callable[..., object]:
    def call(*arguments: object, **options: object) -> object:
        step()
        result = real(*arguments, **options)
        step()
        return result

    return call


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
def test_a_failure_at_any_step_leaves_the_previous_artifact_whole_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A step is the moment before or after each write, flush, check or plan; every one of them fails in turn."""
    emit_tiny(tmp_path / "a", seed=2)
    after = files_of(tmp_path / "a")
    emit_tiny(tmp_path / "a", seed=1)
    before = files_of(tmp_path / "a")
    for fail_at in range(1, 200):
        step, calls = failing_step(fail_at, error)
        failure: BaseException | None = None
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", before_and_after(step, os.fsync))
            patch.setattr(os, "mkdir", before_and_after(step, os.mkdir))
            patch.setattr(WeightsLayout, "write", before_and_after(step, WeightsLayout.write))
            patch.setattr(onnx.checker, "check_model", before_and_after(step, onnx.checker.check_model))
            for name in ("_write", "_plan", "_check_written", "lay_out", "serialized", "portable_clone"):
                patch.setattr(emit_module, name, before_and_after(step, getattr(emit_module, name)))
            try:
                emit_tiny(tmp_path / "a", seed=2)
            except (SamonnxError, OSError, KeyboardInterrupt, MemoryError) as caught:
                failure = caught
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
        found = files_of(tmp_path / "a")
        if failure is None:
            # No step failed any more, or one that the system's code passes over (making a parent that is there).
            assert found == after
            if len(calls) < fail_at:
                assert fail_at > 30
                return
        elif isinstance(failure, SamonnxError):
            assert found == before  # as its message says
        else:
            # The flush of the parent folder comes after the exchange and cannot undo it.
            assert found in (before, after)
        if found == after:
            emit_tiny(tmp_path / "a", seed=1)
    pytest.fail("the steps do not end")


def test_a_full_disk_is_said_with_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(SamonnxError) as caught:
        emit_tiny(tmp_path / "a")
    needed = 4096 + (1 << 20)
    figures = [int(word.replace(",", "")) for word in str(caught.value).split() if word.replace(",", "").isdigit()]
    assert figures[1] == 1000
    assert needed < figures[0] < needed + 20000
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_fails_the_checker_is_not_put_in_place(tmp_path: Path) -> None:
    emit_tiny(tmp_path / "a")
    before = files_of(tmp_path / "a")
    model = track_model()
    model.graph[0].op_type = "NoSuchOperator"
    programs = {"track": {"onnx": model}}
    with pytest.raises(EmitError, match=r"track\.onnx fails the ONNX checker, so nothing was put in place: .*NoSuch"):
        emit(programs, manifest_of(programs), tmp_path / "a")
    assert files_of(tmp_path / "a") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_shorter_on_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WeightsLayout, "write", lambda self, path: path.write_bytes(bytes(100)))
    with pytest.raises(EmitError, match=r"weights.bin has 100 bytes on disk, 4,096 were written"):
        emit_tiny(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"notes.txt": "mine"}, "holds files (notes.txt), but no manifest.json of samonnx, so it is not replaced"),
        ({"manifest.json": '{"manifest_version": 3}'}, "but no manifest.json of samonnx"),
        ({"manifest.json": "not json"}, "but no manifest.json of samonnx"),
        (
            {"manifest.json": '{"recipe_digest": ""}', "clip.mp4": "x"},
            "also holds clip.mp4, which replacing it would del",
        ),
    ],
)
def test_a_folder_with_something_else_in_it_is_not_replaced(
    tmp_path: Path, content: dict[str, str], message: str
) -> None:
    (tmp_path / "a").mkdir()
    for name, text in content.items():
        (tmp_path / "a" / name).write_text(text)
    with pytest.raises(EmitError) as caught:
        emit_tiny(tmp_path / "a")
    assert message in str(caught.value)
    assert {path.name: path.read_text() for path in (tmp_path / "a").iterdir()} == content


def test_an_artifact_of_another_version_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text('{"format": 0, "recipe_digest": "x", "old": true}')
    emit_tiny(tmp_path / "a")
    Manifest.load(tmp_path / "a")


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(EmitError, match="is a file; expected the name of a folder"):
        emit_tiny(tmp_path / "a")


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", "../" + tmp_path.name):
        with pytest.raises(EmitError, match="name a folder of its own"):
            emit_tiny(Path(name))


def test_a_manifest_that_describes_other_ports_or_programs_is_refused(tmp_path: Path) -> None:
    programs = {"track": {"onnx": track_model()}}
    manifest = manifest_of(programs)
    track = manifest.programs[0]
    image, *rest = track.inputs
    wrong = replace(track, inputs=(replace(image, shape=(1, 3, 8, 8)), *rest[:-1]), outputs=track.outputs[1:])
    with pytest.raises(EmitError) as caught:
        emit(programs, replace(manifest, programs=(wrong,)), tmp_path / "a")
    assert str(caught.value).splitlines() == [
        "manifest and graphs do not agree:",
        "  track (onnx): input 'bank.memory_frame' is only in the graph",
        "  track (onnx): input 'image' is float32 [1, 3, 16, 16] in the graph, float32 [1, 3, 8, 8] in the manifest",
        "  track (onnx): output 'masks' is only in the graph",
    ]
    with pytest.raises(EmitError, match=r"the manifest describes \['track'\], the programs are \['segment'\]"):
        emit({"segment": programs["track"]}, manifest, tmp_path / "a")
    with pytest.raises(EmitError, match=r"'\.\./x' cannot be part of a file name"):
        emit({"track": {"../x": track_model()}}, manifest, tmp_path / "a")
    with pytest.raises(EmitError, match=r"program 'track' has no graph for any target"):
        emit({"track": {}}, manifest, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
