"""The `encode` benchmark in its short form, on the tiny recipe: every variant gives the maps that tracking reads; never
how fast they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.tracker_maps import MAPS, compile_program, tracker_maps_program
from benchmarks.whole_program import EagerProgram
from samonnx.build_model import build_model
from samonnx.exit_codes import ExitCode
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import encode_image
from samonnx.recipe import load_recipe
from samonnx.verify_clip import normalised_frame
from tests.benchmarks.expected_variants import (
    WITHOUT_COMPILATION,
    measured_bf16_names,
    onnx_runtime_names,
    openvino_names,
    patterns,
)
from tests.compiled_artifact import TINY

RECIPE = load_recipe(TINY)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    json_file = tmp_path_factory.mktemp("benchmark") / "encode.json"
    short = ("--repeats", "1", "--threads", "1", "--json", str(json_file))
    assert main(["encode", str(TINY), *short, *patterns(*WITHOUT_COMPILATION)]) == ExitCode.OK
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result


def test_every_variant_is_measured_onnxslim_among_them(found: dict[str, Any]) -> None:
    targets = RECIPE.targets
    expected = ["eager", "eager, 2 necks", "straightforward", "onnxslim", *onnx_runtime_names(targets)]
    expected += openvino_names(targets) + measured_bf16_names(targets)
    assert [row["name"] for row in found["variants"]] == expected


def test_all_maps_of_all_variants_agree_with_eager(found: dict[str, Any]) -> None:
    for row in found["variants"][1:]:
        assert tuple(row["errors"]) == MAPS
        assert max(row["errors"].values()) < (1.0 if "bf16" in row["engine"] else 1e-4), row["name"]
        assert row["masks_equal"] == {}


def test_the_original_computes_more_than_is_read(found: dict[str, Any]) -> None:
    flops = {row["name"]: row["flops"] for row in found["variants"]}
    assert flops["eager, 2 necks"] > flops["eager"] == flops["straightforward"] >= flops["ort-cpu"] > 0


def test_the_program_gives_what_the_reference_tracker_is_given(tmp_path: Path) -> None:
    model = cast(EfficientSAM3, build_model(RECIPE).module)
    image = normalised_frame(0, model.tracker.sizes.image_size)
    program = tracker_maps_program(model)
    maps = EagerProgram(program, {"image": image})()
    with torch.inference_mode():
        expected = encode_image(model, torch.from_numpy(image))
    for port in program.outputs:
        assert np.array_equal(maps[port.name], getattr(expected, port.name).numpy())
        assert maps[port.name].shape == port.shape
    files = compile_program(program, model, ("onnx",), tmp_path)
    assert files == {"onnx": tmp_path / "encode.onnx.onnx"}


def test_there_is_no_artifact_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["encode", "--artifact", "somewhere"])
    assert stopped.value.code == ExitCode.USAGE
    assert "unrecognized arguments: --artifact" in capsys.readouterr().err
