"""Any trunk goes with any text encoder and any context length: the recipe builds, and compiles to its own numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from samonnx.build_model import build_model
from samonnx.compile import CompileOptions, compile_recipe
from samonnx.eager_program import EagerRun
from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.text_encoders import TEXT_ENCODERS
from samonnx.models.trunks import TRUNKS
from samonnx.programs.segment import segment_program
from samonnx.recipe import PinValue, load_recipe
from samonnx.runtime.session import Session
from tests.laws.detection_scenario import EFFECT, Outputs, distance
from tests.laws.scenario import Array
from tests.tiny_model import ROOT, tiny_recipe

SIZE = 56
TEXT = "detector.backbone.language_backbone.encoder"
TRUNK = "detector.backbone.vision_backbone.trunk"

TINY_TRUNKS = tuple(name for name in TRUNKS if name.endswith("_tiny"))
TINY_ENCODERS = tuple(name for name in TEXT_ENCODERS if name.endswith("_tiny"))


@dataclass(frozen=True)
class Combination:
    backbone: str
    text_encoder: str
    context_length: int

    def pins(self) -> Mapping[str, PinValue]:
        """Those that the family's base leaves to its members."""
        of_sam3 = self.backbone.startswith("sam3")
        trunk = {"tile_positions": True, "blocks.*.attn.rotary": True} if of_sam3 else {"resize_to_grid": True}
        words = (
            {"causal_masking": True}
            if self.text_encoder.startswith("sam3")
            else {"causal_masking": False, "attend_padding": True}
        )
        return {f"{TRUNK}.{name}": value for name, value in trunk.items()} | {
            f"{TEXT}.{name}": value for name, value in words.items()
        }

    def recipe(self, folder: Path) -> Path:
        """A recipe file, as JSON, which YAML reads."""
        sizes = {"image_size": SIZE, "hidden_dim": 32, "memory_dim": 8, "ffn_dim": 32, "trunk_dim": 32, "queries": 3}
        layers = {"geometry_layers": 1, "encoder_layers": 1, "decoder_layers": 1}
        names = {"backbone": self.backbone, "text_encoder": self.text_encoder}
        lengths = {"context_length": self.context_length, "text_positions": 77}
        tree = {
            "name": "any",
            "extends": str(ROOT / "recipes/base/sam3_family.yaml"),
            "model": {"args": names | lengths | sizes | layers},
            "pins": self.pins(),
            "detection": {"boxes": 2, "points": 1},
        }
        path = folder / "any.yaml"
        path.write_text(json.dumps(tree))
        return path


COMBINATIONS = st.builds(Combination, st.sampled_from(TINY_TRUNKS), st.sampled_from(TINY_ENCODERS), st.integers(1, 77))


def feeds_of(shapes: Mapping[str, tuple[int, ...]], picture: int = 0, words: int = 0) -> dict[str, Array]:
    """A picture of noise, one of two texts, every place for examples empty."""
    feeds: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name == "image":
            feeds[name] = np.random.default_rng(picture).uniform(-1, 1, shape).astype(np.float32)
        elif name == "token_ids":
            feeds[name] = np.zeros(shape, np.int64)
            feeds[name][0, :4] = ((320, 1929, 518, 49407), (1237, 2368, 530, 49407))[words][: shape[1]]
        elif name.endswith("_labels"):
            feeds[name] = np.full(shape, -1, np.int32)
        else:
            feeds[name] = np.zeros(shape, np.float32)
    return feeds


def assert_alive(run: Callable[[dict[str, Array]], Outputs], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Everything is finite, boxes and masks are not constant, and image, words and a box move them."""
    plain = run(feeds_of(shapes))
    assert all(np.isfinite(array.astype(np.float64)).all() for array in plain.values())
    for name in ("boxes", "masks", "semantic_mask"):
        assert plain[name].std() > 1e-2 * np.abs(plain[name]).max(), f"{name} is nearly constant"
    boxed = feeds_of(shapes)
    boxed["prompt_boxes"][0, 1], boxed["prompt_box_labels"][0, 1] = (0.3, 0.4, 0.24, 0.18), 1
    changes = {"image": feeds_of(shapes, picture=1), "words": feeds_of(shapes, words=1), "box": boxed}
    for what, feeds in changes.items():
        moved = distance(run(feeds), plain)
        assert min(moved["masks"], moved["semantic_mask"]) > EFFECT, f"{what} is not heard: {moved}"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(combination=COMBINATIONS)
def test_any_combination_builds_and_its_module_is_alive(combination: Combination) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(combination.recipe(Path(folder)))
    model = cast(EfficientSAM3, build_model(recipe).module)
    program = segment_program(model, recipe.detection)
    shapes = {port.name: port.sides() for port in program.inputs}
    assert shapes["token_ids"] == (1, combination.context_length)

    def run(feeds: dict[str, Array]) -> Outputs:
        values = EagerRun().values(program, {name: torch.from_numpy(array) for name, array in feeds.items()})
        return {port.name: values[port.name].numpy() for port in program.outputs}

    assert_alive(run, shapes)


# With the simplest draw, which comes first, every trunk and every encoder is tried.
@settings(max_examples=1, deadline=None, derandomize=True)
@given(combination=COMBINATIONS)
@example(combination=Combination("tinyvit_tiny", "mobileclip_s1_tiny", 77))
@example(combination=Combination("efficientvit_tiny", "mobileclip2_l_tiny", 16))
@example(combination=Combination("sam3_vit_tiny", "sam3_text_tiny", 32))
def test_any_combination_compiles_to_its_modules_numbers(combination: Combination) -> None:
    """The compile itself compares with the module, output by output, and raises."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options = CompileOptions(output=folder / "out", programs=("segment",), targets=("onnx",))
        session = Session(
            compile_recipe(combination.recipe(folder), options, Console(quiet=True)), "segment", threads=1
        )
    compared = {one.what for one in session.manifest.verification if one.program == "segment"}
    assert compared >= {port.name for port in session.program.outputs}
    assert session.manifest.reading().context_length == combination.context_length
    assert_alive(session.run, {port.name: port.sides() for port in session.program.inputs})


# What no recipe may say


def refused(*overrides: str) -> str:
    with pytest.raises(SamonnxError) as caught:
        build_model(tiny_recipe(*overrides))
    return str(caught.value)


def test_an_unknown_trunk_or_text_encoder_is_answered_with_the_known_ones() -> None:
    assert refused("model.args.backbone=repvit_s") == (
        f"model.args.backbone: unknown backbone 'repvit_s'; known: {', '.join(TRUNKS)}"
    )
    assert refused("model.args.text_encoder=clip") == (
        f"model.args.text_encoder: unknown text encoder 'clip'; known: {', '.join(TEXT_ENCODERS)}"
    )


@pytest.mark.parametrize(("length", "positions"), [(78, 77), (0, 77), (17, 16)])
def test_a_context_that_the_position_table_does_not_hold_is_refused_with_both(length: int, positions: int) -> None:
    said = refused(f"model.args.context_length={length}", f"model.args.text_positions={positions}")
    assert said == (
        f"model.args.context_length: {length} found, 1…{positions} expected: the position table has {positions} rows "
        "(model.args.text_positions) and is not interpolated"
    )


@pytest.mark.parametrize(
    ("override", "pin"),
    [
        ("model.args.backbone=sam3_vit_tiny", f"{TRUNK}.tile_positions"),
        ("model.args.backbone=sam3_vit_tiny", f"{TRUNK}.resize_to_grid"),
        ("model.args.text_encoder=sam3_text_tiny", f"{TEXT}.attend_padding"),
    ],
)
def test_a_part_of_another_member_needs_its_own_pins_and_refuses_those_of_the_other(override: str, pin: str) -> None:
    assert pin in refused(override)
