"""A foreign model in its full width: CLIP ViT-B/32 of the transformers package compiles to its own numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe
from samonnx.runtime.manifest import Manifest

RECIPE = Path(__file__).parents[2] / "recipes" / "transformers" / "clip_vit_b_32.yaml"


@pytest.mark.full_size
def test_clip_in_its_full_width_gives_its_own_numbers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = compile_recipe(RECIPE, CompileOptions(output=tmp_path / "clip"), Console(quiet=True))
    manifest = Manifest.load(folder)
    assert {(one.program, one.what, one.tolerance) for one in manifest.verification} == {
        ("image_features", "features", 1e-4),
        ("text_features", "features", 1e-4),
    }
    assert manifest.weights.bytes > 500e6
