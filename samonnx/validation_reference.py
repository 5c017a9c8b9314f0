"""From an artifact back to the eager model that it was compiled from: its recipe, its weights, both checked."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from samonnx.build_model import build_model
from samonnx.emit import RECIPE_NAME
from samonnx.models.tracker import TrackedModel
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.validation import ValidateError

__all__ = ["eager_model", "recipe_of"]


def recipe_of(folder: Path, manifest: Manifest, given: Path | None) -> Recipe:
    """The artifact's own recipe, or that of the file `given`. Raises RecipeError; ValidateError if there is none, or it
    is not the one that the artifact was compiled from."""
    path = given or folder / RECIPE_NAME
    if given is None and not path.is_file():
        raise ValidateError(
            f"{folder} has no {RECIPE_NAME}, which newer compiles write; give its recipe by --recipe FILE, or compile "
            f"{manifest.recipe!r} again"
        )
    recipe = load_recipe(path)
    if recipe.digest != manifest.recipe_digest:
        other = "the same name with other values" if recipe.name == manifest.recipe else f"recipe {recipe.name!r}"
        raise ValidateError(
            f"{path} is not the recipe that {folder} was compiled from: it is {other} (digest {recipe.digest[:12]}, "
            f"the manifest has {manifest.recipe_digest[:12]}). "
            + (
                f"A compile with --set is described by the artifact's own {RECIPE_NAME} alone"
                if given is not None
                else "Files of two compiles are mixed, or another version of samonnx made them: compile it again"
            )
        )
    return recipe


def eager_model(recipe: Recipe, manifest: Manifest, checkpoint: Path | None) -> TrackedModel:
    """The model in PyTorch with the artifact's weights. Raises what `build_model` raises; ValidateError for a missing
    checkpoint and for weights that are not those of the artifact."""
    source = manifest.weights.source
    if source == "checkpoint" and checkpoint is None:
        named = recipe.weights.checkpoint
        files = [] if named is None else [named] if isinstance(named, str) else list(named.values())
        absent = [file for file in files if not Path(file).exists()]
        if absent or not files:
            where = f" (the recipe's {absent[0]} is not there)" if absent else ""
            raise ValidateError(
                f"the artifact's weights come from a checkpoint{where}: give the file that it was compiled from by "
                f"--checkpoint PATH"
            )
    built = build_model(recipe, checkpoint)
    if built.weights.digest != manifest.weights.digest:
        raise ValidateError(
            f"the reference's weights are not those of the artifact: {built.weights.source} has sha256 "
            f"{built.weights.digest[:12]}, the manifest has {manifest.weights.digest[:12]} ({source}). "
            + ("Leave --checkpoint out" if source != "checkpoint" else "Give the checkpoint that it was compiled from")
        )
    return cast(TrackedModel, built.module)
