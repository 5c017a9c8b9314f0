"""SAM 2's video step without a session gives what the original gives with its session, frame after frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from samonnx.build_model import build_model
from samonnx.errors import SamonnxError
from samonnx.foreign.sam2_video import Sam2VideoStep
from samonnx.programs.call import call_feeds
from samonnx.recipe import load_recipe
from samonnx.verify import compare

transformers = pytest.importorskip("transformers")

RECIPE = Path(__file__).parents[2] / "recipes" / "transformers" / "sam2_video_tiny.yaml"
FRAMES = 9
"""Past the point where every slot of 3 memories and 4 pointers has been overwritten."""

CLICK = torch.tensor([[[[40.0, 51.0]]]])
LABEL = torch.ones(1, 1, 1, dtype=torch.int32)

Outputs = Mapping[str, Tensor]


def frames() -> list[Tensor]:
    call = load_recipe(RECIPE).calls["track"]
    return [call_feeds(call, draw)["image"] for draw in range(FRAMES)]


def step() -> Sam2VideoStep:
    module = build_model(load_recipe(RECIPE)).module
    assert isinstance(module, Sam2VideoStep)
    return module


@pytest.fixture(scope="module")
def steps() -> list[Outputs]:
    """One click on frame 0, then the bank alone."""
    call, module, outputs = load_recipe(RECIPE).calls["track"], step(), list[Outputs]()
    bank = {name.partition(".")[2]: t for name, t in call_feeds(call, 0, empty_bank=True).items() if "." in name}
    with torch.no_grad():
        for index, frame in enumerate(frames()):
            one = module(frame, CLICK, LABEL, torch.tensor([index == 0]), **bank)
            bank = {name: one[name] for name in bank}
            outputs.append(one)
    return outputs


def session_outputs() -> Iterator[tuple[Outputs, Mapping[str, Tensor]]]:
    """What the original gives for each frame of a stream, and what its session keeps of the frame."""
    attention = step()
    model = transformers.Sam2VideoModel(attention.model.config).eval()
    model.load_state_dict(attention.model.state_dict())
    session = transformers.Sam2VideoInferenceSession(video_height=128, video_width=128, dtype=torch.float32)
    place = session.obj_id_to_idx(1)
    session.add_point_inputs(place, 0, {"point_coords": CLICK, "point_labels": LABEL})
    session.obj_with_new_inputs = [1]
    for index, frame in enumerate(frames()):
        output = model(session, frame=frame)
        kept: dict[str, Any] = session.output_dict_per_obj[place]
        yield output, {**kept["cond_frame_outputs"], **kept["non_cond_frame_outputs"]}[index]


def require_equal(steps: list[Outputs], tolerance: float) -> None:
    for index, ((output, kept), one) in enumerate(zip(session_outputs(), steps, strict=True)):
        pairs = {
            "low_res_masks": (one["low_res_masks"], output["pred_masks"]),
            "object_score": (one["object_score"].flatten(), output["object_score_logits"].flatten()),
            "object_pointer": (one["object_pointer"].flatten(), kept["object_pointer"].flatten()),
            "memory": (
                one["conditioning_memory" if index == 0 else "recent_memory"].flatten(0, -3)[0],
                kept["maskmem_features"][:, 0].float(),
            ),
        }
        for name, (found, expected) in pairs.items():
            found, expected = found.reshape(expected.shape), expected
            figure = compare(f"frame {index}: {name}", found.numpy(), expected.numpy(), tolerance)
            assert figure.ok, figure


def test_a_session_that_keeps_float32_gives_the_same(steps: list[Outputs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "bfloat16", torch.float32)  # the original rounds its memories by this name
    require_equal(steps, 1e-5)


def test_what_the_rounding_to_bfloat16_makes_of_it_is_small(steps: list[Outputs]) -> None:
    require_equal(steps, 5e-3)


def test_the_object_is_there_and_the_frames_differ(steps: list[Outputs]) -> None:
    assert all(float(one["object_score"]) > 0 for one in steps)
    masks = [one["low_res_masks"] for one in steps]
    assert all(float((later - earlier).abs().max()) > 1e-2 for earlier, later in pairwise(masks))


def test_a_configuration_that_would_branch_on_the_prompt_is_refused() -> None:
    model = step().model
    model.config.multimask_output_for_tracking = False
    with pytest.raises(SamonnxError, match="expected such a configuration"):
        Sam2VideoStep(model)


def test_what_lies_in_an_empty_slot_changes_nothing(steps: list[Outputs]) -> None:
    module, call = step(), load_recipe(RECIPE).calls["track"]
    bank = {name: steps[0][name] for name in call.bank}
    other = {
        name: torch.where(bank[f"{name}_valid"].view(1, -1, *[1] * (bank[name].dim() - 2)), bank[name], 7.0)
        for name in ("recent_memory", "recent_pointer")
    }
    with torch.no_grad():
        one, two = (
            module(frames()[1], CLICK, LABEL, torch.tensor([False]), **{**bank, **change}) for change in ({}, other)
        )
    for name in ("low_res_masks", "object_score", "object_pointer"):
        assert compare(name, two[name].numpy(), one[name].numpy(), 1e-5).ok
