"""The emitted full-size graphs of SAM vit_b against the original project's tensors (`golden/sam1/NOTES.md`): features,
each kind of prompt, both modes, the way back to the picture; for one prompt and for all in one call."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from samonnx.models.sam import IMAGE_MEAN, IMAGE_STD
from samonnx.models.sam_geometry import network_image, original_masks
from samonnx.runtime.session import Session
from samonnx.seeded import seeded_frame
from tests.models.sam_reference_tensors import PROMPTS, largest, places_of, reference

from .conftest import FullSize

TOLERANCE = 1e-4
GARBAGE = 300.0
RECIPE = "sam_vit_b"


@cache
def network_frame() -> Tensor:
    return network_image(torch.from_numpy(seeded_frame(0, 1024)), IMAGE_MEAN, IMAGE_STD, 1024)


def inputs_of(prompts: tuple[str, ...]) -> dict[str, Tensor]:
    """The prompts, one row each, with garbage in places and masks that do not count."""
    places = [places_of(prompt, GARBAGE) for prompt in prompts]
    given = [f"{prompt}.in_mask" in reference() for prompt in prompts]
    masks = torch.full((len(prompts), 1, 256, 256), GARBAGE)
    for row, prompt in enumerate(prompts):
        if given[row]:
            masks[row, 0] = torch.from_numpy(reference()[f"{prompt}.in_mask"]).reshape(256, 256)
    return {
        "point_coords": torch.cat([coords for coords, _ in places]),
        "point_labels": torch.cat([labels for _, labels in places]),
        "mask_input": masks,
        "mask_input_valid": torch.tensor(given),
    }


def run(session: Session, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {port.name for port in session.program.inputs}
    found = session.run({name: tensor.numpy() for name, tensor in inputs.items() if name in names})
    return {name: torch.from_numpy(np.asarray(array)) for name, array in found.items()}


def errors_of(found: dict[str, Tensor], prompts: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """The figures of a `predict` for these prompts, by the names of the reference tensors."""
    outputs = {"multi": ("low_res_masks", "ious"), "single": ("single_mask", "single_iou")}
    for row, prompt in enumerate(prompts):
        for mode, (masks, ious) in outputs.items():
            logits, iou = found[masks][row : row + 1], found[ious][row : row + 1]
            yield f"{prompt}.{mode}.low_res_s4", largest(logits[..., ::4, ::4], f"{prompt}.{mode}.low_res_s4")
            crop = logits[..., 96:128, 64:96]
            yield f"{prompt}.{mode}.low_res_crop", largest(crop, f"{prompt}.{mode}.low_res_crop")
            yield f"{prompt}.{mode}.iou", largest(iou, f"{prompt}.{mode}.iou")
        if prompt == "click":
            name = "click.multi.masks_600x900_s8"
            pixels = original_masks(found["low_res_masks"][row : row + 1], (600, 900), 1024)
            yield name, largest(pixels[..., ::8, ::8], name)


@pytest.mark.full_size
@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
def test_the_graphs_give_the_originals_tensors_for_every_prompt_in_both_modes(full_size: FullSize, target: str) -> None:
    """Within 1e-4 of each reference tensor's largest magnitude."""
    folder = full_size(0, recipe=RECIPE)
    features = run(Session(folder, "encode_image", target=target), {"image": network_frame()})["features"]
    errors = {"image_embedding_s4": largest(features[..., ::4, ::4], "image_embedding_s4")}
    without_masks = tuple(prompt for prompt in PROMPTS if f"{prompt}.in_mask" not in reference())
    for program, prompts in (("predict", PROMPTS), ("predict@points", without_masks)):
        session = Session(folder, program, target=target)
        for batch in (prompts, *((prompt,) for prompt in prompts)):
            found = run(session, {"features": features, **inputs_of(batch)})
            errors |= {f"{program} x {len(batch)}: {name}": error for name, error in errors_of(found, batch)}
    worst = max(errors, key=lambda name: errors[name])
    logging.getLogger(__name__).info("%s: %s %.1e", target, worst, errors[worst])  # shown by --log-cli-level=INFO
    assert len(errors) == 1 + 2 * (6 * len(PROMPTS) + 1) + 2 * (6 * len(without_masks) + 1)
    beyond = {name: error for name, error in errors.items() if not error < TOLERANCE}
    assert not beyond, beyond


@pytest.mark.full_size
def test_segment_prompt_gives_the_same_masks_in_the_frame(full_size: FullSize) -> None:
    """Those of both programs, one after the other, enlarged by PyTorch."""
    folder = full_size(0, recipe=RECIPE)
    inputs = {"image": network_frame(), **inputs_of(PROMPTS)}
    found = run(Session(folder, "segment_prompt"), inputs)
    features = run(Session(folder, "encode_image"), {"image": network_frame()})["features"]
    low = run(Session(folder, "predict"), {"features": features, **inputs})
    for name, masks in (("masks", "low_res_masks"), ("single_mask", "single_mask")):
        expected = torch.nn.functional.interpolate(low[masks], (1024, 1024), mode="bilinear", align_corners=False)
        assert float((found[name] - expected).abs().max()) < TOLERANCE * float(expected.abs().max())
    for name in ("ious", "single_iou"):
        assert float((found[name] - low[name]).abs().max()) < TOLERANCE * float(low[name].abs().max())
