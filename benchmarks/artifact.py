"""The compiled artifact of a recipe: the one that is there, or a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe
from samonnx.errors import SamonnxError
from samonnx.recipe import Recipe
from samonnx.runtime.manifest import MANIFEST_NAME, Manifest

__all__ = ["recipe_artifact"]


def recipe_artifact(
    path: Path,
    recipe: Recipe,
    folder: Path | None,
    checkpoint: Path | None,
    overrides: Sequence[str] = (),
    remark: str = "",
) -> tuple[Path, Manifest]:
    """The folder (`dist/<recipe name>` unless given) and its manifest; all of the recipe is compiled there if it has
    none.

    `recipe` is what `path` gives with `overrides`; `remark` says in an error what those are. Raises SamonnxError for
    an artifact of another recipe, and what compiling raises.
    """
    folder = folder or Path("dist") / recipe.name
    if not (folder / MANIFEST_NAME).exists():
        compiling = CompileOptions(checkpoint=checkpoint, output=folder, overrides=tuple(overrides))
        compile_recipe(path, compiling, Console(stderr=True, quiet=True))
    manifest = Manifest.load(folder)
    if manifest.recipe_digest != recipe.digest:
        raise SamonnxError(
            f"artifact {folder} is of recipe {manifest.recipe!r}, digest {manifest.recipe_digest[:12]}; expected "
            f"{recipe.name!r}{remark}, digest {recipe.digest[:12]}. Compile the recipe again, or give another "
            f"--artifact"
        )
    return folder, manifest
