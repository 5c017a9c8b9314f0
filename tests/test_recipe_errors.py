from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.recipe import RecipeError, load_recipe

GOOD = """\
name: small
model:
  factory: package.module:build
programs: {track: {}}
"""  # four lines: what a test adds starts in line 5


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(text: str, *overrides: str) -> str:
    """What `load_recipe` says about this text, read from the file a.yaml."""
    Path("a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("a.yaml", overrides)
    return str(caught.value)


# Keys


def test_an_unknown_key_is_shown_with_the_close_one_and_all_that_are_allowed() -> None:
    assert message(GOOD + "memory:\n  recent_slot: 4\n") == (
        "a.yaml:6: unknown key `recent_slot` in `memory`; did you mean `recent_slots`? "
        "allowed: conditioning_slots, recent_slots, pointer_slots, policy, selection, samurai"
    )


def test_an_unknown_key_at_the_top_lists_extends_too() -> None:
    assert message(GOOD + "extend: b.yaml\n") == (
        "a.yaml:5: unknown key `extend`; did you mean `extends`? "
        "allowed: name, model, weights, pins, memory, detection, replace, calls, programs, passes, targets, verify, "
        "extends"
    )


def test_an_unknown_program_is_an_unknown_key() -> None:
    assert message(GOOD.replace("track", "segmant")) == (
        "a.yaml:4: unknown key `segmant` in `programs`; did you mean `segment`? "
        "allowed: encode_text, encode_image, ground, segment, track, start, consolidate, track_and_consolidate, step, "
        "predict, segment_prompt"
    )


def test_a_step_without_the_track_whose_options_it_takes_is_refused() -> None:
    said = message(GOOD.replace("track", "step"))
    assert "`step` needs `track` beside it, whose objects and points it takes" in said


@pytest.mark.parametrize(
    ("filled", "said"),
    [
        ("[0]", "programs.track.filled.0: found 0 (a whole number), allowed: a whole number, at least 1"),
        ("2", "programs.track.filled: found 2 (a whole number), allowed: a list, each item a whole number, at least 1"),
        ("[4, 2]", "programs.track.filled: found [4, 2] (a list); expected rising numbers, each once, such as [2, 4]"),
        ("[2, 2]", "programs.track.filled: found [2, 2] (a list); expected rising numbers, each once, such as [2, 4]"),
        ("[2, 7]", "`track.filled` has 7, expected numbers below 7, the slots of the bank"),
    ],
)
def test_numbers_of_filled_slots_rise_from_1_and_stay_below_the_slots(filled: str, said: str) -> None:
    text = GOOD.replace("programs: {track: {}}", f"programs: {{track: {{filled: {filled}}}}}")
    assert text != GOOD
    assert said in message(text)


def test_a_missing_key_is_reported_where_its_mapping_stands() -> None:
    assert message(GOOD.replace("  factory: package.module:build", "  args: {}")) == (
        "a.yaml:2: `model` lacks the key `factory`: a string (The callable that builds the model: "
        '"module:callable", which returns a torch.nn.Module), such as samonnx.models.efficientsam3:build'
    )


def test_a_base_is_not_a_recipe_by_itself() -> None:
    said = message("memory: {recent_slots: 4}\n")
    assert said.startswith("3 problems:\n  a.yaml:1: the recipe lacks the key `name`: a string")
    assert "a.yaml:1: the recipe lacks the key `model`: a mapping with the keys factory, args" in said
    programs = "encode_text, encode_image, ground, segment, track"
    assert f"a.yaml:1: the recipe lacks the key `programs`: a mapping with the keys {programs}" in said


def test_a_key_that_occurs_twice_is_shown_with_both_lines() -> None:
    assert message(GOOD + "memory:\n  recent_slots: 4\n  recent_slots: 5\n") == (
        "a.yaml:7: key `recent_slots` occurs twice, first in line 6"
    )


def test_a_key_must_be_a_string() -> None:
    assert (
        message(GOOD + "pins: {1: true}\n") == "a.yaml:5: key 1: a key must be a string; quote it if it is meant as one"
    )
    assert "key a list or mapping: a key must be a string" in message(GOOD + "pins: {[1]: true}\n")


# Types and values


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("recent_slots: '4'", 'memory.recent_slots: found "4" (a string), allowed: a whole number, at least 1'),
        ("recent_slots: true", "memory.recent_slots: found true (a boolean), allowed: a whole number, at least 1"),
        ("recent_slots: 4.0", "memory.recent_slots: found 4.0 (a number), allowed: a whole number, at least 1"),
        ("recent_slots: null", "memory.recent_slots: found null, allowed: a whole number, at least 1"),
        ("recent_slots: 0", "memory.recent_slots: found 0 (a whole number), allowed: a whole number, at least 1"),
        ("pointer_slots: 1", "memory.pointer_slots: found 1 (a whole number), allowed: a whole number, at least 2"),
        ("policy: xmem", 'memory.policy: found "xmem" (a string), allowed: one of recent, selection, samurai'),
        ("policy: [recent]", 'memory.policy: found ["recent"] (a list), allowed: one of recent, selection, samurai'),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(setting: str, said: str) -> None:
    assert message(f"{GOOD}memory:\n  {setting}\n") == f"a.yaml:6: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory: 5", "memory: found 5 (a whole number), allowed: a mapping with the keys conditioning_slots,"),
        (
            "memory: {}\npins: [a]",
            'pins: found ["a"] (a list), allowed: a mapping of names to true or false or a whole',
        ),
        ("pins: {a.b: [1]}", "pins.a.b: found [1] (a list), allowed: true or false or a whole number or a number or a"),
        ("pins: {a.b: {c: 1}}", "pins.a.b: found a mapping (c), allowed: true or false or a whole number or a number"),
        ("weights: {rescale: {a.b: big}}", 'weights.rescale.a.b: found "big" (a string), allowed: a number'),
        (
            "weights: {checkpoint: 5}",
            "weights.checkpoint: found 5 (a whole number), allowed: a string or a mapping of names to a string or null",
        ),
        ("verify: {atol: 0}", "verify.atol: found 0 (a whole number), allowed: a number, above 0"),
        (
            "targets: []",
            "targets: found [] (a list), allowed: a list, each item one of onnx, ort-cpu, openvino; not empty",
        ),
        (
            "targets: onnx",
            'targets: found "onnx" (a string), allowed: a list, each item one of onnx, ort-cpu, openvino',
        ),
        ("targets: [onnx, trt]", 'targets.1: found "trt" (a string), allowed: one of onnx, ort-cpu, openvino'),
        ("targets: [onnx, onnx]", 'targets: found ["onnx", "onnx"] (a list); a target occurs twice'),
    ],
)
def test_every_kind_of_setting_says_what_it_takes(text: str, said: str) -> None:
    assert f": {said}" in message(GOOD + text + "\n")


def test_a_recipe_without_a_program_is_refused() -> None:
    assert message(GOOD.replace("{track: {}}", "{}")) == (
        "a.yaml:4: programs: found a mapping (empty); at least one program is needed, such as `track: {}`"
    )


def test_a_name_that_would_leave_the_output_folder_is_refused() -> None:
    assert 'a.yaml:1: name: found "../up" (a string), allowed: a string (Name of the output folder' in message(
        GOOD.replace("small", "../up")
    )


def test_a_factory_names_a_module_and_a_callable() -> None:
    said = message(GOOD.replace("package.module:build", "package.module.build"))
    assert said.startswith(
        'a.yaml:3: model.factory: found "package.module.build" (a string), allowed: a string (The call'
    )
    assert said.endswith("such as samonnx.models.efficientsam3:build")


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1e999", "!!int 1.5"])
def test_numbers_must_be_finite_and_what_their_tag_says(number: str) -> None:
    assert message(f"{GOOD}verify: {{atol: {number}}}\n") == f"a.yaml:5: {number.split()[-1]} is not a finite number"


def test_a_long_value_is_cut_short() -> None:
    assert f'"{"x" * 56}... (a string)' in message(f"{GOOD}memory: {{policy: {'x' * 200}}}\n")


def test_all_problems_are_reported_at_once_in_the_order_of_lines() -> None:
    said = message(GOOD + "memory:\n  recent_slot: 4\n  pointer_slots: true\nverify:\n  frames: many\n")
    assert [line.split(" ")[2] for line in said.splitlines()[1:]] == ["a.yaml:6:", "a.yaml:7:", "a.yaml:9:"]
    assert said.startswith("3 problems:\n")


# Files


def test_a_missing_file_suggests_a_close_one() -> None:
    Path("efficientsam3_m0_9.yaml").write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe("efficientsam3_m09.yaml")
    assert str(caught.value) == (
        "efficientsam3_m09.yaml: cannot read efficientsam3_m09.yaml: No such file or directory; "
        "did you mean efficientsam3_m0_9.yaml?"
    )


def test_a_folder_is_not_a_recipe() -> None:
    Path("folder").mkdir()
    with pytest.raises(RecipeError, match=r"cannot read folder: Is a directory"):
        load_recipe("folder")


def test_text_that_is_not_utf8_is_refused() -> None:
    Path("a.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(RecipeError, match=r"a\.yaml: not UTF-8 text \(invalid start byte at byte 6\)"):
        load_recipe("a.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a.yaml: found nothing, expected a recipe: a mapping with `name:`, `model:`, …"),
        ("# only a comment\n", "a.yaml: found nothing, expected a recipe: a mapping with `name:`, `model:`, …"),
        ("- a\n", 'a.yaml:1: found ["a"] (a list), expected a recipe: a mapping with `name:`, `model:`, …'),
    ],
)
def test_a_file_must_hold_a_mapping(text: str, said: str) -> None:
    assert message(text) == said


# extends


def test_a_missing_base_is_reported_in_the_line_that_names_it() -> None:
    assert message(GOOD + "extends: base/none.yaml\n") == (
        "a.yaml:5: cannot read base/none.yaml: No such file or directory"
    )


@pytest.mark.parametrize("value", ["[b.yaml]", "5", "''", "null"])
def test_extends_takes_one_path(value: str) -> None:
    assert "a.yaml:5: extends: found" in (said := message(f"{GOOD}extends: {value}\n"))
    assert said.endswith("expected the path of one recipe file")


def test_a_circle_of_extends_shows_its_chain() -> None:
    Path("b.yaml").write_text("extends: sub/../c.yaml\n")
    Path("c.yaml").write_text("# comment\nextends: a.yaml\n")
    Path("sub").mkdir()
    assert message("extends: b.yaml\n") == "c.yaml:2: `extends` goes in a circle: a.yaml → b.yaml → c.yaml → a.yaml"


def test_a_file_that_extends_itself_is_a_circle() -> None:
    assert message("extends: a.yaml\n") == "a.yaml:1: `extends` goes in a circle: a.yaml → a.yaml"


def test_a_bad_value_is_reported_in_the_file_that_it_came_from() -> None:
    Path("base").mkdir()
    Path("base/b.yaml").write_text("memory:\n  recent_slots: six\n  pointer_slots: 4\n")
    said = message("extends: base/b.yaml\n" + GOOD + "memory:\n  pointer_slots: four\n")
    assert said.splitlines()[1:] == [
        '  a.yaml:7: memory.pointer_slots: found "four" (a string), allowed: a whole number, at least 2',
        '  base/b.yaml:2: memory.recent_slots: found "six" (a string), allowed: a whole number, at least 1',
    ]


def test_a_bad_value_that_is_overruled_does_no_harm() -> None:
    Path("b.yaml").write_text("memory: {recent_slots: six}\n")
    Path("a.yaml").write_text("extends: b.yaml\nmemory: {recent_slots: 5}\n" + GOOD)
    assert load_recipe("a.yaml").memory.recent_slots == 5


def test_bad_yaml_in_a_base_is_reported_in_the_base() -> None:
    Path("b.yaml").write_text("memory: {recent_slots: 2\nname: x\n")
    assert message("extends: b.yaml\n" + GOOD).startswith("b.yaml:2: YAML syntax error, column 5:")


# --set


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("memory.recent_slot=4", "unknown key `recent_slot` in `memory`; did you mean `recent_slots`? allowed: "),
        ("memry.recent_slots=4", "unknown key `memry`; did you mean `memory`? allowed: name, model,"),
        ("memory.recent_slots=six", 'memory.recent_slots: found "six" (a string), allowed: a whole number, at least 1'),
        ("memory.recent_slots", "expected key.key=value, such as --set memory.recent_slots=4"),
        ("=4", "expected key.key=value, such as --set memory.recent_slots=4"),
        ("memory..recent_slots=4", "expected key.key=value, such as --set memory.recent_slots=4"),
        ("name.first=4", '`name` is "small" (a string), which has no keys'),
        ("targets.0=onnx", '`targets` is ["onnx"] (a list), which has no keys; set it as a whole: --set targets=[…]'),
        ("extends=b.yaml", "`extends` can stand in files only"),
        ("memory.recent_slots=[1", "YAML syntax error, column 3: while parsing a flow sequence: expected ',' or ']'"),
        ("model={args: {}}", "`model` lacks the key `factory`: a string"),
    ],
)
def test_a_bad_override_is_named_with_what_is_wrong_in_it(argument: str, said: str) -> None:
    assert message(GOOD + "targets: [onnx]\n", "verify.frames=2", argument).startswith(f"--set {argument}: {said}")


def test_a_file_is_blamed_for_what_it_lacks_even_if_an_override_went_there() -> None:
    text = GOOD.replace("  factory: package.module:build", "  args: {}")
    assert message(text, "model.args.width=3").startswith("a.yaml:2: `model` lacks the key `factory`")


def test_all_bad_overrides_are_reported_at_once() -> None:
    said = message(GOOD, "memory", "name.x=1")
    assert [line.split(":")[0] for line in said.splitlines()[1:]] == ["  --set memory", "  --set name.x=1"]
