"""The full-size artifacts, compiled once a run (minutes)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "efficientsam3_m0_9.yaml"
FullSize = Callable[[int], Path]


@pytest.fixture(scope="session")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> FullSize:
    """`full_size(seed)`: the m0_9 artifact with weights of that seed."""
    folders: dict[int, Path] = {}

    def compiled(seed: int) -> Path:
        if seed not in folders:
            output = tmp_path_factory.mktemp("full") / f"seed{seed}"
            folders[seed] = compile_recipe(
                RECIPE, CompileOptions(output=output, overrides=(f"weights.seed={seed}",)), Console(quiet=True)
            )
        return folders[seed]

    return compiled
