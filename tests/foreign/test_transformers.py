"""Models of the transformers package, scaled down: each compiles, gives its own numbers, and is alive."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from samonnx.build_model import build_model
from samonnx.compile import CompileOptions, compile_recipe
from samonnx.errors import SamonnxError
from samonnx.programs.call import call_feeds, call_programs
from samonnx.recipe import load_recipe
from samonnx.recipe_calls import CallSpec, InputSpec
from samonnx.runtime.session import Session
from samonnx.trace import TraceError

pytest.importorskip("transformers")

RECIPES = Path(__file__).parents[2] / "recipes" / "transformers"
CONSTANT = {"memory_position", "latent_positions"}
"""Outputs that no input reaches: tables of positions."""

COMPILED = {
    "clip_tiny": ("text_features", "image_features"),
    "detr_tiny": ("detect",),
    "edgetam_video_tiny": ("encode_memory", "compress_memory", "attend_memory"),
    "sam2_tiny": ("segment",),
    "sam2_video_parts_tiny": ("encode_memory", "attend_memory"),
    "sam2_video_tiny": ("track",),
    "sam3_tiny": ("segment",),
    "sam3_tracker_video_tiny": ("predict", "attend_memory"),
    "sam_tiny": ("segment",),
}


def test_every_small_recipe_is_compiled_here() -> None:
    assert {path.stem for path in RECIPES.glob("*_tiny.yaml")} == set(COMPILED)


@pytest.mark.parametrize("name", COMPILED)
def test_a_recipe_compiles_to_the_numbers_of_its_model(name: str, tmp_path: Path) -> None:
    options = CompileOptions(output=tmp_path / name, targets=("onnx",), programs=COMPILED[name])
    folder = compile_recipe(RECIPES / f"{name}.yaml", options, Console(quiet=True))
    measured = json.loads((folder / "verification.json").read_text())
    assert measured
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.verify.atol <= 1e-4
    for program in COMPILED[name]:
        _require_alive(folder, program, recipe.calls[program])


def _require_alive(folder: Path, program: str, call: CallSpec) -> None:
    """Every output differs from draw to draw: seeded weights do not leave a constant behind."""
    session = Session(folder, program, threads=1)
    assert session.manifest.preprocessing is None
    first, second = (
        session.run({name: tensor.numpy() for name, tensor in call_feeds(call, draw).items()}) for draw in (3, 4)
    )
    for name in set(call.outputs) - CONSTANT:
        assert np.isfinite(first[name]).all()
        one, other = first[name].astype(np.float64), second[name].astype(np.float64)
        assert np.abs(one - other).max() > 1e-3 * np.abs(one).max(), f"{program}: {name} does not depend on the inputs"


def said_of(recipe: str, call: str, ports: Mapping[str, InputSpec]) -> str:
    """What is said when arguments that decide the way are inputs; site-packages without its folder."""
    loaded = load_recipe(RECIPES / f"{recipe}.yaml")
    built = build_model(loaded)
    fixed = {name: value for name, value in loaded.calls[call].fixed.items() if name not in ports}
    inputs = {**loaded.calls[call].inputs, **ports}
    open_call = loaded.calls[call].model_copy(update={"inputs": inputs, "fixed": fixed})
    with pytest.raises(TraceError) as caught:
        call_programs(built.module, built.traced, {call: open_call})
    said = re.sub(r"\S*/site-packages/", "SITE/", str(caught.value))
    return re.sub(r"\.py:\d+", ".py:LINE", said)


def test_the_error_of_an_open_branch_of_sam_2() -> None:
    golden = """\
a value that comes from inputs would have to be known while the model is traced:
  1. SITE/transformers/models/sam2/modeling_sam2.py:LINE in Sam2MaskDecoder.forward
       if multimask_output:
     `multimask_output` is read as a Python value; it comes from: multimask_output
     what would settle it, in `calls.predict` or beside it:
       fixed: {multimask_output: …}   (a plain value or null, in place of the input `multimask_output`)
       replace: {mask_decoder: 'package.module:callable'}   (an equivalent module without it)"""
    assert said_of("sam2_tiny", "predict", {"multimask_output": InputSpec(shape=(), dtype="bool")}) == golden


def test_the_error_of_a_number_of_tokens_that_is_an_input() -> None:
    tokens = InputSpec(shape=(), dtype="int32", low=4, high=4)
    said = said_of("sam2_video_parts_tiny", "attend_memory", {"num_object_pointer_tokens": tokens})
    place = "SITE/transformers/models/sam2_video/modeling_sam2_video.py:LINE in "
    assert said.startswith("2 values that come from inputs would have to be known while the model is traced:\n  1. ")
    assert f"1. {place}apply_rotary_pos_emb_2d\n     called from {place}Sam2VideoRoPEAttention.forward\n" in said
    assert "`k[..., :k.shape[-2] - num_k_exclude_rope, :]` is read as a Python value" in said
    assert "fixed: {num_object_pointer_tokens: …}" in said
    assert "replace: {memory_attention.layers.0.cross_attn_image: " in said
    assert "(an equivalent module without it; likewise in 1 more)" in said


def test_a_pin_sets_an_attribute_of_a_foreign_module(tmp_path: Path) -> None:
    pin = "pins.mask_decoder.dynamic_multimask_via_stability=false"
    recipe = load_recipe(RECIPES / "sam2_tiny.yaml", [pin])
    built = build_model(recipe)
    assert not built.module.get_submodule("mask_decoder").dynamic_multimask_via_stability
    assert [(row.path, row.value) for row in built.pins.rows] == [
        ("mask_decoder.dynamic_multimask_via_stability", False)
    ]
    with pytest.raises(SamonnxError, match=r"mask_decoder\.dynamic_multimask: matches no branch point; close: mask_"):
        build_model(load_recipe(RECIPES / "sam2_tiny.yaml", ["pins.mask_decoder.dynamic_multimask=false"]))


def test_samonnx_programs_of_a_foreign_model_are_told_to_be_calls(tmp_path: Path) -> None:
    text = (RECIPES / "clip_tiny.yaml").read_text()
    recipe = tmp_path / "clip.yaml"
    recipe.write_text(text[: text.index("calls:")] + "programs: {track: {}}\n")
    with pytest.raises(SamonnxError, match=r"programs\.track: 'transformers:CLIPModel' gives a CLIPModel, which is no"):
        compile_recipe(recipe, CompileOptions(output=tmp_path / "out"), Console(quiet=True))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_read_back_and_points_editors_to_the_schema(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    assert load_recipe(tmp_path / "recipe.json") == recipe
    reference = path.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / reference).resolve() == RECIPES.parent / "schema" / "recipe.schema.json"
    assert recipe.name == f"transformers_{path.stem}"
