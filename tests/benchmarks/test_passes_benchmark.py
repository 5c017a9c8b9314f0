"""What each pass is worth, in its short form, on the tiny recipe: graphs that lack one pass and give the same numbers;
never how fast they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.pass_pipeline import optional_passes
from samonnx.exit_codes import ExitCode
from tests.compiled_artifact import TINY


def test_passes_that_must_run_are_not_optional() -> None:
    for target in ("onnx", "ort-cpu", "openvino"):
        names = optional_passes(target)
        assert {"fold_constants", "sink_value_projection", "fuse_linear_chain", "eliminate_dead"} <= set(names)
        assert not {"unroll_memory", "pin_inputs"}.intersection(names)
        assert not [name for name in names if name.startswith("lower_")]
    assert "mask_as_channel" in optional_passes("ort-cpu")
    assert "mask_as_channel" not in optional_passes("onnx")


def test_the_step_without_a_pass_is_measured_beside_the_step_with_all(tmp_path: Path) -> None:
    json_file, picture = tmp_path / "passes.json", tmp_path / "passes.png"
    arguments = [str(TINY), "--pass", "sink_value_projection", "--pass", "merge_duplicates", "--repeats", "1"]
    arguments += ["--threads", "1", "--json", str(json_file), "--plot", str(picture)]
    assert main(["passes", *arguments]) == ExitCode.OK
    result = json.loads(json_file.read_text())
    assert result["failed"] == {}
    sink, duplicates = result["passes"]
    assert [sink["name"], duplicates["name"]] == ["sink_value_projection", "merge_duplicates"]
    assert sink["graph"]["flops"] > result["graph"]["flops"], "attention over narrower values"
    assert duplicates["graph"]["nodes"] >= result["graph"]["nodes"]
    assert max(sink["error"], duplicates["error"]) < 1e-4
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pass", "lower_onnx"], "--pass lower_onnx: no pass of target ort-cpu that can be left out; those are"),
        (["--target", "web"], "--target web: measured are onnx, ort-cpu, openvino"),
    ],
)
def test_what_cannot_be_left_out_or_run_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["passes", str(TINY), *arguments]) == ExitCode.ERROR
    assert said in " ".join(capsys.readouterr().err.split())
