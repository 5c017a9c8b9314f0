"""Which graphs run where, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import alone, graph_variants
from benchmarks.alone import measure_alone
from benchmarks.engines import Engine
from benchmarks.options import Selection
from benchmarks.peak_memory import peak_memory_of
from benchmarks.variant_result import Absent
from benchmarks.work_variant import EagerVariant, GraphVariant
from samonnx.errors import SamonnxError

PLAIN = GraphVariant(Path("export") / "straightforward.onnx", {"image": np.zeros(1)})


def variants_of(
    *targets: str, monkeypatch: pytest.MonkeyPatch, no_bf16: str = ""
) -> dict[str, GraphVariant | EagerVariant | Absent]:
    monkeypatch.setattr(graph_variants, "why_no_bf16", lambda: no_bf16)
    monkeypatch.setattr(graph_variants, "slimmed", lambda *_: None)
    files = {target: Path(f"track.{target}.onnx") for target in targets}
    return graph_variants.graph_variants(PLAIN, files, {}, Selection(), lambda _: None)


def test_the_target_of_openvino_runs_there_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = variants_of("onnx", "ort-cpu", "openvino", monkeypatch=monkeypatch)
    engines = {name: variant.engine for name, variant in found.items()}
    assert engines == {
        "straightforward": Engine.ORT,
        "onnxslim": Engine.ORT,
        "onnx": Engine.ORT,
        "ort-cpu": Engine.ORT,
        "straightforward, OpenVINO": Engine.OPENVINO,
        "openvino": Engine.OPENVINO,
        "straightforward, OpenVINO bf16": Engine.OPENVINO_BF16,
        "openvino, bf16": Engine.OPENVINO_BF16,
    }


def test_without_that_target_the_standard_graph_runs_in_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    found = variants_of("onnx", "ort-cpu", monkeypatch=monkeypatch)
    ours = found["onnx, OpenVINO"]
    assert isinstance(ours, GraphVariant)
    assert (ours.path, ours.engine, ours.may_fail) == (Path("track.onnx.onnx"), Engine.OPENVINO, False)
    exported = found["straightforward, OpenVINO"]
    assert isinstance(exported, GraphVariant)
    assert (exported.path, exported.may_fail) == (PLAIN.path, True)


def test_bf16_is_absent_on_a_cpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = variants_of("onnx", monkeypatch=monkeypatch, no_bf16="no bf16 on this CPU")
    absent = [one for one in found.values() if isinstance(one, Absent)]
    assert [one.name for one in absent] == ["straightforward, OpenVINO bf16", "onnx, OpenVINO bf16"]
    assert {one.reason for one in absent} == {"no bf16 on this CPU"}


def test_a_target_that_no_engine_here_runs_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = variants_of("onnx", "web", monkeypatch=monkeypatch)["web"]
    assert isinstance(absent, Absent)
    assert absent.reason == "no engine here runs graphs for web"


def test_onnxslim_that_fails_is_absent_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Path) -> None:
        raise SamonnxError("onnxslim failed: out of luck")

    monkeypatch.setattr(graph_variants, "slimmed", fails)
    found = graph_variants.graph_variants(PLAIN, {}, {}, Selection(), lambda _: None)["onnxslim"]
    assert found == Absent("onnxslim", Engine.ORT, "onnxslim failed: out of luck")


def test_a_foreign_graph_that_an_engine_does_not_take_is_absent_ours_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> int:
        raise SamonnxError("RuntimeError: unknown operator\nmore")

    monkeypatch.setattr(alone, "peak_memory_of", fails)
    foreign = GraphVariant(Path("x.onnx"), {}, Engine.OPENVINO, may_fail=True)
    peaks, absent = measure_alone({"foreign": foreign}, 1, lambda _: None)
    assert peaks == {}
    reason = "does not run: RuntimeError: unknown operator"
    assert absent == {"foreign": Absent("foreign", Engine.OPENVINO, reason)}
    with pytest.raises(SamonnxError, match="unknown operator"):
        measure_alone({"ours": GraphVariant(Path("x.onnx"), {}, Engine.OPENVINO)}, 1, lambda _: None)


def test_a_process_that_takes_too_long_is_ended_and_one_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SamonnxError, match=r"^not ready after 0 s$"):
        peak_memory_of(("graph", Engine.ORT, str(tmp_path / "absent.onnx"), "absent.npz", "1"), limit=0.01)
    with pytest.raises(SamonnxError, match=r"^FileNotFoundError: .*absent.npz"):
        peak_memory_of(("graph", Engine.ORT, str(tmp_path / "absent.onnx"), "absent.npz", "1"))
