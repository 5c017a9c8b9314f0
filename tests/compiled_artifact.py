"""Compiles a variant of a tiny recipe once for all processes of a test run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe

TINY = Path(__file__).parents[1] / "recipes" / "efficientsam3_tiny.yaml"

PATIENCE = 600.0


def compiled_folder(
    shared: Path,
    overrides: Sequence[str],
    programs: Sequence[str] = (),
    recipe: Path = TINY,
    targets: Sequence[str] = (),
) -> Path:
    """The artifact folder of `recipe` with `overrides`, of `programs` and `targets` (all of them by default), compiled
    by whichever process comes first."""
    key = hashlib.sha256("\n".join((recipe.stem, *overrides, *programs, *targets)).encode()).hexdigest()[:12]
    folder, claim = shared / f"tiny-{key}", shared / f"tiny-{key}.claim"
    try:
        claim.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + PATIENCE
        while not (folder / "manifest.json").exists():
            if not claim.exists() or time.monotonic() > deadline:
                raise RuntimeError(f"the process that compiles {folder.name} gave up") from None
            time.sleep(0.2)
        return folder
    try:
        options = CompileOptions(
            output=folder, overrides=tuple(overrides), programs=tuple(programs), targets=tuple(targets)
        )
        compile_recipe(recipe, options, Console(quiet=True))
    except BaseException:
        claim.rmdir()
        raise
    return folder
