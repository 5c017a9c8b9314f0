"""The `sam` benchmark in its short form, on the tiny recipe: what is measured and that all variants agree; never how
fast they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.original_sam import original_attention
from samonnx.exit_codes import ExitCode
from samonnx.models.sam import build

RECIPE = Path(__file__).parents[2] / "recipes" / "sam_tiny.yaml"


@pytest.fixture(scope="module")
def found(artifacts: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    files = ("--json", str(folder / "sam.json"), "--plot", str(folder / "sam.png"))
    short = ("--repeats", "1", "--threads", "1", "--prompts", "1", "--prompts", "3")
    assert main(["sam", str(RECIPE), "--artifact", str(artifacts(recipe=RECIPE)), *short, *files]) == ExitCode.OK
    assert (folder / "sam.png").stat().st_size > 10_000
    result: dict[str, Any] = json.loads((folder / "sam.json").read_text())
    return result


def test_encoder_and_decoder_are_measured_with_few_and_many_prompts(found: dict[str, Any]) -> None:
    pieces = {piece["name"]: [one["name"] for one in piece["variants"]] for piece in found["pieces"]}
    decoding = ["eager", *(f"{name}, {target}" for name in ("predict", "predict@points") for target in TARGETS)]
    assert pieces == {
        "encode_image": ["eager, the original's attention", "eager", *TARGETS],
        "predict, 1 prompt": decoding,
        "predict, 3 prompts": decoding,
    }


TARGETS = ("onnx", "ort-cpu")


def test_every_variant_agrees_with_eager(found: dict[str, Any]) -> None:
    errors = [one["errors"] for piece in found["pieces"] for one in piece["variants"][1:]]
    assert all(errors)
    assert max(error for one in errors for error in one.values()) < 1e-5


def test_the_originals_attention_is_the_same_attention_and_is_put_back() -> None:
    model = build("tiny", image_size=128, hidden_dim=32, ffn_dim=64)
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.encode_image(image)
        with original_attention():
            found = model.encode_image(image)
        assert not torch.equal(found, expected), "it computes in another order"
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(model.encode_image(image), expected)


def test_another_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RECIPE.with_name("sam2_tiny.yaml")
    assert main(["sam", str(recipe), "--repeats", "1"]) == ExitCode.ERROR
    assert "this benchmark is for SAM" in capsys.readouterr().err
