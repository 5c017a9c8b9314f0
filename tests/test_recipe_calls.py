"""Calls, replacements and nested factories in a recipe: what is read, and what is said of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.recipe import RecipeError, load_recipe
from samonnx.recipe_calls import TensorSpec, path_steps

GOOD = """\
name: small
model:
  factory: package.module:Class.build
  args:
    config: {factory: package.module:Config, args: {sizes: [1, 2]}}
calls:
  f:
    method: encoder.forward
    inputs:
      x: {shape: [2, 3], low: 0, high: 4, meaning: numbers}
      y: {shape: [2], dtype: int64, argument: "batch.rows[0]"}
    fixed: {flag: true}
    outputs: {out: "maps[0].last"}
    bank:
      state: {shape: [1, 4], output: "[1]", empty: 0.0}
"""


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(text: str) -> str:
    Path("a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("a.yaml")
    return str(caught.value)


def test_a_recipe_may_hold_calls_alone() -> None:
    Path("a.yaml").write_text(GOOD, encoding="utf-8")
    recipe = load_recipe("a.yaml")
    call = recipe.calls["f"]
    assert recipe.programs == {}
    assert (call.method, list(call.inputs), call.outputs["out"]) == ("encoder.forward", ["x", "y"], "maps[0].last")
    assert call.fixed == {"flag": True}
    assert call.bank["state"].empty == 0.0
    hash(recipe)
    Path("b.json").write_text(recipe.to_json(), encoding="utf-8")
    assert load_recipe("b.json") == recipe


MISTAKES = {
    "no outputs": (
        ('outputs: {out: "maps[0].last"}', "outputs: {}"),
        "a.yaml:7: calls.f: found a mapping (method, inputs, fixed, outputs, bank); `outputs` is empty, expected at "
        "least one, such as `outputs: {masks: pred_masks}`",
    ),
    "outputs missing": (('    outputs: {out: "maps[0].last"}\n', ""), "a.yaml:7: `calls.f` lacks the key `outputs`"),
    "unknown key": (("method:", "metod:"), "a.yaml:8: unknown key `metod` in `calls.f`; did you mean `method`?"),
    "a method that is none": (("encoder.forward", "encoder forward"), "a.yaml:8: calls.f.method: found"),
    "name of a call": (("  f:", "  f-1:"), "a.yaml:7: calls.f-1: found a mapping"),
    "name of a call that is taken": (("  f:", "  bank:"), "(`bank` and `next_bank` are taken)"),
    "name of a port": (("      x:", "      x.y:"), "a.yaml:10: calls.f.inputs.x.y: found a mapping"),
    "a shape of zero": (("[2, 3]", "[2, 0]"), "calls.f.inputs.x.shape.1: found 0 (a whole number), allowed: a whole"),
    "no shape": (("shape: [2, 3], ", ""), "a.yaml:10: `calls.f.inputs.x` lacks the key `shape`: a list"),
    "a dtype": (
        ("int64", "float64"),
        'a.yaml:11: calls.f.inputs.y.dtype: found "float64" (a string), allowed: one of float32, int32, int64, bool',
    ),
    "bounds": (
        ("low: 0, high: 4", "low: 4, high: 0"),
        "a.yaml:10: calls.f.inputs.x: found a mapping (shape, low, high, meaning); `low` is 4 and `high` is 0, "
        "expected the smaller number first",
    ),
    "bounds of a flag": (("low: 0, high: 4", "low: 0, dtype: bool"), "bound numbers, and this is a bool; leave them"),
    "a broken bound": (("dtype: int64", "dtype: int64, high: 2.5"), "`high` is 2.5, expected a whole number of int64"),
    "a bound that does not fit": (("dtype: int64", "dtype: int32, high: 3.0e+9"), "expected a whole number of int32"),
    "an argument": (
        ("batch.rows[0]", "[0].rows"),
        'a.yaml:11: calls.f.inputs.y.argument: found "[0].rows" (a string); expected an argument of the method, or a '
        "place in one that is a list or a mapping, such as pixel_values, features[0] or batch.mask",
    ),
    "an argument twice": (("{flag: true}", "{x: 1}"), "a.yaml:7: calls.f: found a mapping (method, inputs, fixed,"),
    "an argument within another": (("{flag: true}", "{batch: 1}"), "both give the argument `batch.rows[0]`"),
    "a gap in a list": (
        ("batch.rows[0]", "batch[1]"),
        "of the argument `batch` the places 1 are given; expected a list",
    ),
    "an output": (
        ("maps[0].last", "maps[first]"),
        'a.yaml:13: calls.f.outputs.out: found "maps[first]" (a string); expected a place in what the method '
        "returns, such as pred_masks, [0], hidden_states[2] or features.last; `.` is all of it",
    ),
    "an output that is an input": (
        ("{out:", "{x:"),
        "`x` is an input and an output; give the output a name of its own",
    ),
    "no inputs": (
        (GOOD[GOOD.index("    inputs:") :], "    outputs: {out: .}\n"),
        "a.yaml:7: calls.f: found a mapping (method, outputs); there are no `inputs`, expected at least one",
    ),
    "what a bank is empty of": (
        ("empty: 0.0", "empty: true"),
        "a.yaml:15: calls.f.bank.state: found a mapping (shape, output, empty); `empty` is true (a boolean), expected "
        "a value of float32",
    ),
    "a bank without output": (('output: "[1]", ', ""), "a.yaml:15: `calls.f.bank.state` lacks the key `output`"),
    "a factory": (
        ("package.module:Config", "package.module.Config"),
        'a.yaml:5: model.args.config.factory: found "package.module.Config" (a string), allowed: a string '
        '"module:callable", such as transformers:SamConfig',
    ),
    "beside a factory": (
        ("module:Config,", "module:Config, sizes: 1,"),
        "a.yaml:5: unknown key `sizes` in `model.args.config`; a mapping with `factory` is what that callable "
        "returns, and allowed beside it: args",
    ),
    "args of a factory": (("args: {sizes: [1, 2]}", "args: 3"), "a.yaml:5: model.args.config.args: found 3 (a whole"),
    "a replacement": (
        ("calls:", "replace: {encoder: package}\ncalls:"),
        'a.yaml:6: replace.encoder: found "package" (a string), allowed: a string (of the form "module:callable")',
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_what_is_expected(name: str) -> None:
    (old, new), expected = MISTAKES[name]
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    assert expected in message(text)


def test_a_call_cannot_have_the_name_of_a_program() -> None:
    text = GOOD.replace("  f:", "  track:").replace("calls:", "programs: {track: {}}\ncalls:")
    assert "`track` stands under `calls` too; give the call another name" in message(text)


def test_a_recipe_without_calls_and_programs_is_told_so() -> None:
    text = GOOD[: GOOD.index("calls:")]
    assert "the recipe lacks the key `programs`" in message(text)
    assert "at least one program is needed" in message(text + "programs: {}\n")


def test_all_mistakes_are_told_at_once() -> None:
    said = message(GOOD.replace("int64", "float64").replace("module:Config", "Config").replace("metod", "method"))
    assert said.startswith("2 problems:")


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        (".", ()),
        ("[0]", (0,)),
        ("pred_masks", ("pred_masks",)),
        ("maps[2].last", ("maps", 2, "last")),
        ("a.b[0][1]", ("a", "b", 0, 1)),
    ],
)
def test_a_path_has_steps(path: str, steps: tuple[str | int, ...]) -> None:
    assert path_steps(path) == steps


@pytest.mark.parametrize(
    ("low", "high", "bounds"), [(None, None, (0, 1)), (3, None, (3, 3)), (None, -2, (-2, -2)), (-1, None, (-1, 1))]
)
def test_a_bound_that_is_missing_keeps_the_order(low: float, high: float, bounds: tuple[float, float]) -> None:
    assert TensorSpec(shape=(1,), low=low, high=high).bounds == bounds
