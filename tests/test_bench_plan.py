from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from samonnx.bench_arguments import parse_arguments
from samonnx.bench_plan import Case, make_plan, provider_names
from samonnx.bench_result import BenchError
from samonnx.runtime.manifest import Manifest, ManifestError, TargetInfo
from tests.runtime import hand_made_segment_artifact
from tests.runtime.hand_made_artifact import build

REPORTED = ["CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
PRESENT = provider_names(REPORTED)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return build(tmp_path_factory.mktemp("artifact") / "tracks")


def plan(manifest: Manifest, options: str = "") -> tuple[Case, ...]:
    return make_plan(manifest, parse_arguments(["x", *options.split()]), PRESENT)


def test_providers_that_run_elsewhere_are_not_offered() -> None:
    assert PRESENT == {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


def test_a_target_made_for_one_provider_runs_on_that_alone(manifest: Manifest) -> None:
    assert plan(manifest, "--objects 1,3") == (
        Case("track", "onnx", "cuda"),
        Case("track", "onnx", "cpu"),
        Case("track", "ort-cpu", "cpu"),
        Case("track@first", "onnx", "cuda"),
        Case("track@first", "onnx", "cpu"),
        Case("track@first", "ort-cpu", "cpu"),
        Case("track", "onnx", "cuda", (1, 3)),
        Case("track", "onnx", "cpu", (1, 3)),
        Case("track", "ort-cpu", "cpu", (1, 3)),
    )


def test_the_tracker_is_measured_with_1_2_and_4_objects_where_track_is(manifest: Manifest) -> None:
    (_, tracker) = plan(manifest, "--program track --target ort-cpu")
    assert tracker.objects == (1, 2, 4)
    assert tracker.name == "Tracker"
    assert [case.name for case in plan(manifest, "--program track@first --target ort-cpu")] == ["track@first"]
    assert [case.name for case in plan(manifest, "--program track --provider cpu --objects none")] == ["track"] * 2


def test_a_target_of_another_engine_is_left_out(manifest: Manifest) -> None:
    programs = tuple(replace(p, files={**p.files, "openvino": f"{p.name}.ov.onnx"}) for p in manifest.programs)
    known = replace(manifest, programs=programs, targets={"openvino": TargetInfo("openvino")})
    assert {case.target for case in plan(known)} == {"onnx", "ort-cpu"}
    with pytest.raises(BenchError, match="'openvino' is made for the engine openvino, and this command times ONNX Run"):
        plan(known, "--target openvino")
    alone = replace(known, programs=tuple(replace(p, files={"openvino": "x.onnx"}) for p in programs))
    with pytest.raises(BenchError, match=r"no target of this artifact is made for ONNX Runtime, .* it has: openvino"):
        plan(alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--provider tpu", "ONNX Runtime has no execution provider 'tpu'; present: cuda, cpu"),
        ("--target web", "track, track@first were not compiled for target 'web'; there is: onnx, ort-cpu. Compile the"),
        ("--target ort-cpu --provider cuda", "nothing to time: none of the targets ort-cpu runs on cuda"),
        ("--program track@first --objects 2", "--objects is about the program 'track', which is not among those to ti"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(manifest: Manifest, options: str, message: str) -> None:
    with pytest.raises(BenchError) as caught:
        plan(manifest, options)
    assert message in str(caught.value)


def test_an_unknown_program_is_refused_with_those_there_are(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="has no program 'step'; it has: track, track@first"):
        plan(manifest, "--program step")


def test_an_artifact_without_programs_is_refused(manifest: Manifest) -> None:
    with pytest.raises(BenchError, match="has no programs"):
        plan(replace(manifest, programs=()))


def test_an_artifact_that_only_detects_has_no_tracker(tmp_path: Path) -> None:
    detects = hand_made_segment_artifact.build(tmp_path / "detects")
    assert [case.name for case in plan(detects, "--provider cpu")] == [program.name for program in detects.programs]
    with pytest.raises(BenchError, match="not among those to time: segment, encode_text"):
        plan(detects, "--objects 1")
