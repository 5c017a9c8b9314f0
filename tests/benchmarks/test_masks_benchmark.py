"""The `masks` benchmark on a hand-made artifact: what it counts and prints; never how fast it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.drawn_masks import DrawnMasks
from samonnx.exit_codes import ExitCode
from samonnx.runtime.image_predictor import ImagePredictor
from tests.runtime.hand_made_sam_artifact import build
from tests.runtime.hand_made_segment_artifact import picture


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "sam"
    build(folder)
    return folder


def test_presets_are_measured_with_all_their_stages(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file = tmp_path / "masks.json"
    options = ("--size", "120x80", "--repeats", "1", "--threads", "1", "--crops", "--preset", "fast")
    assert main(["masks", str(artifact), *options, "--json", str(json_file)]) == ExitCode.OK
    result: dict[str, Any] = json.loads(json_file.read_text())
    assert (result["width"], result["height"], result["drawn"]) == (120, 80, True)
    plain, crops = result["presets"]
    assert (plain["crop_layers"], crops["crop_layers"]) == (0, 1)
    assert list(plain["seconds"]) == ["encode", "decode", "filters", "box NMS", "small regions"]
    assert set(crops["seconds"]) == {*plain["seconds"], "crop NMS"}
    assert crops["passed"]["candidates"] == 5 * plain["passed"]["candidates"] == 5 * 3 * 16**2
    assert plain["peak_bytes"] > plain["idle_bytes"] > 2**20
    said = capsys.readouterr().out
    assert "Automatic masks with hand_made_sam on 120 x 80 pixels; 1 threads, 1 repeats" in said
    assert "fast, 1 crop layer" in said


def test_a_size_that_is_none_is_refused(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["masks", str(artifact), "--size", "big"])
    assert "expected WIDTHxHEIGHT in pixels; found 'big'" in capsys.readouterr().err


def test_drawn_masks_have_the_networks_shapes_and_are_shared_by_points(artifact: Path) -> None:
    drawn, predictor = DrawnMasks(ImagePredictor(artifact)), ImagePredictor(artifact)
    frame, points = picture(60, 90), np.array([(10.0, 10.0), (10.5, 10.0), (80.0, 50.0)])
    found, network = (one.predict_points(one.encode_image(frame), points) for one in (drawn, predictor))
    assert found.low_res_logits.shape == network.low_res_logits.shape
    assert found.ious.dtype == network.ious.dtype
    np.testing.assert_array_equal(found.low_res_logits[0], found.low_res_logits[1])
    assert (found.low_res_logits[0] != found.low_res_logits[2]).any()
    assert drawn.seconds > 0
