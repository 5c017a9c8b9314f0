"""Verify the programs of the original SAM: emitted graphs pass, and one whose numbers were changed is reported by
output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.build_model import build_model
from samonnx.models.sam import Sam
from samonnx.programs.program import Port, Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.verify import Comparison, require
from samonnx.verify_recipe import own_verifier
from samonnx.verify_sam import KINDS, SamVerifier, runs
from tests.tiny_model import ROOT

RECIPE = ROOT / "recipes" / "sam_tiny.yaml"
Artifacts = Callable[..., Path]
OUTPUTS = {
    "encode_image": {"features"},
    "predict": {"low_res_masks", "ious", "single_mask", "single_iou"},
    "predict@points": {"low_res_masks", "ious", "single_mask", "single_iou"},
    "segment_prompt": {"features", "masks", "ious", "single_mask", "single_iou"},
}


@cache
def recipe() -> Recipe:
    return load_recipe(RECIPE)


@cache
def model() -> Sam:
    return cast(Sam, build_model(recipe()).module)


@cache
def programs() -> Mapping[str, Program]:
    return {program.name: program for program in recipe_programs(model(), recipe())}


@cache
def verifier() -> SamVerifier:
    return SamVerifier(recipe(), model())


def graph_of(artifacts: Artifacts, name: str, target: str = "onnx") -> ir.Model:
    folder = artifacts(recipe=RECIPE)
    return ir.load(folder / Manifest.load(folder).program(name).files[target])


def verified(graph: ir.Model, name: str, target: str = "onnx") -> Sequence[Comparison]:
    return verifier().verify({name: graph}, target, programs()[name.partition("@")[0]])


def failed(comparisons: Sequence[Comparison]) -> set[str]:
    return {one.what for one in comparisons if not one.ok}


@contextmanager
def moved(graph: ir.Model, weight: str) -> Iterator[None]:
    """With a weight of the model moved by 0.3, found by its numbers: folding has given it another name and shape."""
    wanted = model().state_dict()[weight].numpy().ravel()
    value, before = next(
        (value, value.const_value)
        for value in graph.graph.initializers.values()
        if value.const_value is not None
        and value.const_value.size == wanted.size
        and np.array_equal(value.const_value.numpy().ravel(), wanted)
    )
    value.const_value = ir.tensor(before.numpy() + np.float32(0.3), name=value.name)
    try:
        yield
    finally:
        value.const_value = before


@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_emitted_graph_gives_the_eager_numbers_output_by_output(
    artifacts: Artifacts, name: str, target: str
) -> None:
    figures = verified(graph_of(artifacts, name, target), name, target)
    require(figures)
    assert [one.what for one in figures] == [f"{name}: {output}" for output in dict.fromkeys(_listed(name))]
    assert all(one.tolerance == recipe().verify.atol and one.largest_error < 1e-5 for one in figures)


def _listed(name: str) -> list[str]:
    ports = [port.name for port in programs()[name.partition("@")[0]].outputs]
    listed = ["features", *ports] if name == "segment_prompt" else ports
    assert set(listed) == OUTPUTS[name]
    return listed


def test_the_manifest_has_these_figures(artifacts: Artifacts) -> None:
    manifest = Manifest.load(artifacts(recipe=RECIPE))
    assert {(one.program, one.target, one.what) for one in manifest.verification} == {
        (name, target, what) for name, outputs in OUTPUTS.items() for what in outputs for target in ("onnx", "ort-cpu")
    }


def test_kinds_cover_what_prompts_can_be_made_of() -> None:
    labels = {label for kind in KINDS.values() for _, _, label in kind.points}
    assert labels == {0, 1, 2, 3}
    assert {(bool(kind.points), kind.mask) for kind in KINDS.values()} == {
        (True, False),
        (True, True),
        (False, True),
        (False, False),
    }


# What is off is found


@pytest.mark.parametrize(
    ("weight", "off"),
    [
        ("prompt_encoder.point_embeddings.0.weight", OUTPUTS["predict"]),  # negative clicks alone have it
        ("prompt_encoder.point_embeddings.3.weight", OUTPUTS["predict"]),  # boxes alone
        ("prompt_encoder.mask_downscaling.6.bias", OUTPUTS["predict"]),  # masks alone
        ("mask_decoder.iou_prediction_head.layers.2.bias", {"ious", "single_iou"}),
        ("mask_decoder.output_hypernetworks_mlps.0.layers.2.bias", {"single_mask"}),
        ("mask_decoder.output_hypernetworks_mlps.2.layers.2.bias", {"low_res_masks"}),
    ],
)
def test_a_weight_that_one_kind_of_prompt_or_one_output_depends_on_is_missed_by_name(
    artifacts: Artifacts, weight: str, off: set[str]
) -> None:
    graph = graph_of(artifacts, "predict")
    with moved(graph, weight):
        assert failed(verified(graph, "predict")) == {f"predict: {name}" for name in off}


def test_features_that_are_off_are_told_from_masks_that_are_off(artifacts: Artifacts) -> None:
    """The eager decoder goes on from the graph's own features."""
    graph = graph_of(artifacts, "segment_prompt")
    with moved(graph, "image_encoder.neck.3.bias"):
        assert failed(verified(graph, "segment_prompt")) == {"segment_prompt: features"}


def test_places_that_do_not_count_must_not_count(artifacts: Artifacts) -> None:
    """A graph that takes an empty place for a positive click."""
    graph = graph_of(artifacts, "predict@points")
    labels = next(value for value in graph.graph.inputs if value.name == "point_labels")
    clicks = ir.node("Abs", [labels], name="clicks")
    for node, place in labels.uses():
        if node is not clicks:
            node.replace_input_with(place, clicks.outputs[0])
    graph.graph.insert_before(graph.graph[0], clicks)
    clicks.outputs[0].name, clicks.outputs[0].type, clicks.outputs[0].shape = "clicks", labels.type, labels.shape
    assert failed(verified(graph, "predict@points")) == {f"predict@points: {name}" for name in OUTPUTS["predict"]}


def test_a_graph_for_a_fixed_number_of_prompts_is_run_until_every_kind_has_had_its_turn() -> None:
    fixed = list(runs(Port("point_labels", "int32", (3, 4), ""), masks=True))
    assert {len(run) for run in fixed} == {3}
    assert {kind for run in fixed for kind in run} == set(KINDS)
    symbolic = list(runs(Port("point_labels", "int32", ("prompts", 4), ""), masks=True))
    assert [len(run) for run in symbolic] == [1, len(KINDS)]
    few = list(runs(Port("point_labels", "int32", ("prompts", 1), ""), masks=False))
    assert few[-1] == ("click", "nothing")


def test_the_model_is_verified_by_this_verifier() -> None:
    assert isinstance(own_verifier(model(), recipe()), SamVerifier)
