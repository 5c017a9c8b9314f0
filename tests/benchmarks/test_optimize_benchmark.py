"""The `optimize` benchmark in its short form: numbers hold for every file that is made; never how fast they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import benchmarks.optimize as benchmark
from benchmarks.__main__ import main
from benchmarks.optimize_corpus import EXPORTS, MODULES, Example, Export, export
from samonnx.exit_codes import ExitCode
from samonnx.optimize_result import Timing


@pytest.fixture
def same_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    import samonnx.optimize as module

    monkeypatch.setattr(module, "compare_times", lambda *_, **__: Timing(2.0, 1.0, 0.5, 5))


def measured(tmp_path: Path, *options: str) -> dict[str, Any]:
    report, picture = tmp_path / "optimize.json", tmp_path / "optimize.png"
    arguments = ["optimize", "--threads", "1", "--json", str(report), "--plot", str(picture), *options]
    assert main(arguments) == ExitCode.OK
    assert picture.read_bytes().startswith(b"\x89PNG")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.usefixtures("same_speed")
def test_a_resnet_of_both_exporters_keeps_its_numbers(tmp_path: Path) -> None:
    found = measured(tmp_path, "--model", "resnet")
    assert [file["how"] for file in found["files"]] == [how.name for how in EXPORTS]
    for file in found["files"]:
        assert file["reason"] == ""
        assert file["verified"]
        assert file["largest_error"] <= file["tolerance"] == 1e-5
        assert any("what needs sizes stays" in why for _, why in file["left"])  # its batch is dynamic


@pytest.mark.usefixtures("same_speed")
def test_components_are_exported_and_what_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(full: bool) -> Example:
        raise ImportError("this needs timm\nand more")

    def chosen(args: object) -> list[tuple[str, Callable[[], Example]]]:
        conv = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
        return [("two", lambda: Example(conv, {"x": torch.randn(1, 3, 5, 5)}, ("y",))), ("none", lambda: fail(False))]

    monkeypatch.setattr(benchmark, "_chosen", chosen)
    two, none = measured(tmp_path)["files"]
    assert two["fired"][0] == "fuse_linear_chain"
    assert two["ratio"] == 0.5
    assert two["nodes"][1] == 1
    assert none["reason"] == "ImportError: this needs timm"


@pytest.mark.usefixtures("same_speed")
def test_numbers_that_moved_are_an_error_after_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = benchmark.FileResult("odd", "dynamo, opset 23", largest_error=1.0, tolerance=1e-5, verified=True)
    monkeypatch.setattr(benchmark, "_chosen", lambda _: [("odd", lambda: None)])
    monkeypatch.setattr(benchmark, "export", lambda *_: None)
    monkeypatch.setattr(benchmark, "_result", lambda *_: bad)
    report = tmp_path / "optimize.json"
    assert main(["optimize", "--json", str(report)]) == ExitCode.CHECK_FAILED
    assert report.is_file()
    assert "other numbers, or slower: odd (dynamo, opset 23)" in capsys.readouterr().err


def test_every_module_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["optimize", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in MODULES)


def test_a_symbolic_axis_is_exported_as_one(tmp_path: Path) -> None:
    import onnx

    example = Example(nn.Linear(3, 2), {"x": torch.randn(2, 3)}, ("y",), {"x": {0: "rows"}})
    export(example, Export(False, 17), tmp_path / "m.onnx")
    axis = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert axis.dim_param == "rows"
