"""Verify a program that is one call: emitted graphs pass, and one whose numbers were changed is reported by output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.errors import VerificationError
from samonnx.graph_session import Array
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.runtime.manifest import Manifest
from samonnx.verify import Comparison, require
from samonnx.verify_clip import ENCODER_TOLERANCE
from samonnx.verify_program import ProgramVerifier
from tests.laws.detection_scenario import BASE
from tests.tiny_model import tiny_model, tiny_recipe

Artifacts = Callable[..., Path]
Change = Callable[[Array], Array]

CALLS = ("encode_text", "encode_image", "ground", "segment", "step")
TOLERANCE = 1e-4

NECK = "detector.backbone.vision_backbone"
TEXT = "detector.backbone.language_backbone"


@lru_cache(maxsize=1)
def programs() -> Mapping[str, Program]:
    return {program.name: program for program in recipe_programs(tiny_model(*BASE), tiny_recipe(*BASE))}


def verifier() -> ProgramVerifier:
    return ProgramVerifier(tiny_model(*BASE), TOLERANCE)


def graph_of(artifacts: Artifacts, program: str, target: str = "onnx") -> ir.Model:
    folder = artifacts(*BASE)
    return ir.load(folder / Manifest.load(folder).program(program).files[target])


@contextmanager
def changed(graph: ir.Model, weight: str, change: Change) -> Iterator[None]:
    value = graph.graph.initializers[weight]
    before = value.const_value
    assert before is not None
    value.const_value = ir.tensor(change(before.numpy().copy()), name=weight)
    try:
        yield
    finally:
        value.const_value = before


def failed(comparisons: tuple[Comparison, ...]) -> set[str]:
    return {one.what for one in comparisons if not one.ok}


@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
@pytest.mark.parametrize("program", CALLS)
def test_an_emitted_graph_gives_the_eager_numbers_output_by_output(
    artifacts: Artifacts, program: str, target: str
) -> None:
    figures = verifier().verify(graph_of(artifacts, program, target), programs()[program])
    require(figures)
    outputs = {port.name for port in programs()[program].outputs}
    trunk = set() if program in ("encode_text", "ground") else {"trunk map"}
    assert {one.what for one in figures} == outputs | trunk
    for one in figures:
        whole = one.what.endswith(("_frame", "_conditioning", "_valid", "mask_choice"))
        expected = 0.0 if whole else ENCODER_TOLERANCE if one.what == "trunk map" else TOLERANCE
        assert one.tolerance == expected, one.what


DETECTIONS = {"boxes", "logits", "presence", "scores", "masks", "semantic_mask"}


def row(index: int) -> Change:
    def change(weight: Array) -> Array:
        weight[index] += np.float32(0.5)
        return weight

    return change


@pytest.mark.parametrize(
    ("program", "weight", "change", "wrong"),
    [
        ("encode_text", f"{TEXT}.projector.bias", row(3), {"text_features"}),
        ("encode_image", f"{NECK}.trunk.model.head.3.weight", np.negative, {"trunk map"}),
        ("encode_image", f"{NECK}.convs.2.conv_3x3.bias", row(3), {"features"}),
        ("ground", "detector.geometry_encoder.label_embed.weight", row(0), DETECTIONS),
        ("ground", "detector.geometry_encoder.label_embed.weight", row(1), DETECTIONS),
        ("segment", "detector.segmentation_head.semantic_seg_head.weight", np.negative, {"semantic_mask"}),
        ("segment", "detector.dot_prod_scoring.hs_proj.bias", row(3), {"logits", "scores"}),
        ("step", "detector.dot_prod_scoring.hs_proj.bias", row(3), {"detection.logits", "detection.scores"}),
        ("step", "tracker.transformer.encoder.norm.bias", row(0), {"masks", "object_pointer", "next_bank.memory"}),
    ],
)
def test_a_changed_weight_is_reported_at_the_outputs_it_moves(
    artifacts: Artifacts, program: str, weight: str, change: Change, wrong: set[str]
) -> None:
    graph = graph_of(artifacts, program)
    with changed(graph, weight, change):
        figures = verifier().verify(graph, programs()[program])
    found = failed(figures)
    assert wrong <= found
    untouched = {port.name for port in programs()[program].outputs} - found
    assert untouched or wrong in (DETECTIONS, {"trunk map"}), "what does not depend on the weight is fine"
    with pytest.raises(VerificationError, match=f"  - {sorted(wrong)[0]}: error "):
        require(figures)


# A constant added to the bias of every place alike, which a softmax takes out again.
WITHOUT_EFFECT = ("boxRPB_embed_x.layers.1.bias", "boxRPB_embed_y.layers.1.bias")


@settings(max_examples=12, deadline=None, derandomize=True)
@given(program=st.sampled_from(["encode_text", "ground"]), data=st.data())
def test_no_weight_is_without_effect_on_the_inputs_that_are_tried(
    artifacts: Artifacts, program: str, data: st.DataObject
) -> None:
    graph = graph_of(artifacts, program)
    weights = tiny_model(*BASE).state_dict().keys() & graph.graph.initializers.keys()
    name = data.draw(st.sampled_from(sorted(name for name in weights if not name.endswith(WITHOUT_EFFECT))))
    with changed(graph, name, lambda weight: weight * np.float32(1.1) + np.float32(0.01)):
        assert failed(verifier().verify(graph, programs()[program]))


def test_what_lies_behind_the_trunk_is_compared_on_the_graphs_own_trunk_map(artifacts: Artifacts) -> None:
    """Rounding inside the trunk may move its map further than the outputs' tolerance."""
    graph = graph_of(artifacts, "segment")
    exact = {one.what: one for one in verifier().verify(graph, programs()["segment"])}
    with changed(graph, f"{NECK}.trunk.model.head.3.bias", lambda bias: bias * np.float32(1.01)):
        moved = {one.what: one for one in verifier().verify(graph, programs()["segment"])}
    assert exact["trunk map"].largest_error < TOLERANCE < moved["trunk map"].largest_error < ENCODER_TOLERANCE
    require(moved.values())


def test_the_eager_side_of_equal_graphs_is_computed_once(artifacts: Artifacts) -> None:
    runs: list[str] = []
    detector = tiny_model(*BASE).detector
    parts = {
        "trunk": detector.backbone.vision_backbone.trunk.get_submodule("model"),
        "decoder": detector.transformer.decoder,
    }
    hooks = [part.register_forward_hook(lambda *_, name=name: runs.append(name)) for name, part in parts.items()]
    try:
        one = verifier()
        for target in ("onnx", "ort-cpu"):
            one.verify(graph_of(artifacts, "segment", target), programs()["segment"])
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(runs) == ["decoder", "trunk"]
