"""The full-size artifacts, compiled once a run (minutes)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "efficientsam3_m0_9.yaml"
FullSize = Callable[..., Path]


@pytest.fixture(scope="session")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> FullSize:
    """`full_size(seed, *programs)`: the m0_9 artifact with weights of that seed; all of its programs by default, for
    all targets. `recipe="NAME"` and `target="T"` choose others."""
    folders: dict[tuple[str, str, int, tuple[str, ...]], Path] = {}

    def compiled(seed: int, *programs: str, recipe: str = RECIPE.stem, target: str = "") -> Path:
        key = recipe, target, seed, programs
        if key not in folders:
            options = CompileOptions(
                output=tmp_path_factory.mktemp("full") / f"seed{seed}",
                overrides=(f"weights.seed={seed}",),
                programs=programs,
                targets=(target,) if target else (),
            )
            folders[key] = compile_recipe(RECIPE.with_name(f"{recipe}.yaml"), options, Console(quiet=True))
        return folders[key]

    return compiled
