from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from samonnx.eager_program import EagerRun
from samonnx.errors import SamonnxError
from samonnx.models.xmem_bank import XMemBank, empty_bank
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.programs.sam_xmem import start_program
from samonnx.recipe import RecipeError, StartSpec, load_recipe
from samonnx.verify_xmem import filled_bank, xmem_frame
from tests.models.sam_xmem_tiny import FRAME, RECIPE, prompts, tiny_recipe, tiny_sam_xmem, tiny_sizes

CLICK, BOX = ((40.0, 30.0, 1),), ((20.0, 20.0, 2), (80.0, 60.0, 3))


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    return {program.name: program for program in recipe_programs(tiny_sam_xmem(), tiny_recipe())}


def first_bank() -> XMemBank:
    sizes = tiny_sizes()
    return empty_bank(sizes.memory, sizes.widths, sizes.objects, *sizes.grid)


def run(program: Program, bank: XMemBank, **inputs: Tensor) -> dict[str, Tensor]:
    feeds = {
        "image": torch.from_numpy(xmem_frame(3, *FRAME)),
        "memory_frame": torch.tensor(True),
        "last_frame": torch.tensor(False),
        **inputs,
        **{f"bank.{name}": tensor for name, tensor in bank._asdict().items()},
    }
    return EagerRun().values(program, feeds)


def start(program: Program, bank: XMemBank, *rows: tuple[tuple[float, float, int], ...]) -> dict[str, Tensor]:
    coords, labels = prompts(*rows)
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    return run(program, bank, prompt_image=image, point_coords=coords, point_labels=labels)


@pytest.mark.parametrize("rows", [(CLICK, ()), ((), BOX), (CLICK, BOX), ((), ())])
@pytest.mark.parametrize("first", [True, False])
def test_start_is_track_with_sams_masks_given(
    programs: dict[str, Program], first: bool, rows: tuple[tuple[tuple[float, float, int], ...], ...]
) -> None:
    """For an empty bank and for a full one, to the last bit."""
    bank = first_bank() if first else filled_bank(tiny_sizes())
    found = start(programs["start"], bank, *rows)
    given = torch.tensor([bool(row) for row in rows])
    masks = ((found["prompt_masks"] > 0) & given[:, None, None]).float()
    expected = run(programs["track"], bank, masks=masks, is_given=given)
    for port in programs["track"].outputs:
        assert torch.equal(found[port.name], expected[port.name]), port.name
    assert found["next_bank.object_since"].tolist() == [
        int(bank.frame_count) if clicked and since < 0 else since
        for clicked, since in zip(given.tolist(), bank.object_since.tolist(), strict=True)
    ]


def test_the_smallest_object_is_memorised_too(programs: dict[str, Program]) -> None:
    """The reference project leaves out memory frames whose largest object has fewer than 100 pixels, so that a small
    object is never memorised and the first read fails."""
    masks = torch.zeros(2, *FRAME)
    masks[0, 20:22, 30:32] = 1
    found = run(programs["track"], first_bank(), masks=masks, is_given=torch.tensor([True, False]))
    assert found["next_bank.working_frame"].tolist() == [0, -1, -1]
    assert int(found["next_bank.frame_count"]) == 1


def test_start_has_the_ports_of_the_contract(programs: dict[str, Program]) -> None:
    program = programs["start"]
    shapes = {port.name: port.shape for port in (*program.inputs, *program.outputs)}
    assert shapes["prompt_image"] == (1, 3, 128, 128)
    assert shapes["point_coords"] == (2, 4, 2)
    assert shapes["prompt_masks"] == (2, *FRAME)
    assert shapes["prompt_ious"] == (2,)
    assert shapes["probabilities"] == (3, *FRAME)
    assert program.pinned == {"memory_frame": True, "last_frame": False}
    assert "masks" not in shapes
    assert {f"next_{port.name}" for port in program.inputs if port.name.startswith("bank.")} >= {
        port.name for port in program.outputs if port.name.startswith("next_bank.")
    }
    assert start_program(tiny_sam_xmem(), tiny_sizes(), StartSpec(points=7)).inputs[-1].name == "bank.last_memory"


def test_sams_encoder_comes_first_and_xmems_components_are_shared(programs: dict[str, Program]) -> None:
    assert next(iter(programs)) == "start"
    shared = {part.name for part in programs["start"].components} & {part.name for part in programs["track"].components}
    assert shared == {part.name for part in programs["track"].components}


def test_start_without_track_and_start_without_sam_are_refused(tmp_path: Path) -> None:
    alone = tmp_path / "alone.yaml"
    alone.write_text("name: alone\nmodel: {factory: 'samonnx.models.sam_xmem:build'}\nprograms: {start: {}}\n")
    with pytest.raises(RecipeError, match="`start` needs `track` beside it, whose objects, height and width it takes"):
        load_recipe(alone)
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"name: plain\nextends: {RECIPE.with_name('xmem_tiny.yaml')}\nprograms: {{start: {{}}}}\n")
    with pytest.raises(SamonnxError, match=r"programs\.start: the model of .* has no such program; it has: track"):
        recipe_programs(tiny_sam_xmem().xmem, load_recipe(plain))
