"""XMem's programs: their components are the eager step, their graphs hold what they need and no more, ports and
documentation agree."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from samonnx.component_tracer import trace_components
from samonnx.eager_program import EagerRun
from samonnx.errors import SamonnxError
from samonnx.link import link
from samonnx.models.xmem_bank import MemorySizes, XMemBank, empty_bank
from samonnx.models.xmem_consolidation import consolidate
from samonnx.models.xmem_step import XMemStep
from samonnx.pass_pipelines import apply_general_passes, specialise
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.programs.xmem import (
    PLAIN_CHANGES,
    consolidate_program,
    track_and_consolidate_program,
    track_program,
    xmem_sizes,
)
from samonnx.programs.xmem_components import Consolidate, WriteBank
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.recipe import load_recipe
from samonnx.verify_xmem import filled_bank, xmem_frame
from tests.documents import rows, section
from tests.models.xmem_tiny import tiny
from tests.tiny_model import tiny_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/xmem-bank.md").read_text()
MEMORY = MemorySizes(working_frames=3, min_working_frames=2, long_term=16, prototypes=5, every=2, top_k=8)


def sizes_for(objects: int = 2, height: int = 37, width: int = 51) -> XMemSizes:
    return XMemSizes(tiny(torch.float32).widths, MEMORY, objects, height, width)


def inputs_of(sizes: XMemSizes, given: int, memory: bool, last: bool = False) -> dict[str, Tensor]:
    """A frame on which the first `given` objects have masks."""
    masks = torch.zeros(sizes.objects, sizes.height, sizes.width)
    for o in range(sizes.objects):
        masks[o, 4 + 9 * o : 16 + 9 * o, 7:25] = 1
    return {
        "image": torch.from_numpy(xmem_frame(3, sizes.height, sizes.width)),
        "masks": masks,
        "is_given": torch.arange(sizes.objects) < given,
        "memory_frame": torch.tensor(memory),
        "last_frame": torch.tensor(last),
    }


def run(program: Program, inputs: dict[str, Tensor], bank: XMemBank) -> dict[str, Tensor]:
    feeds = {**inputs, **{f"bank.{name}": x for name, x in bank._asdict().items()}}
    values = EagerRun().values(program, {port.name: feeds[port.name] for port in program.inputs})
    return {port.name: values[port.name] for port in program.outputs}


# The components are the eager step


@pytest.mark.parametrize(
    ("given", "memory", "last"), [(0, False, False), (1, True, False), (2, True, False), (0, False, True)]
)
@pytest.mark.parametrize("filled", [False, True])
def test_components_joined_by_wires_are_the_eager_step(given: int, memory: bool, last: bool, filled: bool) -> None:
    """To the bit, with consolidation behind it too; 37 x 51 pixels, an odd pixel of padding on both axes."""
    sizes, model = sizes_for(), tiny(torch.float32)
    bank = filled_bank(sizes) if filled else empty_bank(MEMORY, sizes.widths, sizes.objects, *sizes.grid)
    inputs = inputs_of(sizes, given, memory, last)
    expected = XMemStep(model, MEMORY)(**inputs, bank=bank)
    found = run(track_program(model, sizes), inputs, bank)
    assert torch.equal(found["probabilities"], expected.probabilities)
    for name, after in expected.bank._asdict().items():
        given_back = found.get(f"next_bank.{name}", getattr(bank, name))
        assert torch.equal(given_back, after), name
    inside = run(track_and_consolidate_program(model, sizes), inputs, bank)
    for name, after in consolidate(expected.bank, MEMORY)._asdict().items():
        assert torch.equal(inside[f"next_bank.{name}"], after), name


def test_what_a_plain_frame_is_said_to_leave_it_leaves() -> None:
    sizes, model, bank = sizes_for(), tiny(torch.float32), filled_bank(sizes_for())
    found = XMemStep(model, MEMORY)(**inputs_of(sizes, 0, memory=False), bank=bank).bank
    for name, after in found._asdict().items():
        assert torch.equal(after, getattr(bank, name)) != (name in PLAIN_CHANGES), name


def test_every_tensor_of_the_bank_is_given_by_the_program_that_may_change_it() -> None:
    """By nobody else: `track` and `consolidate` together give all of them."""
    assert set(WriteBank.changed) | set(Consolidate.changed) == set(XMemBank._fields)
    sizes = sizes_for()
    both = track_and_consolidate_program(tiny(torch.float32), sizes)
    assert [tensor.name for tensor in both.bank] == list(XMemBank._fields)
    outputs = {port.name for port in both.outputs}
    assert outputs == {"probabilities", *(f"next_bank.{name}" for name in XMemBank._fields)}
    assert {port.name for port in consolidate_program(sizes).outputs} == {f"next_bank.{n}" for n in Consolidate.changed}


def test_a_tensor_of_the_bank_leaves_with_the_dtype_and_shape_it_came_in_with() -> None:
    for program in (track_program(tiny(), sizes_for()), consolidate_program(sizes_for())):
        ports = {port.name: (port.dtype, port.shape) for port in program.inputs}
        for port in program.outputs:
            if port.name.startswith("next_"):
                assert ports[port.name.removeprefix("next_")] == (port.dtype, port.shape), port.name


def test_an_empty_bank_is_what_the_ports_say() -> None:
    sizes = sizes_for()
    program = track_and_consolidate_program(tiny(torch.float32), sizes)
    shapes = {port.name: port for port in program.inputs}
    for tensor, expected in zip(
        program.bank, empty_bank(MEMORY, sizes.widths, sizes.objects, *sizes.grid), strict=True
    ):
        port = shapes[tensor.input]
        assert torch.equal(torch.full(port.sides(), tensor.empty, dtype=expected.dtype), expected), tensor.name
        assert str(expected.dtype) == f"torch.{port.dtype}"


# The specialised graphs


@lru_cache(maxsize=1)
def graphs() -> dict[str, tuple[int, set[str], set[str]]]:
    """Of each graph: convolutions, names of initialisers, inputs."""
    model = tiny(torch.float32)
    program = track_program(model, sizes_for(1, 32, 48))
    general = apply_general_passes(link(program, trace_components(program.components, model, tolerance=None))).model
    made = {"track": general}
    for special in program.specialisations:
        made[special.name] = specialise(general, special.pinned, unchanged=special.unchanged).model
    return {
        name: (
            sum(node.op_type == "Conv" for node in graph.graph),
            set(graph.graph.initializers),
            {str(value.name) for value in graph.graph.inputs},
        )
        for name, graph in made.items()
    }


def test_track_plain_has_no_value_encoder_in_it() -> None:
    convolutions, weights, inputs = graphs()["track@plain"]
    assert not [name for name in weights if name.startswith("value_encoder.")]
    assert [name for name in graphs()["track"][1] if name.startswith("value_encoder.")]
    assert convolutions < graphs()["track"][0]
    assert not inputs & {"masks", "is_given", "memory_frame", "bank.working_selection", "bank.last_memory"}
    assert "last_frame" in inputs


def test_track_memory_has_no_recurrent_unit_of_the_decoder_in_it() -> None:
    _, weights, inputs = graphs()["track@memory"]
    assert not [name for name in weights if name.startswith("decoder.hidden_update.")]
    assert [name for name in weights if name.startswith("value_encoder.hidden_reinforce.")]
    assert not inputs & {"memory_frame", "last_frame"}
    assert {"masks", "is_given"} < inputs


# Recipes


def test_the_recipes_make_the_programs() -> None:
    recipe = load_recipe(ROOT / "recipes/xmem_tiny.yaml")
    found = recipe_programs(tiny(torch.float32), recipe)
    assert [program.name for program in found] == ["track", "consolidate", "track_and_consolidate"]
    assert found[0].names == ("track", "track@plain", "track@memory")
    full = load_recipe(ROOT / "recipes/xmem.yaml")
    assert xmem_sizes(tiny(), full).memory == MemorySizes(10, 5, 10000, 128, 5, 30)
    assert xmem_sizes(tiny(), full).grid == (30, 54)


def test_a_recipe_without_the_size_of_a_frame_is_refused() -> None:
    recipe = load_recipe(ROOT / "recipes/sam2_tiny.yaml")
    with pytest.raises(SamonnxError, match=r"programs\.track: XMem's programs take the size of a frame .*without them"):
        xmem_sizes(tiny(), recipe)


def test_memory_sizes_of_xmem_are_refused_by_a_model_with_slots() -> None:
    recipe = load_recipe(ROOT / "recipes/xmem_tiny.yaml")
    with pytest.raises(
        SamonnxError, match=r"memory: found the sizes of XMem's memory \(working_frames, .* a bank of slots"
    ):
        recipe_programs(tiny_model(), recipe)


# Documentation


def test_the_page_has_every_tensor_with_its_dtype_and_shape() -> None:
    """Shapes in letters, resolved with sizes that are all different."""
    sizes = XMemSizes(tiny().widths, MemorySizes(7, 2, 19, 5), 3, 37, 51)
    h, w = sizes.grid
    letters = {"O": 3, "T": 7, "n": h * w, "L": 19, "h": h, "w": w, "H": 37, "W": 51, "1+O": 4, "1": 1, "3": 3}
    letters |= {"K": sizes.widths.key, "V": sizes.widths.value, "C": sizes.widths.sensory}
    program = track_and_consolidate_program(tiny(torch.float32), sizes)
    ports = {port.name: (port.dtype, port.shape) for port in (*program.inputs, *program.outputs)}

    def told(heading: str, before: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        found = {}
        for cells in rows(section(PAGE, heading))[1:]:
            kind, _, shape = cells[1].partition(" ")
            sides = tuple(letters[side] for side in shape.strip("[]").split(",") if side)
            dtype = {"f32": "float32", "i32": "int32"}.get(kind, kind)
            found[before + cells[0].strip("→ `")] = dtype, sides
        return found

    assert told("## Bank", "bank.") == {name: x for name, x in ports.items() if name.startswith("bank.")}
    frame = told("## Inputs and outputs of a step", "")
    assert frame == {name: x for name, x in ports.items() if "bank." not in name}
