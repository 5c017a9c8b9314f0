"""SAM's emitted graphs, driven through the runtime: any number of prompts, each as if alone; what does not count, what
is empty, and inputs that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.build_model import build_model
from samonnx.models.sam import Sam
from samonnx.models.sam_geometry import network_masks
from samonnx.models.sam_mask_decoder import SamMasks
from samonnx.passes.statistics import graph_statistics
from samonnx.passes.symbol_binding import bind_symbols
from samonnx.recipe import load_recipe
from samonnx.runtime.session import InputError, Session
from samonnx.seeded import seeded_frame
from tests.tiny_model import ROOT

RECIPE = ROOT / "recipes" / "sam_tiny.yaml"
SIZE, LOW, PLACES = 128, 32, 4
TOLERANCE = 1e-5
Array = np.ndarray[Any, np.dtype[Any]]
Artifacts = Callable[..., Path]
Open = Callable[..., Session]


@pytest.fixture(scope="module")
def open_program(artifacts: Artifacts) -> Open:
    folder = artifacts(recipe=RECIPE)
    return cache(lambda program, target="ort-cpu": Session(folder, program, target=target, threads=1))


@cache
def model() -> Sam:
    return cast(Sam, build_model(load_recipe(RECIPE)).module)


@cache
def image() -> Array:
    return np.asarray(seeded_frame(0, SIZE)[None] * 4 - 2, dtype=np.float32)


@cache
def features() -> Array:
    with torch.inference_mode():
        return np.asarray(model().encode_image(torch.from_numpy(image())).numpy())


def prompts(rows: int, seed: int = 0) -> dict[str, Array]:
    """`rows` prompts of random kinds, padding and masks among them, by the names of the ports."""
    random = np.random.default_rng(seed)
    return {
        "point_coords": random.uniform(0, SIZE, (rows, PLACES, 2)).astype(np.float32),
        "point_labels": random.integers(-1, 4, (rows, PLACES)).astype(np.int32),
        "mask_input": random.normal(0, 8, (rows, 1, LOW, LOW)).astype(np.float32),
        "mask_input_valid": random.integers(0, 2, rows).astype(np.bool_),
    }


def eager(given_: Mapping[str, Array]) -> SamMasks:
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in given_.items()}
    with torch.inference_mode():
        return model().predict(torch.from_numpy(features()), **tensors)


def assert_gives(found: Mapping[str, Array], masks: SamMasks, frame: bool = False) -> None:
    logits = network_masks(masks.logits, SIZE) if frame else masks.logits
    parts = {
        "masks" if frame else "low_res_masks": logits[:, 1:],
        "ious": masks.ious[:, 1:],
        "single_mask": logits[:, :1],
        "single_iou": masks.ious[:, :1],
    }
    assert found.keys() == parts.keys()
    for name, expected in parts.items():
        assert found[name].shape == tuple(expected.shape)
        assert np.abs(found[name] - expected.numpy()).max() < TOLERANCE * float(expected.abs().max()), name


@given(rows=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_any_number_of_prompts_of_any_kinds_gives_the_eager_masks(open_program: Open, rows: int, seed: int) -> None:
    for target in ("onnx", "ort-cpu"):
        given_ = prompts(rows, seed)
        assert_gives(open_program("predict", target).run({**given_, "features": features()}), eager(given_))


def test_256_prompts_are_each_predicted_as_if_alone(open_program: Open) -> None:
    given_ = prompts(256)
    found: dict[str, Array] = {**open_program("predict").run({**given_, "features": features()})}
    assert_gives(found, eager(given_))
    for row in (0, 17, 255):
        alone = {name: array[row : row + 1] for name, array in given_.items()}
        one: dict[str, Array] = {**open_program("predict").run({**alone, "features": features()})}
        for name, array in one.items():
            np.testing.assert_allclose(found[name][row : row + 1], array, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 5])
def test_prompts_without_masks_are_those_of_predict(open_program: Open, rows: int) -> None:
    given_ = prompts(rows) | {"mask_input_valid": np.zeros(rows, np.bool_)}
    points = {name: given_[name] for name in ("point_coords", "point_labels")}
    assert_gives(open_program("predict@points").run({**points, "features": features()}), eager(given_))


@pytest.mark.parametrize("rows", [1, 3])
def test_segment_prompt_is_both_programs_in_one_and_gives_masks_in_the_frame(open_program: Open, rows: int) -> None:
    given_ = prompts(rows)
    assert_gives(open_program("segment_prompt").run({**given_, "image": image()}), eager(given_), frame=True)


def test_encode_image_gives_the_eager_features(open_program: Open) -> None:
    found: Array = open_program("encode_image").run({"image": image()})["features"]
    assert np.abs(found - features()).max() < TOLERANCE * np.abs(features()).max()


# What does not count


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_what_lies_in_empty_places_and_invalid_masks_changes_nothing(open_program: Open, garbage: float) -> None:
    given_ = prompts(6)
    other = {name: array.copy() for name, array in given_.items()}
    other["point_coords"][given_["point_labels"] < 0] = garbage
    other["mask_input"][~given_["mask_input_valid"]] = garbage
    for program in ("predict", "predict@points"):
        session = open_program(program)
        names = [port.name for port in session.program.inputs if port.name != "features"]
        one, two = (session.run({"features": features(), **{n: of[n] for n in names}}) for of in (given_, other))
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_prompt_of_nothing_is_the_originals_empty_prompt_and_finite(open_program: Open) -> None:
    """Zero clicks, no box, no mask: masks come out that mean nothing; other prompts of the batch do not notice."""
    given_ = prompts(3)
    given_["point_labels"][1], given_["mask_input_valid"][1] = -1, False
    found = open_program("predict").run({**given_, "features": features()})
    assert all(np.isfinite(array).all() for array in found.values())
    assert_gives(found, eager(given_))


# The work that is saved


def test_what_depends_on_the_image_alone_is_computed_once_for_all_prompts(open_program: Open) -> None:
    """`predict@points` grows by less than `predict` with every prompt: by at least what the first layer's three
    projections of the cells from 32 to 16 channels take."""

    def flops(program: str, rows: int) -> int:
        session = open_program(program, "onnx")
        graph = ir.load(session.folder / session.program.files["onnx"])
        bind_symbols(graph, {"prompts": rows})
        return graph_statistics(graph).flops

    each = {program: flops(program, 3) - flops(program, 2) for program in ("predict", "predict@points")}
    masks = {"predict": 2 * (16 * 16 * 4 * 4 + 64 * 16 * 4 * 4 + 64 * 16 * 32)}
    assert each["predict"] - masks["predict"] - each["predict@points"] >= 3 * 2 * 64 * 32 * 16


# Inputs that do not fit


def refused(session: Session, **changes: Array) -> str:
    with pytest.raises(InputError) as caught:
        session.run({**prompts(2), "features": features(), **changes})
    return str(caught.value)


def test_a_mask_of_another_size_is_refused_with_both_sizes(open_program: Open) -> None:
    mask = np.zeros((2, 1, SIZE, SIZE), np.float32)
    assert refused(open_program("predict"), mask_input=mask) == (
        "program 'predict': mask_input: expected float32 [prompts, 1, 32, 32] (prompts is 2, as in the inputs before "
        "it), got float32 [2, 1, 128, 128]"
    )


def test_another_number_of_places_is_refused_with_both_numbers(open_program: Open) -> None:
    coords, labels = np.zeros((2, 5, 2), np.float32), np.zeros((2, 5), np.int32)
    said = refused(open_program("predict"), point_coords=coords, point_labels=labels)
    assert "point_coords: expected float32 [prompts, 4, 2], got float32 [2, 5, 2]" in said
    assert "point_labels: expected int32 [prompts, 4], got int32 [2, 5]" in said


def test_inputs_for_different_numbers_of_prompts_are_refused(open_program: Open) -> None:
    said = refused(open_program("predict"), point_labels=np.zeros((3, 4), np.int32))
    assert (
        "point_labels: expected int32 [prompts, 4] (prompts is 2, as in the inputs before it), got int32 [3, 4]" in said
    )


def test_no_prompt_at_all_is_refused(open_program: Open) -> None:
    none = {name: array[:0] for name, array in prompts(1).items()}
    assert "point_coords: expected float32 [prompts, 4, 2], got float32 [0, 4, 2]" in refused(
        open_program("predict"), **none
    )


def test_a_mask_for_the_program_without_masks_is_refused(open_program: Open) -> None:
    assert "mask_input: the program has no such input" in refused(open_program("predict@points"))
