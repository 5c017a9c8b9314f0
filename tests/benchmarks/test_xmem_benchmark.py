"""The `xmem` benchmark in its short form, on the tiny recipe: what is measured and that all variants agree; never how
fast they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.xmem import full_bank, reference_of
from samonnx.build_model import build_model
from samonnx.exit_codes import ExitCode
from samonnx.models.xmem import XMem
from samonnx.programs.xmem import xmem_sizes
from samonnx.recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "xmem_tiny.yaml"


@pytest.fixture(scope="module")
def found(artifacts: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    files = ("--json", str(folder / "xmem.json"), "--plot", str(folder / "xmem.png"))
    short = ("--artifact", str(artifacts(recipe=RECIPE)), "--repeats", "1", "--threads", "1")
    assert main(["xmem", str(RECIPE), *short, *files]) == ExitCode.OK
    assert (folder / "xmem.png").stat().st_size > 10_000
    result: dict[str, Any] = json.loads((folder / "xmem.json").read_text())
    return result


def test_plain_and_memory_frames_are_measured_in_general_and_special_graphs(found: dict[str, Any]) -> None:
    pieces = {piece["name"]: [one["name"] for one in piece["variants"]] for piece in found["pieces"]}
    assert pieces == {
        f"{kind} frame": ["eager", *(f"{name}, {target}" for name in programs for target in ("onnx", "ort-cpu"))]
        for kind, programs in (("plain", ("track", "track@plain")), ("memory", ("track", "track@memory")))
    }


def test_every_variant_agrees_with_eager(found: dict[str, Any]) -> None:
    errors = [one["errors"]["probabilities"] for piece in found["pieces"] for one in piece["variants"][1:]]
    assert max(errors) < 1e-4


def test_the_reference_holds_as_much_as_the_bank_says() -> None:
    recipe = load_recipe(RECIPE)
    model = cast(XMem, build_model(recipe).module)
    sizes = xmem_sizes(model, recipe)
    bank = full_bank(sizes)
    cells = sizes.grid[0] * sizes.grid[1]
    for memory_frame in (False, True):
        reference = reference_of(model, sizes, bank, memory_frame)
        assert reference.working.size == (sizes.memory.working_frames - 1) * cells
        assert reference.long_term.size == sizes.memory.long_term
        with torch.inference_mode():
            frame = reference.step(torch.zeros(3, sizes.height, sizes.width))
        assert frame.is_memory_frame == memory_frame
        assert (frame.consolidation is not None) == memory_frame


def test_another_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xmem", str(RECIPE.with_name("sam_tiny.yaml")), "--repeats", "1"]) == ExitCode.ERROR
    assert "this benchmark is for XMem" in capsys.readouterr().err
