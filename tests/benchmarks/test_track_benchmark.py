"""The `track` benchmark in its short form, on the tiny recipe: what it writes and that all variants agree; never how
fast they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from samonnx.exit_codes import ExitCode
from samonnx.runtime.manifest import Manifest
from tests.benchmarks.expected_variants import (
    bf16_names,
    measured_bf16_names,
    onnx_runtime_names,
    openvino_names,
    patterns,
)
from tests.compiled_artifact import TINY

SOME = patterns("eager*", "straightforward*", "onnx", "ort-cpu", "*openvino*")
OUTPUTS = {"low_res_masks", "masks", "ious", "object_score", "object_pointer", "memory"}


def run(artifact: Path, *arguments: str) -> int:
    return main(["track", str(TINY), "--artifact", str(artifact), "--repeats", "1", "--threads", "1", *arguments])


@pytest.fixture(scope="module")
def targets(artifacts: Callable[..., Path]) -> list[str]:
    return list(Manifest.load(artifacts()).program("track").files)


@pytest.fixture(scope="module")
def found(artifacts: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a run with a full bank and a profile."""
    json_file = tmp_path_factory.mktemp("benchmark") / "track.json"
    assert run(artifacts(), "--json", str(json_file), "--profile", *SOME) == ExitCode.OK
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result


def variant(found: dict[str, Any], name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [row for row in found["variants"] if row["name"] == name]
    assert len(rows) == 1
    return rows[0]


def graphs(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in found["variants"] if row["engine"] != "PyTorch"]


def test_every_variant_is_measured_once_with_the_whole_bank(found: dict[str, Any], targets: list[str]) -> None:
    names = ["eager", "eager, 2 necks", "straightforward", *onnx_runtime_names(targets), *openvino_names(targets)]
    assert [row["name"] for row in found["variants"]] == names + measured_bf16_names(targets)
    assert (found["full_bank"], found["memories"], found["pointers"]) == (True, 7, 16)
    assert (found["repeats"], found["threads"]) == (1, 1)
    for row in found["variants"]:
        assert len(row["timing"]["seconds"]) == 1
        assert row["median"] == row["least"] > 0


def test_bf16_is_claimed_only_where_the_cpu_has_it(found: dict[str, Any], targets: list[str]) -> None:
    unclaimed = [row["name"] for row in found["absent"] if "no bf16 on this CPU" in row["reason"]]
    assert unclaimed == [name for name in bf16_names(targets) if name not in measured_bf16_names(targets)]


def test_all_outputs_of_all_variants_agree_with_the_eager_step(found: dict[str, Any]) -> None:
    assert found["object_score"] > 0, "the object is absent: comparing its masks would say nothing"
    for row in found["variants"][1:]:
        assert set(row["errors"]) == OUTPUTS
        assert set(row["masks_equal"]) == {"low_res_masks", "masks"}
        assert max(row["errors"].values()) < (1.0 if "bf16" in row["engine"] else 1e-4), row["name"]
        assert min(row["masks_equal"].values()) > 0.99


def test_ratios_are_those_of_the_medians_in_the_same_engine(found: dict[str, Any]) -> None:
    eager, original = (variant(found, name)["median"] for name in ("eager", "eager, 2 necks"))
    baselines = {row["engine"]: row["median"] for row in graphs(found) if row["name"].startswith("straightforward")}
    assert set(baselines) >= {"ONNX Runtime", "OpenVINO"}
    for row in found["variants"]:
        assert row["times_eager"] == pytest.approx(eager / row["median"])
        assert row["times_original"] == pytest.approx(original / row["median"])
        if row["engine"] == "PyTorch":
            assert row["times_straightforward"] is None
        else:
            assert row["times_straightforward"] == pytest.approx(baselines[row["engine"]] / row["median"])


def test_work_is_counted_without_a_gap(found: dict[str, Any]) -> None:
    for row in graphs(found):
        assert row["graph"]["uncounted"] == 0
        assert min(row["graph"][name] for name in ("nodes", "file_bytes", "weights_bytes")) > 0
    assert variant(found, "eager")["flops"] == variant(found, "straightforward")["flops"]
    assert variant(found, "eager, 2 necks")["flops"] > variant(found, "eager")["flops"]
    assert 0 < variant(found, "ort-cpu")["flops_share"] <= 1


def test_the_roof_is_measured_once_an_engine_and_shares_are_of_it(found: dict[str, Any]) -> None:
    for row in found["variants"]:
        same = {other["gemm_peak"] for other in found["variants"] if other["engine"] == row["engine"]}
        assert same == {row["gemm_peak"]}
        assert row["gemm_peak"] > 1e9
        assert row["roofline_share"] == pytest.approx(row["flops"] / row["median"] / row["gemm_peak"])


def test_peak_memory_of_graphs_is_that_of_a_process_without_torch(found: dict[str, Any]) -> None:
    eager = variant(found, "eager")["peak_bytes"]
    for row in graphs(found):
        assert 0 < row["peak_bytes"] < eager


def test_a_profile_accounts_for_all_time(found: dict[str, Any]) -> None:
    convolutions = {"ONNX Runtime": {"Conv", "Gemm"}, "OpenVINO": {"Convolution"}}
    for row in graphs(found):
        operators = row["operators"]
        assert sum(operator["share"] for operator in operators) == pytest.approx(1.0)
        seconds = [operator["seconds"] for operator in operators]
        assert seconds == sorted(seconds, reverse=True)
        assert convolutions.get(row["engine"], set()) <= {operator["operator"] for operator in operators}
    assert variant(found, "eager")["operators"] == []


def test_the_machine_is_described(found: dict[str, Any]) -> None:
    machine = found["machine"]
    assert machine["cores"] >= 1
    assert {"torch", "onnxruntime", "openvino", "onnxslim"} <= set(machine["packages"])


def test_some_variants_alone_are_compared_with_eager_and_drawn(artifacts: Callable[..., Path], tmp_path: Path) -> None:
    json_file, picture = tmp_path / "some.json", tmp_path / "some.png"
    written = ("--json", str(json_file), "--plot", str(picture))
    assert run(artifacts(), "--frames-in-bank", "3", *patterns("ort-*"), *written) == ExitCode.OK
    result = json.loads(json_file.read_text())
    assert [row["name"] for row in result["variants"]] == ["eager", "ort-cpu"]
    assert (result["full_bank"], result["memories"]) == (False, 3)
    assert result["variants"][1]["times_original"] is result["variants"][1]["times_straightforward"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_pattern_that_fits_no_variant_is_refused(
    artifacts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(artifacts(), *patterns("tensorrt")) == ExitCode.ERROR
    message = capsys.readouterr().err
    assert "--variant 'tensorrt': no such variant; there are: 'eager', " in message
    assert "'ort-cpu'" in message


def test_an_artifact_of_another_recipe_is_refused(
    artifacts: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(f"extends: {TINY}\nname: other\n")
    code = main(["track", str(recipe), "--artifact", str(artifacts()), "--repeats", "1", "--threads", "1"])
    assert code == ExitCode.ERROR
    message = capsys.readouterr().err
    assert "is of recipe 'efficientsam3_tiny'" in message
    assert "expected 'other' with one object" in message
    assert "Compile the recipe again" in message


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none", "--json", str(tmp_path / "absent" / "track.json")) == ExitCode.ERROR
    assert "there is no folder" in capsys.readouterr().err


def test_help_and_wrong_usage_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    assert "track" in capsys.readouterr().out
    assert main(["nothing"]) == ExitCode.USAGE
    assert "usage: python -m benchmarks" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["track", "--repeats", "0"])
    assert stopped.value.code == ExitCode.USAGE
    assert "0: expected 1 or more" in capsys.readouterr().err


def test_the_runners_of_graphs_import_no_torch() -> None:
    modules = "benchmarks.engines, benchmarks.openvino_step, benchmarks.peak_memory"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=TINY.parents[1]).returncode == 0
