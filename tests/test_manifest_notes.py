"""The manifest's notes: those of the model, the policy and the programs at hand, and no others."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import pytest

from samonnx.build_model import build_model
from samonnx.manifest_notes import manifest_notes
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Program
from samonnx.programs.recipe_programs import recipe_programs
from samonnx.recipe import MemorySpec, load_recipe
from tests.documents import ROOT, rows, text_of

BANKS = {
    "efficientsam3_tiny": "recent",
    "sam3_tiny": "recent",
    "sam2_tiny": "recent",
    "samurai_tiny": "samurai",
}
"""The policy of each scaled-down recipe."""

Given = tuple[tuple[Program, ...], MemorySpec, TrackedModel]


@lru_cache(maxsize=16)
def given(name: str, *overrides: str) -> Given:
    """Programs, memory and model of a scaled-down recipe."""
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", overrides)
    model = cast(TrackedModel, build_model(recipe).module)
    return recipe_programs(model, recipe), recipe.memory, model


def notes_of(name: str, *overrides: str, programs: tuple[str, ...] | None = None) -> tuple[str, ...]:
    made, memory, model = given(name, *overrides)
    return manifest_notes([program for program in made if programs is None or program.name in programs], memory, model)


def of_policy(name: str, policy: str) -> tuple[str, ...]:
    """The overrides that give the recipe that policy."""
    return () if BANKS[name] == policy else (f"memory.policy={policy}",)


def having(notes: tuple[str, ...], *words: str) -> list[str]:
    return [note for note in notes if all(word in note for word in words)]


@pytest.mark.parametrize("name", BANKS)
def test_every_note_of_a_recipe_is_a_line_and_there_once(name: str) -> None:
    notes = notes_of(name)
    assert len(set(notes)) == len(notes)
    for note in notes:
        assert note == " ".join(note.split())
        assert note


@pytest.mark.parametrize(("name", "policy"), [*BANKS.items(), ("efficientsam3_tiny", "selection")])
def test_notes_are_those_of_the_recipes_policy_alone(name: str, policy: str) -> None:
    notes = notes_of(name, *of_policy(name, policy))
    assert having(notes, "bank.memory_conditioning", "slots may be permuted")
    named = {other for other in ("recent", "selection", "samurai") if having(notes, f"policy {other}")}
    assert named == {policy} - {"recent"}
    unnamed = having(notes, "counts as a recent frame while it is among them")
    assert bool(unnamed) == (policy == "recent")


@pytest.mark.parametrize(("name", "policy"), [*BANKS.items(), ("efficientsam3_tiny", "selection")])
def test_pointer_places_are_said_once_and_as_many_as_the_bank_has(name: str, policy: str) -> None:
    programs, memory, _ = given(name, *of_policy(name, policy))
    (said,) = having(notes_of(name, *of_policy(name, policy)), "pointer places: ")
    spelled = said.partition("pointer places: ")[2].partition(",")[0]
    terms = {"conditioning_slots": memory.conditioning_slots, "pointer_slots": memory.pointer_slots, "- 1": -1}
    (track,) = (program for program in programs if program.name == "track")
    (port,) = (port for port in track.inputs if port.name == "bank.pointer_frame")
    assert sum(value for term, value in terms.items() if term in spelled) == port.shape[1]


@pytest.mark.parametrize("name", BANKS)
def test_notes_are_those_of_the_model_alone(name: str) -> None:
    notes = notes_of(name)
    of_sam2 = name in ("sam2_tiny", "samurai_tiny")
    assert bool(having(notes, "holes in masks are not filled")) == of_sam2
    assert bool(having(notes, "give the recipe as many slots as prompted frames")) == of_sam2
    assert bool(having(notes, "mask prompts of the tracker", "track_step")) != of_sam2
    assert bool(having(notes, "detection.score_threshold")) != of_sam2


def test_programs_without_a_bank_have_no_notes_on_it() -> None:
    assert notes_of("samurai_tiny", programs=("encode_image", "predict")) == ()
    detecting = notes_of("efficientsam3_tiny", programs=("segment",))
    assert detecting == tuple(having(notes_of("efficientsam3_tiny"), "detection"))
    assert len(detecting) == 2
    assert notes_of("efficientsam3_tiny", programs=("encode_text", "encode_image")) == ()
    assert not having(notes_of("efficientsam3_tiny", programs=("track",)), "detection")


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("samurai_tiny", (), True),
        ("samurai_tiny", ("pins.presence_threshold=0.0",), False),
        ("samurai_tiny", ("pins.memory_presence_threshold=-1.0",), False),
        ("sam2_tiny", (), False),
        ("sam2_tiny", ("pins.presence_threshold=-1.0",), True),
    ],
)
def test_faint_objects_are_spoken_of_where_the_two_thresholds_differ(
    name: str, overrides: tuple[str, ...], said: bool
) -> None:
    assert bool(having(notes_of(name, *overrides), "(-1, 0]")) == said


@pytest.mark.parametrize(
    ("overrides", "round_trip", "prompts"),
    [
        ((), True, True),
        (("pins.mask_prompt_round_trip=false",), False, True),
        (("programs.track.mask_prompt=false",), False, False),
    ],
)
def test_mask_prompts_are_spoken_of_where_there_are_any_and_as_they_are_pinned(
    overrides: tuple[str, ...], round_trip: bool, prompts: bool
) -> None:
    notes = notes_of("sam2_tiny", *overrides)
    assert bool(having(notes, "mask_prompt_round_trip")) == round_trip
    assert bool(having(notes, "mask prompt", "0.5")) == prompts
    family = notes_of("efficientsam3_tiny", *(one for one in overrides if one.startswith("programs.")))
    assert bool(having(family, "mask prompts of the tracker")) == prompts


@pytest.mark.parametrize(
    ("quirk", "note", "verdict"),
    [
        ("is on the model, and neither", "filter's state is part of the bank", "mended"),
        ("only the first object of a batch", "every object has its own", "mended"),
        ("a box or a mask prompt on frame 0 starts it on frame 1", "starts it on frame 1", "reproduced"),
        ("frame 1 is attended by frame 2 alone", "attended by frame 2 alone", "reproduced"),
        ("raises KeyError", "raises KeyError", "mended"),
        ("further click call", "a correction starts from", "mended"),
        ("an empty mask is measured", "an empty mask is measured", "reproduced"),
        ("without + 1", "without + 1", "reproduced"),
        ("float64", "float64", "differs"),
    ],
)
def test_document_and_manifest_say_the_same_of_samurais_quirks(quirk: str, note: str, verdict: str) -> None:
    written = rows(text_of("docs/branch_points_sam2.md").partition("## Quirks of the originals")[2])
    (said,) = (row[1] for row in written if quirk in row[0])
    (found,) = having(notes_of("samurai_tiny"), "policy samurai", note)
    words = {"mended": "policy samurai, mended: ", "reproduced": "policy samurai, as in the original: "}
    assert said == verdict
    assert found.startswith(words.get(verdict, "policy samurai, differs: "))
