"""Build: factory, pins and weights of a recipe, and what is said when one of them does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.pins import PinError
from samonnx.recipe import ModelSpec, Recipe, WeightsSpec
from samonnx.seeded import seeded_tensor
from samonnx.weights import SEEDED_NOTE, WeightsError
from tests.tiny_model import tiny_recipe

NECK = "detector.backbone.vision_backbone"
RESCALED = f"{NECK}.trunk.model.head.1.running_var"

TABLE = f"{NECK}.trunk.blocks.0.attn.freqs_cis"

Tensors = dict[str, torch.Tensor]


def with_factory(factory: str, **args: object) -> Recipe:
    return tiny_recipe().model_copy(update={"model": ModelSpec(factory=factory, args=args)})


@pytest.fixture(scope="module")
def released() -> Tensors:
    """A file as it is released, at the tiny size: every key of the model, a rotary table as SAM 3's files carry it, and
    a part that no component has."""
    state = {key: value.clone() for key, value in build_model(tiny_recipe()).module.state_dict().items()}
    table = {TABLE: torch.ones(4, dtype=torch.complex64)}
    others = {"optimizer.step": torch.ones(4)}
    return state | table | others


def saved(tmp_path: Path, tensors: Tensors) -> Path:
    path = tmp_path / "tiny.pt"
    torch.save(tensors, path)
    return path


def test_without_a_checkpoint_the_weights_are_seeded_and_it_is_said_loudly() -> None:
    built = build_model(tiny_recipe("weights.seed=3"))
    assert built.weights.source == "seeded(seed=3)"
    assert SEEDED_NOTE in built.weights.notes
    state = built.module.state_dict()
    key = "tracker.sam_mask_decoder.iou_token.weight"
    assert torch.equal(state[key], torch.from_numpy(seeded_tensor(key, (1, 32), 3)))
    plain = seeded_tensor(RESCALED, (32,), 3)
    assert torch.equal(state[RESCALED], torch.from_numpy(plain) * 2.0**30)


def test_the_model_is_in_eval_mode_needs_no_gradients_and_has_every_branch_pinned() -> None:
    built = build_model(tiny_recipe())
    assert isinstance(built.module, EfficientSAM3)
    assert not built.module.training
    assert not any(parameter.requires_grad for parameter in built.module.parameters())
    rows = {row.path: row.value for row in built.pins.rows}
    assert rows["tracker.multimask_max_points"] == 1
    assert rows["tracker.transformer.encoder.layers.3.pre_norm"] is True
    tracker = 8 + 3 + 4 * 4
    text_and_geometry, fusion_decoder_and_heads = 2 + 9 + 2 * 4, 2 * 4 + 3 + 2 + 3 + 1
    assert len(rows) == tracker + text_and_geometry + fusion_decoder_and_heads


def test_the_same_recipe_builds_the_same_weights() -> None:
    assert build_model(tiny_recipe()).weights.digest == build_model(tiny_recipe()).weights.digest
    assert build_model(tiny_recipe()).weights.digest != build_model(tiny_recipe("weights.seed=1")).weights.digest


def test_a_released_file_loads_with_nothing_missing_and_nothing_unexpected(tmp_path: Path, released: Tensors) -> None:
    built = build_model(tiny_recipe(), saved(tmp_path, released))
    report = built.weights
    assert (report.source, report.file, report.problems) == ("checkpoint", "tiny.pt", 0)
    state = built.module.state_dict()
    assert sum(len(component.matched) for component in report.components) == len(state)
    assert all(torch.equal(value, released[key]) for key, value in state.items())
    unused = [key for component in report.components for key in component.unused]
    assert unused == [TABLE]
    assert report.not_used == 1


def test_the_rescaling_of_seeded_weights_does_not_touch_a_checkpoint(tmp_path: Path, released: Tensors) -> None:
    tensors = released | {RESCALED: torch.full((32,), 2.0)}
    built = build_model(tiny_recipe(), saved(tmp_path, tensors))
    assert built.module.state_dict()[RESCALED].tolist() == [2.0] * 32


def test_the_recipes_own_checkpoint_is_taken_unless_another_is_given(tmp_path: Path, released: Tensors) -> None:
    own = saved(tmp_path, released)
    recipe = tiny_recipe(f"weights.checkpoint={own}")
    assert build_model(recipe).weights.file == "tiny.pt"
    other = tmp_path / "other.pt"
    own.rename(other)
    assert build_model(recipe, other).weights.file == "other.pt"


def test_a_checkpoint_that_does_not_fit_is_refused_with_every_key_under_its_component(
    tmp_path: Path, released: Tensors
) -> None:
    tensors = dict(released)
    del tensors["tracker.transformer.encoder.norm.weight"]
    del tensors[f"{NECK}.sam2_convs.0.conv_1x1.bias"]
    tensors["tracker.sam_mask_decoder.extra"] = torch.ones(1)
    tensors["tracker.no_mem_embed"] = torch.ones(1, 1, 256)
    tensors[f"{NECK}.trunk.model.head.0.weight"] = torch.full((32, 32, 1, 1), torch.nan)
    with pytest.raises(WeightsError) as caught:
        build_model(tiny_recipe(), saved(tmp_path, tensors))
    assert str(caught.value).splitlines()[:-1] == [
        "tiny.pt does not fit the model: 5 problems; nothing was loaded",
        "  image encoder: trunk",
        f"    non-finite  {NECK}.trunk.model.head.0.weight: 1024 of 1024 values are not finite, "
        "the first is nan at [0, 0, 0, 0]",
        "  image encoder: tracker's neck",
        f"    missing     {NECK}.sam2_convs.0.conv_1x1.bias",
        "  memory attention",
        "    missing     tracker.transformer.encoder.norm.weight",
        "  mask decoder",
        "    unexpected  tracker.sam_mask_decoder.extra",
        "  embeddings and pointers",
        "    mis-shaped  tracker.no_mem_embed: shape [1, 1, 256], expected [1, 1, 32]",
    ]


# Factories


def test_any_callable_that_returns_a_module_is_a_factory() -> None:
    recipe = with_factory("torch.nn:Linear", in_features=3, out_features=2)
    built = build_model(recipe.model_copy(update={"pins": {}, "weights": WeightsSpec()}))
    assert isinstance(built.module, nn.Linear)
    assert [component.name for component in built.weights.components] == ["model"]


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("samonnx.models.no_such_model:build", "No module named 'samonnx.models.no_such_model'"),
        ("samonnx.models.efficientsam3:construct", "has no attribute 'construct'"),
    ],
)
def test_a_factory_that_cannot_be_imported_is_named_with_the_reason(factory: str, reason: str) -> None:
    with pytest.raises(SamonnxError) as caught:
        build_model(with_factory(factory))
    said = str(caught.value)
    assert said.startswith(f"model.factory '{factory}' cannot be imported: ")
    assert reason in said
    assert said.endswith("; expected 'module:callable'")


def test_a_factory_that_returns_no_module_is_told_what_it_returned() -> None:
    with pytest.raises(SamonnxError) as caught:
        build_model(with_factory("collections:OrderedDict"))
    assert str(caught.value) == (
        "model.factory 'collections:OrderedDict' returned OrderedDict, expected a torch.nn.Module"
    )


def test_an_unknown_backbone_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SamonnxError) as caught:
        build_model(tiny_recipe("model.args.backbone=repvit_m1"))
    said = str(caught.value)
    assert said.startswith("model.args.backbone: unknown backbone 'repvit_m1'; known: ")
    assert "repvit_m0_9" in said


def test_an_image_size_that_does_not_fit_is_refused_with_the_step() -> None:
    with pytest.raises(SamonnxError, match="image_size 100: expected a multiple of 28"):
        build_model(tiny_recipe("model.args.image_size=100"))


def test_pins_that_do_not_fit_stop_the_build_before_any_weight_is_read(tmp_path: Path) -> None:
    recipe = tiny_recipe("pins.tracker.no_such_branch=true")
    with pytest.raises(PinError, match=r"tracker\.no_such_branch: matches no branch point"):
        build_model(recipe, tmp_path / "no such file.pt")
