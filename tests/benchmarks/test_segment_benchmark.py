"""The `segment` benchmark in its short form, on the tiny recipe: what it writes, that all variants agree, and that each
run does all the work; never how fast they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from benchmarks import segment
from benchmarks.__main__ import main
from benchmarks.detection_inputs import detection_inputs
from benchmarks.engines import Engine
from benchmarks.graph_step import GraphStep
from benchmarks.machine import machine_facts
from benchmarks.measure import Timing
from benchmarks.segment_result import ProgramResult, SegmentResult, WordCost
from benchmarks.straightforward_program import export_whole_program
from benchmarks.variant_result import VariantResult
from benchmarks.whole_program import EagerProgram
from samonnx.build_model import build_model
from samonnx.eager_program import EagerRun
from samonnx.exit_codes import ExitCode
from samonnx.graph_session import Array
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.verify import compare
from tests.benchmarks.expected_variants import patterns
from tests.compiled_artifact import TINY

RECIPE = load_recipe(TINY)
PROGRAMS = ["segment", "encode_text", "encode_image", "ground"]
VARIANTS = ["eager", "straightforward", "onnx", "ort-cpu"]
CHOSEN = ("eager*", "straightforward", "onnx", "ort-cpu")
ORIGINAL = "eager, 2 necks"
WITH_IMAGE = ("segment", "encode_image")
DETECTIONS = {"boxes", "logits", "presence", "scores", "masks", "semantic_mask"}
OUTPUTS = {
    "segment": DETECTIONS,
    "encode_text": {"text_features", "text_valid"},
    "encode_image": {"high_res_0", "high_res_1", "features"},
    "ground": DETECTIONS,
}


def run(artifact: Path, *arguments: str) -> int:
    """Other variants are the same code here and in `track` and `encode`, whose tests run them."""
    short = ("--artifact", str(artifact), "--repeats", "1", "--threads", "1")
    return main(["segment", str(TINY), *short, *patterns(*CHOSEN), *arguments])


@pytest.fixture(scope="module")
def found(artifacts: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a run with a profile."""
    json_file = tmp_path_factory.mktemp("benchmark") / "segment.json"
    assert run(artifacts(), "--profile", "--json", str(json_file)) == ExitCode.OK
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result


@pytest.fixture(scope="module")
def model() -> EfficientSAM3:
    return cast(EfficientSAM3, build_model(RECIPE).module)


@pytest.fixture(scope="module")
def programs(model: EfficientSAM3) -> dict[str, Program]:
    return {program.name: program for program in recipe_programs(model, RECIPE)}


@pytest.fixture(scope="module")
def feeds(model: EfficientSAM3, artifacts: Callable[..., Path]) -> dict[str, Array]:
    return detection_inputs(model, Manifest.load(artifacts()).detecting())


def rows(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for program in found["programs"]:
        for row in program["variants"]:
            yield program["program"], row


def variant(found: dict[str, Any], program: str, name: str) -> dict[str, Any]:
    chosen = [row for of, row in rows(found) if (of, row["name"]) == (program, name)]
    assert len(chosen) == 1
    return chosen[0]


def test_every_program_is_measured_once_in_every_variant(found: dict[str, Any]) -> None:
    necks = {name: [ORIGINAL] if name in WITH_IMAGE else [] for name in PROGRAMS}
    expected = [(program, name) for program in PROGRAMS for name in ("eager", *necks[program], *VARIANTS[1:])]
    assert [(program, row["name"]) for program, row in rows(found)] == expected
    assert (found["repeats"], found["threads"], found["recipe"]) == (1, 1, "efficientsam3_tiny")
    for _, row in rows(found):
        assert len(row["timing"]["seconds"]) == 1
        assert row["median"] == row["least"] > 0


def test_all_outputs_of_all_variants_agree_with_eager(found: dict[str, Any]) -> None:
    for program, row in rows(found):
        if row["name"] != "eager":
            assert set(row["errors"]) == OUTPUTS[program]
            assert max(row["errors"].values()) < 1e-4, (program, row["name"])


def test_ratios_are_those_of_the_medians_of_the_same_program(found: dict[str, Any]) -> None:
    for program, row in rows(found):
        eager, straightforward = (variant(found, program, name)["median"] for name in VARIANTS[:2])
        assert row["times_eager"] == pytest.approx(eager / row["median"])
        if row["engine"] == "PyTorch":
            assert row["times_straightforward"] is None
        else:
            assert row["times_straightforward"] == pytest.approx(straightforward / row["median"])
        assert (row["times_original"] is not None) == (program in WITH_IMAGE)


def test_work_is_counted_without_a_gap_and_the_parts_make_the_whole(found: dict[str, Any]) -> None:
    for program, row in rows(found):
        if row["name"] == "eager":
            assert row["flops"] == variant(found, program, "straightforward")["flops"]
        elif row["name"] == ORIGINAL:
            assert row["flops"] > variant(found, program, "straightforward")["flops"]
        else:
            assert row["graph"]["uncounted"] == 0
            assert min(row["graph"][key] for key in ("nodes", "file_bytes", "weights_bytes")) > 0
            assert 0 < row["flops_share"] <= 1
    for name in VARIANTS:
        whole, *parts = (variant(found, program, name)["flops"] for program in PROGRAMS)
        assert sum(parts) == whole


def test_peak_memory_is_measured_of_sessions_and_of_eager_with_the_whole_model(found: dict[str, Any]) -> None:
    eager = variant(found, "segment", "eager")["peak_bytes"]
    for program, row in rows(found):
        if row["engine"] != "PyTorch":
            assert 0 < row["peak_bytes"] < eager
        elif (program, row["name"]) not in (("segment", "eager"), ("encode_image", "eager")):
            assert row["peak_bytes"] is None


def test_a_profile_accounts_for_all_time(found: dict[str, Any]) -> None:
    for _, row in rows(found):
        if row["engine"] == "PyTorch":
            assert row["operators"] == []
        else:
            assert sum(operator["share"] for operator in row["operators"]) == pytest.approx(1.0)


def test_inputs_are_two_words_and_one_box_on_the_ellipse(feeds: dict[str, Array]) -> None:
    assert feeds["token_ids"].tolist() == [[49406, 320, 1929, 49407, 0, 0, 0, 0]]
    assert feeds["text_valid"].tolist() == [[True] * 4 + [False] * 4]
    assert feeds["prompt_box_labels"].tolist() == [[1, -1, -1, -1]]
    assert feeds["prompt_point_labels"].tolist() == [[-1] * 4]
    np.testing.assert_allclose(feeds["prompt_boxes"][0, 0], (0.3, 0.4, 0.24, 0.18), rtol=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_eager_computes_what_compiled_graphs_are_verified_against(
    programs: dict[str, Program], feeds: dict[str, Array], name: str
) -> None:
    program = programs[name]
    expected = EagerRun().values(program, {port.name: torch.from_numpy(feeds[port.name]) for port in program.inputs})
    outputs = EagerProgram(program, feeds)()
    assert set(outputs) == OUTPUTS[name]
    assert all(np.array_equal(array, expected[output].numpy()) for output, array in outputs.items())


def test_every_eager_run_does_all_the_work(programs: dict[str, Program], feeds: dict[str, Array]) -> None:
    ran: list[str] = []

    class Counted(nn.Module):
        def __init__(self, name: str, module: nn.Module) -> None:
            super().__init__()
            self.name, self.module = name, module

        def forward(self, *inputs: torch.Tensor) -> object:
            ran.append(self.name)
            return self.module(*inputs)

    program = programs["segment"]
    parts = tuple(dataclasses.replace(part, module=Counted(part.name, part.module)) for part in program.components)
    step = EagerProgram(dataclasses.replace(program, components=parts), feeds)
    step()
    step()
    assert ran == 2 * [part.name for part in program.components]


def test_the_straightforward_export_runs_and_reads_the_box(
    programs: dict[str, Program], feeds: dict[str, Array], tmp_path: Path
) -> None:
    """ROI pooling is there, without the operator that ONNX Runtime cannot run: another box, other detections, and as in
    eager PyTorch."""
    program, path = programs["ground"], tmp_path / "ground.onnx"
    export_whole_program(program, feeds, path)
    exported = ir.load(path)
    assert exported.graph.opset_imports[""] == 23
    assert {"RoiAlign"}.isdisjoint(node.op_type for node in exported.graph.all_nodes())
    moved = feeds | {"prompt_boxes": feeds["prompt_boxes"] * np.array([2, 0.5, 1.5, 0.75], np.float32)}
    here, there = (GraphStep(path, given, threads=1)()["masks"] for given in (feeds, moved))
    assert compare("masks", there, EagerProgram(program, moved)()["masks"], 1e-4).ok
    assert not compare("masks", there, here, 1e-3).ok


def variant_result(
    name: str,
    median: float,
    errors: Mapping[str, float],
    masks: Mapping[str, float] = MappingProxyType({}),
    engine: Engine = Engine.ORT,
) -> VariantResult:
    return VariantResult(
        name=name,
        engine=engine,
        timing=Timing((median,)),
        median=median,
        least=median,
        times_eager=1.0,
        times_original=None,
        times_straightforward=1.0,
        flops=0,
        flops_share=1.0,
        gemm_peak=1e9,
        roofline_share=0.0,
        graph=None,
        peak_bytes=None,
        errors=errors,
        masks_equal=dict(masks),
        operators=(),
    )


def result(medians: Mapping[str, float], error: float = 0.0) -> SegmentResult:
    """One variant, with these medians by program and this error everywhere."""
    found = [
        ProgramResult(name, segment.TOLERANCES[name], (variant_result("onnx", median, {"masks": error}),))
        for name, median in medians.items()
    ]
    return SegmentResult("tiny", "", "seeded", 1, 1, machine_facts(), tuple(found))


def test_a_further_text_costs_encode_text_and_ground() -> None:
    medians = {"segment": 9.0, "encode_text": 1.0, "encode_image": 5.0, "ground": 2.0}
    assert result(medians).word_costs() == (WordCost("onnx", again=9.0, image_kept=3.0, both_kept=2.0),)
    assert result({"segment": 9.0, "encode_text": 1.0}).word_costs() == ()


def test_errors_behind_the_image_encoder_are_reported_others_are_judged() -> None:
    assert result({"segment": 1.0}, error=0.5).agrees
    assert result({"encode_text": 1.0, "ground": 1.0}, error=0.9e-3).agrees
    assert not result({"ground": 1.0}, error=1.1e-3).agrees
    assert not result({"encode_image": 1.0}, error=3e-2).agrees


def test_bf16_is_judged_by_its_thresholded_masks_alone() -> None:
    def judged(share: float) -> bool:
        return variant_result("openvino, bf16", 1.0, {"masks": 0.2}, {"masks": share}, Engine.OPENVINO_BF16).agrees(
            1e-3
        )

    assert judged(0.99)
    assert not judged(0.989)


def test_disagreement_fails_after_everything_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = result({"segment": 1.0, "encode_text": 1.0, "ground": 1.0}, error=0.25)
    monkeypatch.setattr(segment, "measure_segment", lambda *_: wrong)
    json_file = tmp_path / "segment.json"
    assert main(["segment", str(TINY), "--json", str(json_file)]) == ExitCode.CHECK_FAILED
    shown = capsys.readouterr()
    assert "outputs of encode_text, ground differ between variants by more than they may" in shown.err
    assert "2.5e-01" in shown.out
    assert json.loads(json_file.read_text())["programs"][2]["variants"][0]["errors"] == {"masks": 0.25}


def test_an_artifact_of_another_recipe_is_refused(
    artifacts: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(f"extends: {TINY}\nname: other\n")
    code = main(["segment", str(recipe), "--artifact", str(artifacts()), "--repeats", "1", "--threads", "1"])
    assert code == ExitCode.ERROR
    message = capsys.readouterr().err
    assert "is of recipe 'efficientsam3_tiny'" in message
    assert "expected 'other', digest" in message
    assert "Compile the recipe again" in message


def test_an_artifact_without_the_program_is_refused(
    artifacts: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Manifest.load(artifacts())
    kept = tuple(program for program in manifest.programs if program.name != "segment")
    dataclasses.replace(manifest, programs=kept).save(tmp_path / "manifest.json")
    assert run(tmp_path) == ExitCode.ERROR
    assert "has no program 'segment'; it has: " in capsys.readouterr().err


def test_help_lists_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    assert "segment  image, words and a box to detections" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "--threads", "0"])
    assert stopped.value.code == ExitCode.USAGE
    assert "0: expected 1 or more" in capsys.readouterr().err
