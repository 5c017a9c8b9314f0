"""The compile command: the same bytes twice, nothing lost on failure, clear errors, options that do what they say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from rich.console import Console

import samonnx.compile
import samonnx.component_tracer
from samonnx.compile import CompileOptions, compile_recipe, main
from samonnx.emit import VERIFICATION_NAME
from samonnx.errors import VerificationError
from samonnx.exit_codes import ExitCode
from samonnx.recipe import load_recipe
from samonnx.verify import Comparison
from tests.compiled_artifact import TINY

ROOT = Path(__file__).parents[1]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_two_compiles_give_the_same_bytes(artifacts: Callable[..., Path], tmp_path: Path) -> None:
    """The second in a process of its own, with another hash seed. The measured errors are those of eager PyTorch too,
    whose convolutions differ from process to process: of them only what was measured has to be the same."""
    command = [sys.executable, "-m", "samonnx.compile", str(TINY), "--output", str(tmp_path / "again"), "--quiet"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, timeout=600)
    first, second = (digests(folder) for folder in (artifacts(), tmp_path / "again"))
    assert second.pop(VERIFICATION_NAME)
    assert first.pop(VERIFICATION_NAME)
    assert second == first
    one, other = (
        [
            (row["program"], row["target"], row["what"], row["tolerance"], row["engine"])
            for row in json.loads((folder / VERIFICATION_NAME).read_text())
        ]
        for folder in (artifacts(), tmp_path / "again")
    )
    assert one
    assert other == one


def test_a_failed_verification_leaves_the_earlier_artifact_and_names_the_figure(
    artifacts: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "dist" / "tiny"
    output.parent.mkdir()
    output.symlink_to(artifacts(), target_is_directory=True)
    before = digests(output)
    bad = (Comparison("tracker_neck.features", 0.5, 1e-4),)
    monkeypatch.setattr(samonnx.component_tracer, "component_check", lambda *_: lambda: bad)
    with pytest.raises(VerificationError, match=r"tracker_neck.features: error 5.00e-01, allowed 1.0e-04"):
        compile_recipe(TINY, CompileOptions(output=output), Console(quiet=True))
    assert digests(output) == before
    assert [path.name for path in output.parent.iterdir()] == ["tiny"]


def test_list_passes_names_every_pass_with_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-passes"]) == ExitCode.OK
    shown = capsys.readouterr().out
    for name in ("fold_constants", "eliminate_dead", "fuse_attention", "unroll_memory", "lower_onnx", "lower_ort_cpu"):
        assert name in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "tensorrt"], "--target tensorrt: unknown target; known: onnx, ort-cpu, openvino"),
        (
            ["--program", "segmant"],
            "--program segmant: this recipe has no such program; it has: encode_text, encode_image, ground, segment, "
            "track, track@first, track@3, step",
        ),
        (["--set", "memory.recent_slots=7"], "memory.recent_slots: 7 found, at most 6 allowed"),
        (["--set", "model.args.backbone=repvit_m9"], "unknown backbone 'repvit_m9'; known: repvit_m0_9"),
        (["--set", "pins.tracker.multimask_max_points=9"], "tracker.multimask_max_points"),
        (["--checkpoint", "no/such/file.pth"], "no/such/file.pth"),
        (["--dump-after", "fold_constant"], "fold_constants"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(samonnx.compile, "ComponentTracer", lambda *_: pytest.fail("too late: tracing has begun"))
    assert main([str(TINY), "--output", str(tmp_path / "out"), *arguments]) == ExitCode.ERROR
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_no_recipe_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == ExitCode.USAGE
    assert "recipes/efficientsam3_m0_9.yaml" in capsys.readouterr().err


def test_two_programs_for_one_target_with_a_dump_and_each_pass_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = CompileOptions(
        output=tmp_path / "out",
        targets=("onnx",),
        programs=("track@first", "ground"),
        verify_each=True,
        dump_after="merge_duplicates",
        overrides=("verify.frames=1",),
    )
    compile_recipe(TINY, options, Console(quiet=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ground.onnx",
        "manifest.json",
        "recipe.json",
        "track@first.onnx",
        "verification.json",
        "weights.bin",
    ]
    assert load_recipe(tmp_path / "out/recipe.json") == load_recipe(TINY, options.overrides)
    onnx.checker.check_model(str(tmp_path / "merge_duplicates.onnx"))
