"""The command `samonnx optimize`: files, exit codes, what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from samonnx.exit_codes import ExitCode
from samonnx.optimize import main
from tests.test_optimize import foldable, model_of


def test_the_command_writes_the_graph_and_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output, report = tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "report.json"
    onnx.save(foldable(), source)
    assert main([str(source), "-o", str(output), "--no-timing", "--json", str(report)]) == ExitCode.OK
    onnx.checker.check_model(str(output), full_check=True)
    assert [node.op_type for node in onnx.load(output).graph.node] == ["Conv"]
    text = capsys.readouterr().out
    assert "fold_affine" in text
    assert "compared in ONNX Runtime" in text
    assert f"written: {output}" in text.replace("\n", "")
    saved = json.loads(report.read_text())
    assert saved["verified_by"] == "ONNX Runtime"
    assert saved["comparisons"][0]["output"] == "y"
    assert {r["name"] for r in saved["reports"] if r["modified"]} == {"fold_constants", "fold_affine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "report.json"]


def test_the_command_says_with_its_exit_code_that_nothing_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_of("(float[2] x) => (float[2] y) { y = mine.Magic(x) }", more=', "mine" : 1'), source)
    assert main([str(source), "-o", str(output)]) == ExitCode.CHECK_FAILED
    assert output.is_file()
    assert "out.onnx is written, but no numbers were compared" in capsys.readouterr().err


def test_a_file_that_is_no_model_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(b"not protobuf")
    assert main([str(source), "-o", str(output)]) == ExitCode.ERROR
    assert f"samonnx: {source} is not a valid ONNX model; the checker says: " in capsys.readouterr().err
    assert not output.exists()


def test_the_report_names_what_fired_what_was_left_and_how_it_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(foldable("batch"), source)
    assert main([str(source), "-o", str(tmp_path / "o.onnx"), "--target", "openvino", "--shape", "x=3x4x5x6"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "what the passes did",
        "result: all passes; 3 nodes",
        "what was left",
        "input 'x' [batch,4,5,6] what needs sizes stays",
        "the time graphs for OpenVINO are not timed",
        "largest error of each output, over its largest magnitude",
        "compared in ONNX Runtime with batch = 3",
    ):
        assert part in text
