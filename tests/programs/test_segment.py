"""The programs that detect: their ports, their wires, and what their components give together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.eager_program import EagerRun
from samonnx.errors import SamonnxError
from samonnx.programs.program import Program, example_tensors
from samonnx.programs.segment import encode_image_program, encode_text_program, ground_program, segment_program
from samonnx.seeded import seeded_frame
from tests.tiny_model import tiny_model, tiny_recipe

SIZE, GRID, WIDTH, LENGTH, QUERIES = 112, 8, 32, 8, 12

# At this size the base recipe's rescaling would drown the image.
LIVELY = "weights.rescale.detector.backbone.vision_backbone.trunk.model.head.1.running_var=1.0"
WITH_MASKS = (
    "model.args.mask_prompts=true",
    "pins.detector.geometry_encoder.mask_encoder.mask_downsampler.resize_to_16x_grid=true",
    "detection.masks=2",
)

Ports = dict[str, tuple[str, tuple[int, ...]]]


@lru_cache(maxsize=8)
def programs(*overrides: str) -> Mapping[str, Program]:
    model, places = tiny_model(LIVELY, *overrides), tiny_recipe(*overrides).detection
    made = (
        encode_text_program(model),
        encode_image_program(model),
        ground_program(model, places),
        segment_program(model, places),
    )
    return {program.name: program for program in made}


NAMES = ("encode_text", "encode_image", "ground", "segment")


def feeds_of(program: Program, words: tuple[int, ...] = (49406, 320, 1929, 49407)) -> dict[str, Tensor]:
    """Words, a frame, and no example; features, if they are asked for, are noise."""
    feeds = example_tensors(program.inputs)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in feeds.items():
        if name.endswith("_labels"):
            feeds[name] = torch.full_like(tensor, -1)
        elif name == "token_ids":
            feeds[name][0, : len(words)] = torch.tensor(words)
        elif name == "image":
            feeds[name] = (torch.from_numpy(seeded_frame(0, SIZE))[None] - 0.5) / 0.5
        elif name == "text_valid":
            feeds[name] = torch.arange(LENGTH)[None] < len(words)
        elif not name.startswith("prompt_"):
            feeds[name] = torch.randn(tensor.shape, generator=generator)
    return feeds


def with_examples(program: Program) -> dict[str, Tensor]:
    feeds = feeds_of(program)
    feeds["prompt_boxes"][0, :2] = torch.tensor([[0.3, 0.4, 0.24, 0.18], [0.7, 0.66, 0.13, 0.2]])
    feeds["prompt_box_labels"][0, :2] = torch.tensor([1, 0], dtype=torch.int32)
    feeds["prompt_points"][0, 1] = torch.tensor([0.6, 0.2])
    feeds["prompt_point_labels"][0, 1] = 1
    return feeds


def results(program: Program, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    values = EagerRun().values(program, feeds)
    return {port.name: values[port.name] for port in program.outputs}


def inputs_of(program: Program) -> Ports:
    return {port.name: (port.dtype, port.sides()) for port in program.inputs}


def outputs_of(program: Program) -> Ports:
    return {port.name: (port.dtype, port.sides()) for port in program.outputs}


# Ports

IMAGE: Ports = {"image": ("float32", (1, 3, SIZE, SIZE))}
TOKENS: Ports = {"token_ids": ("int64", (1, LENGTH))}
WORDS: Ports = {"text_features": ("float32", (1, LENGTH, WIDTH)), "text_valid": ("bool", (1, LENGTH))}
MAPS: Ports = {
    "high_res_0": ("float32", (1, WIDTH, 4 * GRID, 4 * GRID)),
    "high_res_1": ("float32", (1, WIDTH, 2 * GRID, 2 * GRID)),
    "features": ("float32", (1, WIDTH, GRID, GRID)),
}
EXAMPLES: Ports = {
    "prompt_boxes": ("float32", (1, 3, 4)),
    "prompt_box_labels": ("int32", (1, 3)),
    "prompt_points": ("float32", (1, 2, 2)),
    "prompt_point_labels": ("int32", (1, 2)),
}
RESULTS: Ports = {
    "boxes": ("float32", (1, QUERIES, 4)),
    "logits": ("float32", (1, QUERIES)),
    "presence": ("float32", (1,)),
    "scores": ("float32", (1, QUERIES)),
    "masks": ("float32", (1, QUERIES, 4 * GRID, 4 * GRID)),
    "semantic_mask": ("float32", (1, 1, 4 * GRID, 4 * GRID)),
}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("encode_text", TOKENS, WORDS),
        ("encode_image", IMAGE, MAPS),
        ("ground", MAPS | WORDS | EXAMPLES, RESULTS),
        ("segment", IMAGE | TOKENS | EXAMPLES, RESULTS),
    ],
)
def test_the_programs_ports_say_the_contract(name: str, inputs: Ports, outputs: Ports) -> None:
    program = programs("detection.boxes=3", "detection.points=2")[name]
    assert (inputs_of(program), outputs_of(program)) == (inputs, outputs)
    assert all(port.meaning for port in (*program.inputs, *program.outputs))


@pytest.mark.parametrize("name", ["ground", "segment"])
def test_places_for_masks_are_ports_where_the_model_has_an_encoder_for_them(name: str) -> None:
    added = inputs_of(programs(*WITH_MASKS)[name]).items() - inputs_of(programs()[name]).items()
    assert dict(added) == {
        "prompt_masks": ("float32", (1, 2, 4 * GRID, 4 * GRID)),
        "prompt_mask_labels": ("int32", (1, 2)),
    }


def test_places_for_masks_without_an_encoder_are_refused_with_what_to_do() -> None:
    places = tiny_recipe("detection.masks=1").detection
    for make in (ground_program, segment_program):
        with pytest.raises(SamonnxError) as caught:
            make(tiny_model(), places)
        assert str(caught.value) == (
            "detection.masks: 1 found, but the model has no encoder for masks (as in every released checkpoint); "
            "give 0, or build one that has: --set model.args.mask_prompts=true --set "
            "pins.detector.geometry_encoder.mask_encoder.mask_downsampler.resize_to_16x_grid=true"
        )


# Wires


@pytest.mark.parametrize("overrides", [(), WITH_MASKS], ids=["as released", "with masks"])
@pytest.mark.parametrize("name", NAMES)
def test_every_input_of_a_component_and_every_output_of_the_program_is_wired_once_from_what_is_there(
    name: str, overrides: tuple[str, ...]
) -> None:
    program = programs(*overrides)[name]
    wanted = {f"{part.name}.{port}" for part in program.components for port in part.inputs}
    wanted |= {port.name for port in program.outputs}
    assert sorted(wire.target for wire in program.wires) == sorted(wanted)
    there = {f"{part.name}.{port}" for part in program.components for port in part.outputs}
    sources = {wire.source for wire in program.wires}
    assert sources <= there | set(inputs_of(program))
    assert sources >= set(inputs_of(program)), "every input of the program is read"


@pytest.mark.parametrize("overrides", [(), WITH_MASKS], ids=["as released", "with masks"])
@pytest.mark.parametrize("name", NAMES)
def test_what_flows_through_a_wire_has_the_shape_and_dtype_of_the_example_it_is_traced_with(
    name: str, overrides: tuple[str, ...]
) -> None:
    program = programs(*overrides)[name]
    values = EagerRun().values(program, feeds_of(program))
    examples = {f"{part.name}.{port}": tensor for part in program.components for port, tensor in part.inputs.items()}
    promised = example_tensors(program.outputs)
    for wire in program.wires:
        expected = (examples | promised)[wire.target]
        assert (values[wire.source].shape, values[wire.source].dtype) == (expected.shape, expected.dtype), wire


def test_the_three_parts_are_made_of_the_components_of_segment() -> None:
    """So that each is traced once, and the graphs share their weights."""
    parts = {part.name for name in NAMES[:3] for part in programs()[name].components}
    assert parts == {part.name for part in programs()["segment"].components}


# What comes out


def test_encoding_words_and_image_and_grounding_them_is_segmenting() -> None:
    made = programs()
    feeds = with_examples(made["segment"])
    words, maps = (results(made[name], feeds) for name in ("encode_text", "encode_image"))
    found, expected = results(made["ground"], feeds | words | maps), results(made["segment"], feeds)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_boxes_are_corners_of_what_the_decoder_gives_as_centre_and_size() -> None:
    program = programs()["segment"]
    values = EagerRun().values(program, with_examples(program))
    decoder = tiny_model(LIVELY).detector.transformer.decoder
    with torch.inference_mode():
        names = ("fuse.memory", "encode_prompts.prompt", "encode_prompts.prompt_valid")
        x, y, width, height = decoder(*(values[name] for name in names)).boxes[0].unbind(-1)
    corners = values["boxes"][0]
    assert torch.allclose(corners.T[2:] - corners.T[:2], torch.stack((width, height)), atol=1e-6)
    assert torch.allclose((corners.T[2:] + corners.T[:2]) / 2, torch.stack((x, y)), atol=1e-6)


def test_a_score_is_the_probability_that_the_concept_is_there_times_that_of_the_query() -> None:
    program = programs()["segment"]
    found = results(program, with_examples(program))
    concept = 1 / (1 + torch.exp(-found["presence"]))
    assert torch.allclose(found["scores"], concept / (1 + torch.exp(-found["logits"])), atol=1e-7)


def test_words_come_before_what_was_pointed_at_in_the_prompt() -> None:
    program = programs()["segment"]
    values = EagerRun().values(program, with_examples(program))
    prompt, valid = values["encode_prompts.prompt"], values["encode_prompts.prompt_valid"]
    assert valid[0, :LENGTH].tolist() == [True] * 4 + [False] * 4
    assert torch.equal(prompt[:, :4], values["encode_text.text_features"][:, :4])
    assert not prompt[:, 4:LENGTH].any()
    points, boxes, cls = valid[0, LENGTH : LENGTH + 4], valid[0, LENGTH + 4 : LENGTH + 8], valid[0, LENGTH + 8 :]
    assert (points.tolist(), boxes.tolist()) == ([False, True, False, False], [True, True, False, False])
    assert cls.tolist() == [True]


def test_masks_of_all_layers_are_given_out_as_those_of_the_last() -> None:
    all_layers = programs("pins.detector.segmentation_head.mask_source=all_layers")["segment"]
    found, expected = (results(program, with_examples(program)) for program in (all_layers, programs()["segment"]))
    assert found["masks"].shape == expected["masks"].shape
    assert torch.allclose(found["masks"], expected["masks"], rtol=0, atol=1e-5)
    assert all(torch.equal(found[name], expected[name]) for name in found if name != "masks")


def test_joint_scores_are_the_sigmoid_of_the_logits() -> None:
    program = programs("pins.detector.joint_box_scores=true")["segment"]
    found, classes = results(program, with_examples(program)), results(programs()["segment"], with_examples(program))
    assert torch.equal(found["scores"], found["logits"].sigmoid())
    assert torch.allclose(found["scores"], classes["scores"], atol=1e-6)
    assert not torch.allclose(found["logits"], classes["logits"], atol=1e-2)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    value=st.floats(width=32, allow_nan=False, allow_infinity=False),
    label=st.sampled_from([0, 1]),
    place=st.integers(0, 1),
)
def test_an_empty_place_for_a_mask_is_inert_and_a_filled_one_is_heard(value: float, label: int, place: int) -> None:
    program = programs(*WITH_MASKS)["ground"]
    nothing = results(program, feeds_of(program))
    feeds = feeds_of(program)
    feeds["prompt_masks"] = torch.full_like(feeds["prompt_masks"], value)
    assert all(torch.equal(tensor, nothing[name]) for name, tensor in results(program, feeds).items())
    feeds["prompt_masks"][0, place] = 0
    feeds["prompt_masks"][0, place, :8, 8:20] = 1
    feeds["prompt_mask_labels"][0, place] = label
    heard = results(program, feeds)
    assert all(torch.isfinite(tensor).all() for tensor in heard.values())
    assert all((heard[name] - nothing[name]).abs().max() > 1e-4 for name in nothing)


def test_a_program_gives_its_outputs_the_prefix_asked_for() -> None:
    plain, prefixed = programs()["segment"], segment_program(tiny_model(LIVELY), tiny_recipe().detection, "detection.")
    assert outputs_of(prefixed) == {f"detection.{name}": port for name, port in outputs_of(plain).items()}
    found, expected = (results(program, with_examples(program)) for program in (prefixed, plain))
    assert all(torch.equal(found[f"detection.{name}"], tensor) for name, tensor in expected.items())
