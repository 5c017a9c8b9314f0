"""`samonnx golden`: record and check, from an artifact folder or a recipe; exit codes; every bad input."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samonnx import golden
from samonnx.exit_codes import ExitCode
from samonnx.golden_file import GoldenRecord
from samonnx.golden_run import made_up_input, run_program
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Session
from samonnx.seeded import seeded_frame
from tests.tiny_artifact import emit_tiny


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the artifact dist/tiny in it."""
    monkeypatch.chdir(tmp_path)
    emit_tiny(tmp_path / "dist" / "tiny")
    return tmp_path


def run(*arguments: str | Path) -> int:
    return golden.main([str(argument) for argument in arguments])


def change(path: Path, edit: dict[str, float]) -> None:
    """Shift the samples, mean and digest of recorded outputs by a share of their magnitude."""
    record = GoldenRecord.load(path)
    outputs, samples = [], []
    for output, values in zip(record.outputs, record.samples, strict=True):
        shift = edit.get(output.output, 0.0) * output.magnitude
        outputs.append(replace(output, mean=output.mean + shift, sha256="0" * 64) if shift else output)
        samples.append((values.astype(np.float64) + shift).astype(values.dtype))
    replace(record, outputs=tuple(outputs), samples=tuple(samples)).save(path)


def test_what_was_recorded_is_found_again_for_every_target(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("record", "dist/tiny") == ExitCode.OK
    path = work / "golden" / "tiny.golden.npz"
    assert f"golden/tiny.golden.npz: 12 outputs recorded, {path.stat().st_size:,} bytes" in capsys.readouterr().out
    assert run("check", "dist/tiny") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "onnx: 12 outputs, 12 bit-identical, 0 within tolerance, 0 beyond it",
        "ort-cpu: 12 outputs, 12 bit-identical, 0 within tolerance, 0 beyond it",
    ]


def test_a_move_within_the_tolerance_is_shown_and_passes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "dist/tiny")
    change(work / "golden/tiny.golden.npz", {"masks": 3e-5})
    capsys.readouterr()
    assert run("check", "dist/tiny", "--target", "onnx") == ExitCode.OK
    text = capsys.readouterr().out
    assert "onnx: 12 outputs, 9 bit-identical, 3 within tolerance, 0 beyond it" in text
    assert "3.0e-05" in text
    assert "ort-cpu:" not in text


def test_a_move_beyond_the_tolerance_is_shown_and_fails(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "dist/tiny")
    change(work / "golden/tiny.golden.npz", {"next_bank.memory": 2e-2})
    capsys.readouterr()
    assert run("check", "dist/tiny") == ExitCode.CHECK_FAILED
    text = capsys.readouterr().out
    assert text.count("EXCEEDS") == 6
    assert "next_bank.memory" in text
    assert "2.0e-02" in text
    assert "3 beyond it" in text


def test_the_tolerance_is_part_of_the_record(work: Path) -> None:
    run("record", "dist/tiny", "--tolerance", "0.05")
    change(work / "golden/tiny.golden.npz", {"next_bank.memory": 2e-2})
    assert run("check", "dist/tiny") == ExitCode.OK


def test_an_artifact_whose_graph_changed_fails(work: Path) -> None:
    run("record", "dist/tiny")
    # Other weights under an unchanged manifest: what a broken pass or a bad copy looks like.
    manifest = (work / "dist/tiny/manifest.json").read_bytes()
    emit_tiny(work / "dist/tiny", seed=1)
    (work / "dist/tiny/manifest.json").write_bytes(manifest)
    assert run("check", "dist/tiny") == ExitCode.CHECK_FAILED


def test_a_program_for_filled_slots_is_run_no_further_than_its_slots_reach(work: Path) -> None:
    session = Session(work / "dist/tiny", "track", target="onnx")
    session.program = replace(session.program, specialises="other", filled=1)
    assert [step for step, _ in run_program(session, 3, seed=0)] == [0, 1]


def test_the_bank_is_fed_back_from_the_empty_one(work: Path) -> None:
    session = Session(work / "dist/tiny", "track", target="onnx")
    steps = [outputs for _, outputs in run_program(session, 3, seed=0)]
    assert len(steps) == 3
    # next_bank.memory_frame = bank.memory_frame + frame_index + num_frames, from -1.
    assert [int(step["next_bank.memory_frame"][0, 0]) for step in steps] == [-1 + 3, 2 + 4, 6 + 5]
    assert np.array_equal(steps[1]["next_bank.memory"][:, 1:], steps[0]["next_bank.memory"].mean(1, keepdims=True))


def test_the_inputs_of_track_mean_what_their_names_say(work: Path) -> None:
    program = Manifest.load(work / "dist/tiny").program("track")
    ports = {port.name: port for port in program.inputs}

    def made(name: str, step: int) -> np.ndarray:
        return made_up_input(ports[name], program, step, 5, 0)

    assert np.array_equal(made("image", 2)[0], (seeded_frame(2, 16) - 0.5) / 0.5)
    assert made("point_labels", 0).tolist() == [[1, -1]]
    assert made("point_labels", 1).tolist() == [[-1, -1]]
    assert made("point_coords", 0)[0, 0] == pytest.approx([0.3 * 16, 0.4 * 16])
    assert [bool(made("attend_memory", step)[0]) for step in (0, 1)] == [False, True]
    assert (int(made("frame_index", 3)), int(made("num_frames", 3))) == (3, 5)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert run(*arguments) == ExitCode.ERROR
    return capsys.readouterr().err


def test_bad_input_is_explained(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no golden file golden/tiny.golden.npz" in error_of(capsys, "check", "dist/tiny")
    assert "artifact folder dist/none does not exist" in error_of(capsys, "record", "dist/none")
    message = error_of(capsys, "record", "dist/tiny", "--target", "tensorrt")
    assert "--target tensorrt: the artifact has no such target; it has: onnx, ort-cpu" in message
    (work / "bad.npz").write_bytes(b"no zip")
    assert "bad.npz is damaged or not a golden file" in error_of(capsys, "check", "dist/tiny", "--file", "bad.npz")


def test_a_record_of_another_recipe_or_other_weights_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "dist/tiny")
    emit_tiny(work / "dist/other", recipe_digest="f" * 64)
    message = error_of(capsys, "check", "dist/other")
    assert "the golden file was recorded with another recipe: tiny (0000" in message
    assert "the artifact has tiny (ffff" in message
    path = work / "dist/tiny/manifest.json"
    path.write_text(path.read_text().replace("1" * 64, "2" * 64))
    assert "was recorded with another weights: seeded(seed=0) (1111" in error_of(capsys, "check", "dist/tiny")


def test_a_program_that_is_gone_is_an_error(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "dist/tiny")
    path = work / "dist/tiny/manifest.json"
    path.write_text(path.read_text().replace('"name": "track"', '"name": "segment"'))
    assert "dist/tiny has no program track, which golden/tiny.golden.npz has records of" in error_of(
        capsys, "check", "dist/tiny"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required"),
        (("inspect", "dist/tiny"), "invalid choice"),
        (("record",), "DIR_OR_RECIPE"),
        (("record", "dist/tiny", "--steps", "0"), "expected a whole number from 1 on, found '0'"),
        (("record", "dist/tiny", "--tolerance", "nan"), "expected a number from 0 to below 1, found 'nan'"),
    ],
)
def test_wrong_usage_has_its_own_exit_code(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == ExitCode.OK
    assert "samonnx golden check dist/efficientsam3_tiny" in capsys.readouterr().out


@pytest.fixture
def recipe(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """recipes/tiny.yaml, with stand-ins for the recipe reader and the compiler (both have tests of their own)."""
    import samonnx.compile
    import samonnx.recipe
    from samonnx.compile import CompileOptions

    read = types.SimpleNamespace(name="tiny", digest="0" * 64)
    monkeypatch.setattr(samonnx.recipe, "load_recipe", lambda _path: read)

    def compile_recipe(_path: Path, options: CompileOptions) -> Path:
        assert options.output is not None
        emit_tiny(options.output)
        return options.output

    monkeypatch.setattr(samonnx.compile, "compile_recipe", compile_recipe)
    return Path("recipes/tiny.yaml")


def test_a_recipe_stands_for_its_folder_in_dist(work: Path, recipe: Path) -> None:
    assert run("record", recipe) == ExitCode.OK
    assert run("check", "dist/tiny") == ExitCode.OK
    assert run("check", recipe) == ExitCode.OK


def test_a_recipe_that_is_not_compiled_yet_is_compiled(work: Path, recipe: Path) -> None:
    run("record", recipe)
    for path in (work / "dist/tiny").iterdir():
        path.unlink()
    assert run("check", recipe) == ExitCode.OK


def test_an_artifact_older_than_its_recipe_is_an_error(
    work: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emit_tiny(work / "dist/tiny", recipe_digest="f" * 64)
    message = error_of(capsys, "record", recipe)
    assert "dist/tiny was not compiled from recipes/tiny.yaml as it is now" in message
