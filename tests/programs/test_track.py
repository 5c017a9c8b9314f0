"""The `track` program: its ports, its wires, and all components together against the eager reference."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ReferenceTracker, encode_image
from samonnx.programs.track_bank import BANK
from samonnx.seeded import seeded_frame
from tests.programs.eager_program import idle_feeds, program_of, run_program
from tests.tiny_model import tiny_model, tiny_recipe

SIZE = 112


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def image(index: int) -> Tensor:
    return (torch.from_numpy(seeded_frame(index, SIZE))[None] - 0.5) / 0.5


def relative(found: Tensor, expected: Tensor, at_least: float) -> float:
    """Largest difference over the largest magnitude of `expected`, or over `at_least` if that is more."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=at_least))


def give(feeds: dict[str, Tensor], prompt_: FramePrompt) -> None:
    count = len(prompt_.labels)
    feeds["point_coords"][0, :count] = prompt_.coords
    feeds["point_labels"][0, :count] = prompt_.labels
    if prompt_.mask is not None:
        feeds["mask_prompt"][0, 0] = prompt_.mask
        feeds["mask_prompt_valid"][:] = True


def click(x: float, y: float, label: int = 1) -> FramePrompt:
    return FramePrompt(torch.tensor([[x, y]]), torch.tensor([label], dtype=torch.int32))


def box() -> FramePrompt:
    return FramePrompt(torch.tensor([[20.0, 30.0], [60.0, 70.0]]), torch.tensor([2, 3], dtype=torch.int32))


def half_mask() -> FramePrompt:
    mask = torch.zeros(SIZE, SIZE)
    mask[: SIZE // 2] = 1
    return FramePrompt(mask=mask)


def assert_same_frame(outputs: Mapping[str, Tensor], record: FrameRecord, frame: int) -> None:
    expected = record.output
    for name in ("low_res_masks", "masks", "ious", "iou", "object_score"):
        assert relative(outputs[name], getattr(expected, name), at_least=0.1) < 1e-4, (frame, name)
    assert relative(outputs["object_pointer"], expected.pointer, at_least=0.1) < 1e-4, frame
    assert torch.equal(outputs["mask_choice"], expected.mask_choice), frame


@pytest.mark.parametrize(
    ("overrides", "prompts", "present"),
    [
        (("weights.seed=5",), {0: click(33, 45)}, True),
        (("weights.seed=6",), {0: click(33, 45)}, False),
        (("weights.seed=5", "memory.recent_slots=2"), {0: box(), 4: click(60, 50, 0)}, True),
        (
            ("weights.seed=5", "memory.conditioning_slots=2", "memory.recent_slots=2"),
            {0: half_mask(), 2: click(30, 30), 5: box()},
            True,
        ),
    ],
    ids=["click", "absent object", "box and click", "three prompts, two kept"],
)
def test_the_wired_components_give_the_references_frames_from_an_empty_bank_on(
    overrides: tuple[str, ...], prompts: Mapping[int, FramePrompt], present: bool
) -> None:
    """Seeds at which the object score is far from zero, so that no rounding flips it."""
    recipe, model = tiny_recipe(*overrides), tiny_model(*overrides)
    memory, program = recipe.memory, program_of(recipe, model)
    frames = 8
    tracker = ReferenceTracker(model, memory.conditioning_slots, memory.recent_slots, frames, memory.pointer_slots)
    feeds = idle_feeds(program)
    feeds["num_frames"] = scalar(frames)
    with torch.inference_mode():
        for t in range(frames):
            now = {name: tensor.clone() for name, tensor in feeds.items()}
            now |= {"image": image(t), "frame_index": scalar(t)}
            give(now, prompts.get(t, FramePrompt()))
            outputs = run_program(program, now)
            record = tracker.step(t, encode_image(model, image(t)), prompts.get(t))
            assert_same_frame(outputs, record, t)
            assert bool(record.output.object_score > 0) is present
            feeds |= {bank.input: outputs[bank.output] for bank in BANK}


def test_the_programs_ports_say_the_bank_contract() -> None:
    slots = ("memory.conditioning_slots=2", "memory.recent_slots=3", "memory.pointer_slots=5")
    recipe = tiny_recipe(*slots, "programs.track.objects=3", "programs.track.points=2")
    program = program_of(recipe)
    inputs = {port.name: (port.dtype, port.shape) for port in program.inputs}
    assert inputs == {
        "image": ("float32", (1, 3, 112, 112)),
        "frame_index": ("int32", ()),
        "num_frames": ("int32", ()),
        "point_coords": ("float32", (3, 2, 2)),
        "point_labels": ("int32", (3, 2)),
        "attend_memory": ("bool", (3,)),
        "mask_prompt": ("float32", (3, 1, 112, 112)),
        "mask_prompt_valid": ("bool", (3,)),
        "prev_logits": ("float32", (3, 1, 32, 32)),
        "prev_logits_valid": ("bool", (3,)),
        "bank.memory": ("float32", (3, 5, 8, 8, 8)),
        "bank.memory_frame": ("int32", (3, 5)),
        "bank.memory_conditioning": ("bool", (3, 5)),
        "bank.pointer": ("float32", (3, 6, 32)),
        "bank.pointer_frame": ("int32", (3, 6)),
        "bank.pointer_conditioning": ("bool", (3, 6)),
    }
    outputs = {port.name: (port.dtype, port.shape) for port in program.outputs}
    assert {t.output: outputs[t.output] for t in BANK} == {t.output: inputs[t.input] for t in BANK}
    assert all(port.meaning for port in (*program.inputs, *program.outputs))


def test_every_input_of_a_component_and_every_output_of_the_program_is_wired_once() -> None:
    program = program_of(tiny_recipe())
    wanted = {f"{c.name}.{name}" for c in program.components for name in (*c.inputs, *c.validity.values())}
    wanted |= {port.name for port in program.outputs}
    targets = [wire.target for wire in program.wires]
    assert sorted(targets) == sorted(wanted)


def test_the_example_of_a_wired_input_has_the_shape_of_what_feeds_it() -> None:
    program = program_of(tiny_recipe())
    ports = {port.name: port.shape for port in program.inputs}
    for component in program.components:
        for wire in program.wires:
            name = wire.target.removeprefix(f"{component.name}.")
            if wire.source in ports and name in component.inputs and wire.target != name:
                assert tuple(component.inputs[name].shape) == ports[wire.source], wire


def test_a_program_without_mask_prompt_pins_it_away() -> None:
    assert program_of(tiny_recipe()).pinned == {}
    without = program_of(tiny_recipe("programs.track.mask_prompt=false"))
    assert without.pinned == {"mask_prompt": 0.0, "mask_prompt_valid": False}


def test_the_first_frames_program_pins_an_empty_bank() -> None:
    first, *_ = program_of(tiny_recipe()).specialisations
    assert first.name == "track@first"
    assert first.pinned == {t.input: t.empty for t in BANK}
    assert (first.filled, dict(first.components)) == (None, {})


@pytest.mark.parametrize(
    ("overrides", "filled"),
    [
        ((), (3,)),
        (("memory.recent_slots=4",), (2,)),
        (("memory.recent_slots=3",), (2,)),
        (("memory.recent_slots=1",), (1,)),
        (("programs.track.filled=[]",), ()),
        (("programs.track.filled=[1,6]",), (1, 6)),
    ],
)
def test_a_program_for_k_filled_slots_binds_k_of_them_and_shares_the_trace(
    overrides: tuple[str, ...], filled: tuple[int, ...]
) -> None:
    program = program_of(tiny_recipe(*overrides))
    special = program.specialisations[1:]
    assert tuple(one.name for one in special) == tuple(f"track@{k}" for k in filled)
    assert tuple(one.filled for one in special) == filled
    whole = {component.name: component for component in program.components}["attend_memory"]
    for one in special:
        assert set(one.components) == {"read_bank", "attend_memory"}
        part = one.components["attend_memory"]
        assert part.module is whole.module
        assert dict(part.bindings) == {**whole.bindings, "memory_slots": one.filled}
        assert one.pinned == {}
    names = {component.name for component in program.components_of([one.name for one in special])}
    assert len(names) == len(program.components) + 2 * len(special)
    assert program.components_of(["track"]) == program.components
