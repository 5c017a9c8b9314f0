"""A graph is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from samonnx import optimize_save
from samonnx.exit_codes import ExitCode
from samonnx.optimize import main, optimize
from samonnx.optimize_result import OptimizeError
from samonnx.optimize_save import check_destination, save_model
from samonnx.result_file import ResultFileError
from tests.test_optimize import foldable, model_of, random


def test_large_weights_go_into_a_file_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize_save, "INLINE_LIMIT", 2000)
    model = model_of("(float[1,32] x) => (float[1,32] y) { y = MatMul(x, w) }", {"w": random(32, 32)})
    written = save_model(optimize(model, timed=False).model, tmp_path / "out.onnx")
    assert [path.name for path in written] == ["out.onnx", "out.onnx.data"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx").stat().st_size < 1000
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    (value,) = ir.load(tmp_path / "out.onnx").graph.initializers.values()
    assert value.const_value is not None
    assert np.array_equal(value.const_value.numpy(), random(32, 32))


def test_weights_from_beside_the_source_come_along(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source, output = tmp_path / "a" / "in.onnx", tmp_path / "b" / "out.onnx"
    onnx.save(foldable("batch"), source, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert main([str(source), "-o", str(output), "--no-timing"]) == ExitCode.OK
    assert [path.name for path in output.parent.iterdir()] == ["out.onnx"]
    onnx.load(output)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.onnx"
    output.write_text("before")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(ir, "save", fail)
    with pytest.raises(ResultFileError, match=r"cannot write .*out\.onnx: no space left on device"):
        save_model(ir.from_proto(foldable()), output)
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert output.read_text() == "before"


def test_a_small_graph_may_take_its_source_s_place(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(foldable(), path)
    assert main([str(path), "-o", str(path), "--no-timing"]) == ExitCode.OK
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Conv"]


def test_places_that_cannot_be_written_to_are_said_before_the_work(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    source.write_bytes(b"")
    with pytest.raises(OptimizeError, match=r"cannot write .*: folder .*nowhere does not exist"):
        check_destination(source, tmp_path / "nowhere" / "out.onnx")
    with pytest.raises(OptimizeError, match="it is a folder; give the name of a file"):
        check_destination(source, tmp_path)
    (tmp_path / "in.onnx.data").write_bytes(b"")
    with pytest.raises(OptimizeError, match=r"cannot write over .*its weights are large or in files beside it"):
        check_destination(source, source)
