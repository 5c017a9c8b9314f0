"""`samonnx inspect`: what a file holds, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

from samonnx.exit_codes import ExitCode
from samonnx.inspect import main
from samonnx.inspect_facts import InspectError, PortFacts, model_facts, read_model
from tests.test_optimize import model_of, random

TEXT = """(float[batch,4,5,6] x, float[1,4,5,6] z, bool c, float[3] d) => (float[batch,3,5,6] y, float[1,3,5,6] u) {
    y = Conv (x, w)
    k = Constant <value = double[2] {1.0, 2.0}> ()
    v = Conv (z, w)
    u = If (c) <then_branch = t () => (float[1,3,5,6] p) { p = Relu(v) },
                else_branch = e () => (float[1,3,5,6] q) { q = Neg(v) }>
}"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = model_of(TEXT, {"w": random(3, 4, 1, 1), "d": random(3)})
    model.producer_name, model.producer_version = "pytorch", "2.13"
    path = tmp_path / "in.onnx"
    onnx.save(model, path)
    return path


def test_ports_operators_parameters_and_work_are_counted(file: Path) -> None:
    facts = model_facts(read_model(file), file, top=2)
    assert (facts.producer, facts.ir_version, facts.opsets) == ("pytorch 2.13", 8, {"ai.onnx": 17})
    assert facts.inputs[0] == PortFacts("x", "float", ("batch", 4, 5, 6))
    assert [port.default for port in facts.inputs] == [False, False, False, True]
    assert facts.outputs[1] == PortFacts("u", "float", (1, 3, 5, 6))
    assert (facts.nodes, facts.ops) == (6, {"Conv": 2, "Constant": 1, "If": 1, "Neg": 1, "Relu": 1})
    assert facts.flops == 2 * 3 * 4 * 5 * 6  # of the one with a known size
    assert facts.uncounted == 1
    assert facts.unknown_shapes >= 1
    assert facts.dtypes == {"double": (2, 16), "float": (12 + 3, 60)}
    assert (facts.parameters, facts.bytes) == (17, 76)
    assert [(tensor.name, tensor.bytes) for tensor in facts.largest] == [("w", 48), ("k", 16)]


def test_a_graph_that_contradicts_itself_is_counted_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(model_of("(float[2] x, float[3] z) => (float[N] y) { y = Add(x, z) }"), path)
    facts = model_facts(read_model(path), path)
    assert facts.ops == {"Add": 1}
    assert "Incompatible dimensions" in facts.contradiction


def test_the_command_prints_and_writes_everything(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, picture = file.with_name("facts.json"), file.with_name("graph.svg")
    assert main([str(file), "--json", str(report), "--svg", str(picture)]) == ExitCode.OK
    text = capsys.readouterr().out
    for part in (
        "opsets ai.onnx 17",
        "[batch, 4, 5, 6]",
        "2 Conv",
        "1 nodes of these not counted",
        "17 parameters, 76 B",
    ):
        assert part in text
    assert json.loads(report.read_text())["ops"]["Conv"] == 2
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")


def test_a_file_that_is_no_graph_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InspectError, match=r"cannot read .*x\.onnx: there is no such file"):
        read_model(tmp_path / "x.onnx")
    with pytest.raises(InspectError, match=r"it is a folder; give the .onnx file in it"):
        read_model(tmp_path)
    (tmp_path / "x.onnx").write_bytes(b"not protobuf")
    assert main([str(tmp_path / "x.onnx")]) == ExitCode.ERROR
    assert "as an ONNX model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--from", "y"], ExitCode.USAGE, "--from and --to choose what is drawn: give --svg FILE too"),
        (["--svg", "{folder}/no/x.svg"], ExitCode.ERROR, "does not exist"),
        (["--svg", "{folder}"], ExitCode.ERROR, "it is a folder"),
        (["--json", "{folder}/in.onnx"], ExitCode.ERROR, "it is the graph itself"),
        (["--svg", "{folder}/x.svg", "--to", "v_"], ExitCode.ERROR, "there is no value and no node 'v_' in the graph"),
        (["--top", "-1"], ExitCode.USAGE, "expected a whole number of at least 0; found '-1'"),
    ],
)
def test_what_does_not_fit_is_said(
    options: list[str], code: ExitCode, message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_bytes()
    assert main([str(file), *(option.format(folder=file.parent) for option in options)]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert file.read_bytes() == before
