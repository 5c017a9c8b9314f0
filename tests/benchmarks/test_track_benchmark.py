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
from tests.compiled_artifact import TINY

VARIANTS = ["eager", "eager, 2 necks", "straightforward", "onnx", "ort-cpu"]
OUTPUTS = {"low_res_masks", "masks", "ious", "object_score", "object_pointer", "memory"}


def run(artifact: Path, json_file: Path, *arguments: str) -> int:
    short = ("--artifact", str(artifact), "--repeats", "1", "--threads", "1", "--json", str(json_file))
    return main(["track", str(TINY), *short, *arguments])


@pytest.fixture(scope="module")
def found(artifacts: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a run with a full bank and a profile."""
    json_file = tmp_path_factory.mktemp("benchmark") / "track.json"
    assert run(artifacts(), json_file, "--profile") == ExitCode.OK
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result


def variant(found: dict[str, Any], name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [row for row in found["variants"] if row["name"] == name]
    assert len(rows) == 1
    return rows[0]


def test_every_variant_is_measured_once_with_the_whole_bank(found: dict[str, Any]) -> None:
    assert [row["name"] for row in found["variants"]] == VARIANTS
    assert (found["full_bank"], found["memories"], found["pointers"]) == (True, 7, 16)
    assert (found["repeats"], found["threads"]) == (1, 1)
    for row in found["variants"]:
        assert len(row["timing"]["seconds"]) == 1
        assert row["median"] == row["least"] > 0


def test_all_outputs_of_all_variants_agree_with_the_eager_step(found: dict[str, Any]) -> None:
    assert found["object_score"] > 0, "the object is absent: comparing its masks would say nothing"
    for name in VARIANTS[1:]:
        errors = variant(found, name)["errors"]
        assert set(errors) == OUTPUTS
        assert max(errors.values()) < 1e-4, name


def test_ratios_are_those_of_the_medians(found: dict[str, Any]) -> None:
    eager, straightforward = variant(found, "eager"), variant(found, "straightforward")
    assert eager["times_eager"] == straightforward["times_straightforward"] == 1.0
    for row in found["variants"]:
        assert row["times_eager"] == pytest.approx(eager["median"] / row["median"])
        assert row["times_straightforward"] == pytest.approx(straightforward["median"] / row["median"])


def test_work_is_counted_without_a_gap(found: dict[str, Any]) -> None:
    for name in VARIANTS[2:]:
        graph = variant(found, name)["graph"]
        assert graph["uncounted"] == 0
        assert min(graph["nodes"], graph["file_bytes"], graph["weights_bytes"]) > 0
    assert variant(found, "eager")["flops"] == variant(found, "straightforward")["flops"]
    assert variant(found, "eager, 2 necks")["flops"] > variant(found, "eager")["flops"]
    assert 0 < variant(found, "ort-cpu")["flops_share"] <= 1


def test_peak_memory_of_graphs_is_that_of_a_process_without_torch(found: dict[str, Any]) -> None:
    eager = variant(found, "eager")["peak_bytes"]
    for name in VARIANTS[2:]:
        assert 0 < variant(found, name)["peak_bytes"] < eager


def test_a_profile_accounts_for_all_time(found: dict[str, Any]) -> None:
    for name in VARIANTS[2:]:
        operators = variant(found, name)["operators"]
        assert sum(row["share"] for row in operators) == pytest.approx(1.0)
        assert [row["seconds"] for row in operators] == sorted((row["seconds"] for row in operators), reverse=True)
        assert {"Conv", "Gemm"} <= {row["operator"] for row in operators}
    assert variant(found, "eager")["operators"] == []


def test_the_machine_is_described(found: dict[str, Any]) -> None:
    machine = found["machine"]
    assert machine["cores"] >= 1
    assert {"torch", "onnxruntime"} <= set(machine["packages"])


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


def test_help_and_wrong_usage_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    assert "track" in capsys.readouterr().out
    assert main(["nothing"]) == ExitCode.USAGE
    assert "usage: python -m benchmarks" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["track", "--repeats", "0"])
    assert stopped.value.code == ExitCode.USAGE
    assert "0: expected 1 or more" in capsys.readouterr().err


def test_the_runner_of_graphs_imports_no_torch() -> None:
    code = "import sys, benchmarks.graph_step, benchmarks.peak_memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=TINY.parents[1]).returncode == 0
