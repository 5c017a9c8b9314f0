"""`samonnx validate` on a compiled tiny SAMURAI: the graph of the laws of memory policies, so that a run of all tests
compiles it once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from safetensors.torch import save_file

from samonnx import validate
from samonnx.build_model import build_model
from samonnx.exit_codes import ExitCode
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.seeded import seeded_frame
from samonnx.validate import main
from samonnx.validation_sides import GraphSide
from tests.compiled_artifact import compiled_folder
from tests.laws.policies import POLICIES

VARIANT = POLICIES["samurai"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Not to be written to."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    return compiled_folder(shared, VARIANT.overrides, ("track",), VARIANT.path, ("onnx",))


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


def run(*arguments: object) -> int:
    return main([str(argument) for argument in (*arguments, "--threads", 1)])


def negate_largest_tensor(folder: Path) -> None:
    """Turn the sign of the largest float tensor in the weights file, whose size stays."""
    model = onnx.load(str(folder / Manifest.load(folder).program("track").files["onnx"]), load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.external_data
    }
    name = max(places, key=lambda name: int(places[name]["length"]))
    start, length = int(places[name]["offset"]), int(places[name]["length"])
    path = folder / places[name]["location"]
    content = bytearray(path.read_bytes())
    values = np.frombuffer(content[start : start + length], np.float32)
    content[start : start + length] = (-values).tobytes()
    path.write_bytes(content)


def test_what_was_compiled_passes_and_every_figure_is_written(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    files = ("--json", tmp_path / "v.json", "--plot", tmp_path / "v.png")
    assert run(artifact, "--frames", 8, *files) == ExitCode.OK
    out = capsys.readouterr().out
    assert "the synthetic clip, 128 x 128, 8 frames, each side by its own memory" in out
    assert "8 frames as the reference has them: logits off by " in out
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.json", "v.png"]
    found = json.loads((tmp_path / "v.json").read_text())
    assert (found["passed"], found["recipe"], found["clip"], found["num_frames"]) == (
        True, "samurai_tiny", "synthetic", 8,
    )  # fmt: skip
    assert [frame["frame"] for frame in found["frames"]] == list(range(8))
    assert [frame["prompted"] for frame in found["frames"]] == [True] + [False] * 7
    assert {frame["graph"] for frame in found["frames"]} == {"track"}
    for frame in found["frames"]:
        assert 0 <= frame["relative_error"] < 1e-4
        assert frame["mask_iou"] == 1
        assert frame["mask_choice"][0] == frame["mask_choice"][1]
        assert frame["motion"]["phase"][0] == frame["motion"]["phase"][1]
        assert frame["motion"]["error"] < 1e-4
    assert any(frame["logit_error"] > 0 for frame in found["frames"]), "two different programs, and not one digit off"


def test_a_graph_with_wrong_numbers_fails_and_the_frame_is_named(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    negate_largest_tensor(copy)
    assert run(copy, "--frames", 2, "--json", tmp_path / "v.json") == ExitCode.CHECK_FAILED
    error = capsys.readouterr().err
    assert "2 of 2 frames not as the reference has them: frame 0: logits off by " in error
    assert "Traceback" not in error
    assert json.loads((tmp_path / "v.json").read_text())["passed"] is False, "the figures of a failure are written too"


def test_bounds_decide(artifact: Path, copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(artifact, "--frames", 2, "--max-error", 0, "--quiet") == ExitCode.CHECK_FAILED
    assert "(allowed 0)" in capfd.readouterr().err
    assert run(artifact, "--frames", 2, "--max-error", 1e-4, "--min-iou", 1, "--quiet") == ExitCode.OK
    assert capfd.readouterr() == ("", "")


def test_from_the_references_memory_an_error_in_memory_does_not_add_up(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side's own memory: what frame 0 leaves behind reaches frame 1. The reference's: it does not."""
    step = GraphSide.step

    def forgetful(side: Any, frame_index: int, image: Any, given: Any = None, bank: Any = None) -> Any:
        found = step(side, frame_index, image, given, bank)
        if frame_index == 0:
            side._seating.groups[0].bank_rows()["bank.memory"][...] *= -3
        return found

    monkeypatch.setattr(GraphSide, "step", forgetful)
    errors = []
    for mode in ((), ("--from-reference",)):
        run(artifact, "--frames", 3, "--quiet", "--json", tmp_path / "v.json", *mode)
        frames = json.loads((tmp_path / "v.json").read_text())["frames"]
        errors.append([frame["relative_error"] for frame in frames])
    own, reference = errors
    assert own[0] < 1e-4 < 1e-2 < own[1]
    assert max(reference) < 1e-4


def test_a_folder_of_images_with_a_box_and_a_later_correction_by_the_graphs_own_maps(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for t in range(5):
        frame = (seeded_frame(t, 160) * 255).astype(np.uint8).transpose(1, 2, 0)[:120]
        Image.fromarray(frame).save(folder / f"{t}.png")
    prompts = ("--frame", 1, "--box", "30,40,60,50", "--frame", 3, "--point", "70,70")
    files = ("--json", tmp_path / "v.json")
    assert run(artifact, "--video", folder, *prompts, "--maps", "graph", *files) == ExitCode.OK
    assert "clip, 160 x 120, 4 frames" in capsys.readouterr().out
    found = json.loads((tmp_path / "v.json").read_text())
    assert [(frame["frame"], frame["prompted"]) for frame in found["frames"]] == [
        (1, True), (2, False), (3, True), (4, False),
    ]  # fmt: skip
    assert all(frame["relative_error"] < 1e-4 and 0 < frame["encoder_error"] < 1e-3 for frame in found["frames"])
    assert run(artifact, "--video", folder, "--frame", 5, "--point", "70,70") == ExitCode.ERROR
    assert "there is a prompt on frame 5, but the clip has 5 frames (0 to 4)" in capsys.readouterr().err
    assert run(artifact, "--video", folder, "--box", "100,100,90,90") == ExitCode.ERROR
    assert "beyond the frame, which is 160 x 120 pixels" in capsys.readouterr().err


def test_without_its_recipe_an_artifact_is_refused_and_another_recipe_too(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = shutil.move(copy / "recipe.json", tmp_path / "kept.json")
    assert run(copy) == ExitCode.ERROR
    assert "has no recipe.json, which newer compiles write; give its recipe by --recipe FILE" in capsys.readouterr().err
    assert run(copy, "--recipe", VARIANT.path) == ExitCode.ERROR
    assert "is not the recipe that" in capsys.readouterr().err
    assert run(copy, "--recipe", kept, "--frames", 1, "--quiet") == ExitCode.OK


def test_weights_from_a_checkpoint_have_to_be_given_and_to_be_the_same(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"source": "seeded(seed=14)"', '"source": "checkpoint"'))
    assert run(copy) == ExitCode.ERROR
    assert "come from a checkpoint: give the file that it was compiled from by --checkpoint PATH" in (
        capsys.readouterr().err
    )
    state = build_model(load_recipe(copy / "recipe.json")).module.state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    save_file(state, tmp_path / "right.safetensors")
    next(iter(state.values())).mul_(2)
    save_file(state, tmp_path / "wrong.safetensors")
    assert run(copy, "--frames", 1, "--quiet", "--checkpoint", tmp_path / "right.safetensors") == ExitCode.OK
    assert run(copy, "--checkpoint", tmp_path / "wrong.safetensors") == ExitCode.ERROR
    assert "the reference's weights are not those of the artifact" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "web"), "was not compiled for target 'web'; it has: onnx"),
        (("--provider", "tpu"), "execution provider 'tpu' is not in this build"),
        (("--video", "nowhere.mp4", "--point", "1,2"), "nowhere.mp4 does not exist"),
        (("--json", "nowhere/v.json"), "cannot write nowhere/v.json: folder"),
        (("--point", "1,200"), "lies outside the frame, which is 128 x 128 pixels"),
    ],
)
def test_errors_are_said_before_the_model_is_built(
    artifact: Path,
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(validate, "eager_model", lambda *arguments: pytest.fail("the model was built"))
    assert run(artifact, *options) == ExitCode.ERROR
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_file_inside_the_artifact_is_never_overwritten(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (artifact / "manifest.json").read_bytes()
    assert run(artifact, "--json", artifact / "manifest.json") == ExitCode.ERROR
    assert "it lies in the artifact folder" in capsys.readouterr().err
    assert (artifact / "manifest.json").read_bytes() == before


def test_a_folder_that_is_no_artifact_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == ExitCode.ERROR
    assert "has no manifest.json, so it is not an artifact folder" in capsys.readouterr().err
