from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from samonnx import bench, bench_measure, bench_plot
from samonnx.bench import main
from samonnx.bench_measure import measure
from samonnx.bench_process import WorkerProcess, worker_process
from samonnx.bench_worker import Job
from samonnx.exit_codes import ExitCode
from samonnx.runtime.extras import MissingExtraError
from tests.runtime.hand_made_artifact import build

QUICK = ("--repeats", 1, "--warm-up", 0, "--threads", 1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "hand_made"
    build(folder, first=False, filled=(2,))
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def by_case(results: list[dict[str, Any]], *keys: str) -> Mapping[tuple[object, ...], dict[str, Any]]:
    return {tuple(result[key] for key in keys): result for result in results}


def test_a_whole_run_gives_a_table_a_file_and_a_picture(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    options = ("--provider", "cpu", "--objects", "1,3", "--repeats", 2, "--warm-up", 1, "--threads", 1)
    monkeypatch.setattr(bench_measure, "PAUSE", 0.0)
    files = ("--json", tmp_path / "bench.json", "--plot", tmp_path / "bench.png")
    assert run(artifact, *options, *files) == ExitCode.OK
    out = capsys.readouterr().out
    assert "track@2" in out
    assert "2 calls each, in turn, after 1 to warm up" in out
    assert sorted(os.listdir(tmp_path)) == ["bench.json", "bench.png"]
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "bench.json").read_text())
    programs = by_case(found["programs"], "program", "target", "provider")
    assert set(programs) == {(name, target, "cpu") for name in ("track", "track@2") for target in ("onnx", "ort-cpu")}
    for result in programs.values():
        assert len(result["timing"]["seconds"]) == 2
        assert 0 < result["timing"]["least_ms"] <= result["timing"]["median_ms"] < 60_000
        assert result["timing"]["per_second"] == pytest.approx(1e3 / result["timing"]["median_ms"])
        assert result["open_seconds"] > 0
        assert result["graph_bytes"] > 1000
        assert 20e6 < result["peak_bytes"] < 2e9
    tracking = by_case(found["tracking"], "target", "objects")
    assert {key: result["calls"] for key, result in tracking.items()} == {
        ("onnx", 1): 1,
        ("onnx", 3): 2,
        ("ort-cpu", 1): 1,
        ("ort-cpu", 3): 2,
    }
    assert (found["recipe"], found["rows"], found["weights_bytes"]) == ("hand_made", 2, 3136)
    assert (found["threads"], found["repeats"], found["warm_up"]) == (1, 2, 1)
    assert found["failures"] == []


def test_quiet_says_nothing(artifact: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--program", "track@2", "--target", "onnx", "--provider", "cpu", *QUICK)
    assert run(artifact, *options, "--quiet", "--json", tmp_path / "b.json") == ExitCode.OK
    assert capfd.readouterr() == ("", "")
    found = json.loads((tmp_path / "b.json").read_text())
    assert [result["program"] for result in found["programs"]] == ["track@2"]
    assert found["tracking"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--program", "step"], "has no program 'step'; it has: track, track@2"),
        (["--provider", "tpu"], "has no execution provider 'tpu'; present: "),
        (["--target", "web"], "were not compiled for target 'web'; there is: onnx, ort-cpu"),
        (["--json", "nowhere/b.json"], "cannot write nowhere/b.json: folder"),
        (["--plot", "nowhere/b.png"], "cannot write nowhere/b.png: folder"),
    ],
)
def test_errors_are_said_before_anything_is_measured(
    artifact: Path,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *arguments, **options: pytest.fail("something was measured"))
    assert run(artifact, *options) == ExitCode.ERROR
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_file_inside_the_artifact_is_never_overwritten(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (artifact / "manifest.json").read_bytes()
    assert run(artifact, "--json", artifact / "manifest.json") == ExitCode.ERROR
    assert "it lies in the artifact folder" in capsys.readouterr().err
    assert (artifact / "manifest.json").read_bytes() == before


def test_a_missing_matplotlib_is_said_before_anything_is_measured(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(module: str, extra: str) -> object:
        raise MissingExtraError(f"{module} is missing: samonnx[{extra}]")

    monkeypatch.setattr(bench_plot, "require_extra", missing)
    monkeypatch.setattr(bench, "measure", lambda *arguments, **options: pytest.fail("something was measured"))
    assert run(artifact, "--plot", tmp_path / "b.png") == ExitCode.ERROR
    assert "matplotlib.figure is missing: samonnx[benchmark]" in capsys.readouterr().err


def test_a_folder_that_is_no_artifact_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == ExitCode.ERROR
    assert "has no manifest.json, so it is not an artifact folder" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(artifact, "--repeats", "0") == ExitCode.USAGE
    assert "expected a whole number of at least 1; found '0'" in capsys.readouterr().err


def test_what_fails_is_an_error_and_the_other_figures_are_still_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifact"
    build(folder)
    (folder / "track@first.onnx").unlink()
    options = ("--program", "track@first", "--provider", "cpu", *QUICK, "--json", tmp_path / "b.json")
    assert run(folder, *options) == ExitCode.ERROR
    captured = capsys.readouterr()
    assert "samonnx: 1 of 2 measurements failed: track@first, onnx on cpu: " in captured.err
    assert "track@first.onnx is missing" in captured.err
    assert "not measured: track@first, onnx on cpu: " in captured.out
    found = json.loads((tmp_path / "b.json").read_text())
    assert [result["target"] for result in found["programs"]] == ["ort-cpu"]
    assert [failure["target"] for failure in found["failures"]] == ["onnx"]


def test_where_everything_fails_no_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "artifact"
    build(folder)
    (folder / "weights.bin").write_bytes(b"short")
    options = ("--program", "track@first", "--target", "onnx", "--provider", "cpu", *QUICK)
    assert run(folder, *options, "--json", tmp_path / "b.json") == ExitCode.ERROR
    assert "weights.bin is truncated" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["artifact"]


def test_a_provider_that_nobody_asked_for_may_fail(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("here it need not fail")
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    options = ("--program", "track@2", "--target", "onnx", *QUICK)
    assert run(artifact, *options) == ExitCode.OK
    assert "not measured: track@2, onnx on cuda: execution provider 'CUDAExec" in capsys.readouterr().out
    assert run(artifact, *options, "--provider", "cpu", "--provider", "cuda") == ExitCode.ERROR
    assert "1 of 2 measurements failed: track@2, onnx on cuda: " in capsys.readouterr().err


def test_an_interrupt_leaves_no_file_and_ends_the_processes(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(plan: Any, make_job: Any, *, progress: Any, **counts: Any) -> Any:
        steps: list[int] = []

        def counted(what: str, count: int) -> None:
            steps.append(count)
            if sum(steps) == 2:
                raise KeyboardInterrupt

        return measure(plan, make_job, progress=counted, **counts)

    monkeypatch.setattr(bench, "measure", interrupted)
    started: list[WorkerProcess] = []

    @contextmanager
    def noted(job: Job) -> Iterator[WorkerProcess]:
        with worker_process(job) as worker:
            started.append(worker)
            yield worker

    monkeypatch.setattr(bench_measure, "worker_process", noted)
    (tmp_path / "b.json").write_text("earlier")
    options = ("--program", "track@2", "--provider", "cpu", *QUICK)
    assert run(artifact, *options, "--json", tmp_path / "b.json") == ExitCode.INTERRUPTED
    assert (tmp_path / "b.json").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["b.json"]
    assert [worker._process.returncode is not None for worker in started] == [True, True]


def test_help_shows_an_example_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == ExitCode.OK
    text = capsys.readouterr().out
    assert "\n  samonnx bench dist/efficientsam3_m0_9\n" in text
    assert "130 interrupted" in text


def test_it_is_a_module_that_does_not_import_torch(artifact: Path, tmp_path: Path) -> None:
    options = ["--program", "track@2", "--target", "onnx", "--provider", "cpu", *map(str, QUICK)]
    path = str(tmp_path / "b.json")
    command = [sys.executable, "-m", "samonnx.bench", str(artifact), *options, "--quiet", "--json", path]
    subprocess.run(command, check=True)
    assert json.loads(Path(path).read_text())["recipe"] == "hand_made"
    program = (
        "import sys, samonnx.bench, samonnx.bench_worker; "
        "print(sorted({'torch', 'onnx', 'pydantic', 'yaml', 'rich', 'matplotlib', 'PIL', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
