"""A checkpoint under the released names: it loads whole, feeds every program, and a lost key is named with its
component before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from samonnx.build_model import BuiltModel, build_model
from samonnx.compile import CompileOptions, compile_recipe
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Session
from samonnx.seeded import seeded_tensor
from samonnx.trace import parameter_names
from samonnx.weights import WeightsError, load_weights
from tests.tiny_model import TINY, tiny_model, tiny_recipe

Tensors = Mapping[str, torch.Tensor]

PROGRAMS = ("encode_text", "encode_image", "ground", "segment", "track", "track@first", "step")
SEED = 9
"""Other numbers than the recipe's own."""

NECK = "detector.backbone.vision_backbone"
ONE_OF_EACH: Mapping[str, str] = {
    "image encoder: trunk": f"{NECK}.trunk.model.head.0.weight",
    "image encoder: detector's neck": f"{NECK}.convs.0.conv_1x1.bias",
    "image encoder: tracker's neck": f"{NECK}.sam2_convs.2.conv_3x3.weight",
    "text encoder": "detector.backbone.language_backbone.projector.weight",
    "geometry encoder": "detector.geometry_encoder.cls_embed.weight",
    "fusion encoder": "detector.transformer.encoder.layers.1.norm2.bias",
    "decoder": "detector.transformer.decoder.query_embed.weight",
    "segmentation head": "detector.segmentation_head.instance_seg_head.bias",
    "scoring": "detector.dot_prod_scoring.hs_proj.weight",
    "memory attention": "tracker.transformer.encoder.norm.weight",
    "memory encoder": "tracker.maskmem_backbone.out_proj.bias",
    "prompt encoder": "tracker.sam_prompt_encoder.no_mask_embed.weight",
    "mask decoder": "tracker.sam_mask_decoder.iou_token.weight",
    "embeddings and pointers": "tracker.maskmem_tpos_enc",
}


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """Every key of the model, as in a released file."""
    return {
        key: torch.from_numpy(seeded_tensor(key, tuple(value.shape), SEED)) if value.is_floating_point() else value
        for key, value in tiny_model().state_dict().items()
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tensors: Tensors) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    torch.save({"model": dict(tensors)}, path)
    return path


@pytest.fixture(scope="module")
def built(file: Path) -> BuiltModel:
    return build_model(tiny_recipe(), file)


def without(tensors: Tensors, key: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != key}


def owner(key: str) -> str:
    """The component of the longest prefix that fits."""
    fits = {
        prefix: name
        for name, prefixes in EfficientSAM3.components.items()
        for prefix in prefixes
        if key.startswith(prefix)
    }
    return fits[max(fits, key=len)]


# A whole file


def test_a_whole_file_loads_with_nothing_missing_and_nothing_left_over(built: BuiltModel, tensors: Tensors) -> None:
    report = built.weights
    assert (report.source, report.problems, report.not_used) == ("checkpoint", 0, 0)
    assert {component.name for component in report.components} == set(ONE_OF_EACH)
    assert not [component.name for component in report.components if component.missing or component.unused]
    assert sorted(key for component in report.components for key in component.matched) == sorted(tensors)


def test_every_weight_that_the_components_of_a_program_hold_comes_from_the_file(
    built: BuiltModel, tensors: Tensors
) -> None:
    model = cast(EfficientSAM3, built.module)
    names = parameter_names(model)
    read: set[str] = set()
    for program in recipe_programs(model, tiny_recipe()):
        own = {names[id(weight)]: weight for part in program.components for weight in part.module.parameters()}
        assert own, program.name
        for key, weight in own.items():
            assert torch.equal(weight, tensors[key]), f"{program.name}: {key}"
        read |= own.keys()
    assert read == {name for name, _ in model.named_parameters()}, "no part of the model is without a program"


def test_a_compiled_program_gives_the_numbers_of_the_files_weights(
    file: Path, built: BuiltModel, tmp_path: Path
) -> None:
    options = CompileOptions(checkpoint=file, output=tmp_path / "out", programs=("encode_text",), targets=("onnx",))
    folder = compile_recipe(TINY, options, Console(quiet=True))
    weights = Manifest.load(folder).weights
    assert (weights.source, weights.digest) == ("checkpoint", built.weights.digest)
    tokens = np.array([[49406, 320, 1929, 49407, 0, 0, 0, 0]])
    found = Session(folder, program="encode_text", threads=1).run({"token_ids": tokens})["text_features"]
    loaded, seeded = (
        model.detector.backbone.language_backbone(torch.from_numpy(tokens))[0].numpy()
        for model in (cast(EfficientSAM3, built.module), tiny_model())
    )
    assert np.abs(found.astype(np.float64) - loaded).max() < 1e-5
    assert np.abs(found.astype(np.float64) - seeded).max() > 0.1


# A lost key


def test_the_keys_tried_are_one_of_each_component() -> None:
    assert {key: owner(key) for key in ONE_OF_EACH.values()} == {key: name for name, key in ONE_OF_EACH.items()}
    assert set(ONE_OF_EACH) == set(EfficientSAM3.components)


@pytest.mark.parametrize("component", ONE_OF_EACH)
def test_a_lost_key_is_named_with_its_component(tensors: Tensors, component: str) -> None:
    assert refusal(without(tensors, ONE_OF_EACH[component])) == [
        "tiny.pt does not fit the model: 1 problems; nothing was loaded",
        f"  {component}",
        f"    missing     {ONE_OF_EACH[component]}",
        "  Use the checkpoint of the model that the recipe names, or change the recipe's model",
    ]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_whichever_key_is_lost_it_is_named_with_its_component(tensors: Tensors, data: st.DataObject) -> None:
    wanted = sorted(key for key, tensor in tensors.items() if tensor.is_floating_point())
    key = data.draw(st.sampled_from(wanted))
    assert refusal(without(tensors, key))[1:3] == [f"  {owner(key)}", f"    missing     {key}"]


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_whichever_key_is_misspelt_both_spellings_are_named(tensors: Tensors, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(key for key, tensor in tensors.items() if tensor.is_floating_point())))
    said = refusal({**without(tensors, key), f"{key}_": tensors[key]})
    assert said[1:4] == [f"  {owner(key)}", f"    missing     {key}", f"    unexpected  {key}_"]


def refusal(tensors: Tensors) -> list[str]:
    """What is said, line by line. The model keeps the weights it had."""
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, tensors, model.components, ignored_keys=model.ignored_keys, file="tiny.pt")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return str(caught.value).splitlines()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("component", ["text encoder", "memory attention"])
def test_no_program_is_compiled_from_a_file_with_a_lost_key_even_of_a_part_it_does_not_run(
    tensors: Tensors, tmp_path: Path, program: str, component: str
) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(dict(without(tensors, ONE_OF_EACH[component])), path)
    options = CompileOptions(checkpoint=path, output=tmp_path / "out", programs=(program,))
    with pytest.raises(WeightsError, match=rf"{component}\n    missing     {ONE_OF_EACH[component]}"):
        compile_recipe(TINY, options, Console(quiet=True))
    assert not (tmp_path / "out").exists()
