"""Recipes of XMem: memory and `track` are told apart from the SAM family's by their keys, and mistakes are explained in
the terms of the one that is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.recipe import (
    MemorySpec,
    Recipe,
    RecipeError,
    TrackSpec,
    XMemMemorySpec,
    XMemTrackSpec,
    load_recipe,
    schema,
)
from samonnx.recipe_by_keys import OrByKeys

ROOT = Path(__file__).resolve().parents[1]

GOOD = """\
name: small
model:
  factory: package.module:build
memory:
  working_frames: 8
programs:
  track:
    height: 33
    width: 50
"""


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, *overrides: str) -> Recipe:
    Path("a.yaml").write_text(text, encoding="utf-8")
    return load_recipe("a.yaml", overrides)


def message(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        loaded(text, *overrides)
    return str(caught.value)


def is_equal(found: object, expected: object) -> bool:
    """To a type checker they are of two families."""
    return found == expected


def with_memory(sizes: str) -> str:
    return GOOD.replace("  working_frames: 8\n", f"  {sizes}\n")


# Told by its keys


def test_what_is_said_decides_and_the_rest_are_the_originals_settings() -> None:
    recipe = loaded(GOOD)
    assert is_equal(recipe.memory, XMemMemorySpec(working_frames=8))
    assert XMemMemorySpec().model_dump() == {
        "working_frames": 10,
        "min_working_frames": 5,
        "long_term": 10000,
        "prototypes": 128,
        "every": 5,
        "top_k": 30,
    }
    assert is_equal(recipe.programs["track"], XMemTrackSpec(objects=1, height=33, width=50))


def test_without_a_key_of_xmem_it_is_the_sam_familys() -> None:
    recipe = loaded("name: a\nmodel: {factory: a.b:c}\nmemory: {recent_slots: 2}\nprograms: {track: {objects: 2}}\n")
    assert recipe.memory == MemorySpec(recent_slots=2)
    assert recipe.programs["track"] == TrackSpec(objects=2)
    assert loaded("name: a\nmodel: {factory: a.b:c}\nprograms: {track: {}}\n").memory == MemorySpec()


def test_a_recipe_of_xmem_written_out_reads_back_as_the_same() -> None:
    recipe = loaded(GOOD, "memory.min_working_frames=2")
    Path("b.json").write_text(recipe.to_json(), encoding="utf-8")
    assert load_recipe("b.json") == recipe
    assert load_recipe("b.json").digest == recipe.digest


def test_cells_of_a_frame_are_those_of_the_padded_one() -> None:
    assert XMemTrackSpec(height=33, width=48).cells == 3 * 3
    assert XMemTrackSpec(height=480, width=854).cells == 30 * 54


def test_editors_know_both_forms() -> None:
    memory = schema()["properties"]["memory"]
    assert [form["$ref"].rpartition("/")[2] for form in memory["oneOf"]] == ["MemorySpec", "XMemMemorySpec"]


def test_a_value_that_is_no_mapping_is_the_first_form_s_to_refuse() -> None:
    assert OrByKeys(XMemMemorySpec) == OrByKeys(XMemMemorySpec)
    said = message(GOOD.replace("memory:\n  working_frames: 8\n", "memory: 5\n"))
    assert "a.yaml:4: memory: found 5 (a whole number), allowed: a mapping with the keys conditioning_slots" in said


# Mistakes, with their line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            with_memory("working_frames: 8\n  evry: 5"),
            "a.yaml:6: unknown key `evry` in `memory`; did you mean `every`? allowed: working_frames, "
            "min_working_frames, long_term, prototypes, every, top_k",
        ),
        (
            with_memory("top_k: 0"),
            "a.yaml:5: memory.top_k: found 0 (a whole number), allowed: a whole number, at least 1",
        ),
        (with_memory("every: often"), 'a.yaml:5: memory.every: found "often" (a string), allowed: a whole number'),
        (GOOD.replace("    width: 50\n", ""), "a.yaml:7: `programs.track` lacks the key `width`: a whole number"),
        (
            GOOD.replace("width: 50", "widht: 50"),
            "a.yaml:9: unknown key `widht` in `programs.track`; did you mean `width`?",
        ),
        (
            GOOD.replace("50", "0"),
            "a.yaml:9: programs.track.width: found 0 (a whole number), allowed: a whole number, at",
        ),
        (
            with_memory("min_working_frames: 10"),
            "a.yaml:4: memory: found a mapping (min_working_frames); `min_working_frames` is 10 and `working_frames` "
            "10, expected fewer than working_frames: a consolidation keeps min_working_frames, and must free a slot",
        ),
        (
            with_memory("long_term: 100"),
            "`prototypes` is 128 and `long_term` 100, expected no more than long_term: a consolidation adds them at "
            "once",
        ),
        (
            with_memory("{long_term: 128, top_k: 219}"),
            "`memory.top_k` is 219, and the memory holds 218 elements at most (long_term 128 + working_frames 10 times "
            "the 9 cells of a frame of 33 x 48); lower it",
        ),
        (
            GOOD.replace("working_frames: 8", "recent_slots: 4"),
            "`track` has `height` and `width`, which are XMem's, and so needs XMem's memory: `memory: {working_frames,",
        ),
        (
            GOOD.replace("    height: 33\n    width: 50\n", "    objects: 2\n"),
            "`track` lacks the size of a frame, which XMem's programs need, such as `track: {objects: 1, height: 480,",
        ),
        (
            GOOD.replace("  track:\n    height: 33\n    width: 50\n", "  consolidate: {}\n"),
            "`consolidate` needs `track` beside it, whose objects, height and width it takes",
        ),
        (
            GOOD.replace("  track:\n    height: 33\n    width: 50\n", "  track_and_consolidate: {}\n"),
            "`track_and_consolidate` needs `track` beside it",
        ),
    ],
)
def test_a_mistake_is_shown_with_its_line_and_what_is_allowed(text: str, said: str) -> None:
    text = text.replace("50", "48") if "33 x 48" in said else text
    assert said in message(text)


def test_a_mistake_on_the_command_line_is_too() -> None:
    assert message(GOOD, "memory.prototypes=0").startswith("--set memory.prototypes=0: memory.prototypes: found 0")


def test_as_many_elements_as_the_memory_can_hold_may_be_read() -> None:
    text = with_memory("{long_term: 128, top_k: 218}").replace("50", "48")
    assert is_equal(loaded(text).memory, XMemMemorySpec(long_term=128, top_k=218))
