"""XMem's recipe and a checkpoint: widths that the recipe leaves out are those of the file, single-object training is
widened, and a recipe that says other widths than the file is refused with the weights that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.models.xmem import XMem, XMemWidths, args_of_shapes, build
from samonnx.recipe import Recipe, load_recipe
from tests.models.xmem_tiny import tiny

RECIPES = Path(__file__).parents[1] / "recipes"


def saved(folder: Path, single_object: bool = False) -> Path:
    """The tiny network's weights as a checkpoint."""
    state = dict(tiny(torch.float32).state_dict())
    if single_object:
        state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :4]
    torch.save(state, folder / "xmem.pth")
    return folder / "xmem.pth"


def full_recipe(*overrides: str) -> Recipe:
    return load_recipe(RECIPES / "xmem.yaml", overrides)


def test_widths_that_the_recipe_leaves_out_are_the_files(tmp_path: Path) -> None:
    built = build_model(full_recipe(), saved(tmp_path))
    assert isinstance(built.module, XMem)
    assert built.module.widths == tiny().widths
    for name, tensor in tiny(torch.float32).state_dict().items():
        assert torch.equal(built.module.state_dict()[name], tensor), name


def test_arguments_of_the_factory_are_read_off_shapes() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny().state_dict().items()}
    assert build(**args_of_shapes(shapes)).widths == tiny().widths  # type: ignore[arg-type]  # by name


def test_a_checkpoint_of_single_object_training_is_widened(tmp_path: Path) -> None:
    built = build_model(full_recipe(), saved(tmp_path, single_object=True))
    weight = built.module.state_dict()["value_encoder.conv1.weight"]
    assert torch.equal(weight[:, :4], tiny(torch.float32).state_dict()["value_encoder.conv1.weight"][:, :4])
    assert not weight[:, 4:].any()


def test_a_recipe_that_says_other_widths_than_the_file_is_refused_with_what_does_not_fit(tmp_path: Path) -> None:
    recipe = full_recipe("model.args={key_dim: 5}")
    with pytest.raises(
        SamonnxError, match=r"key_proj\.key_proj\.weight: shape \[4, 32, 3, 3\], expected \[5, 32, 3, 3\]"
    ):
        build_model(recipe, saved(tmp_path))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"trunk.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(SamonnxError, match="so this is no XMem checkpoint"):
        build_model(full_recipe(), tmp_path / "other.pth")


def test_without_a_file_the_widths_are_the_released_networks() -> None:
    with torch.device("meta"):
        assert build().widths == XMemWidths()
