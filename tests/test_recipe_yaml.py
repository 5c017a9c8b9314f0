from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samonnx.recipe_problems import Origin, RecipeError
from samonnx.recipe_yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("0x1f", 31),
        ("0o17", 15),
        ("010", 10),
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        (".5", 0.5),
        ("2.", 2.0),
        # strings, although YAML 1.1 reads something else into them
        ("yes", "yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("'12'", "12"),
        ("=", "="),
    ],
)
def test_plain_scalars_are_read_by_the_core_schema(text: str, value: Any) -> None:
    found = parse_yaml(text, "a").plain()
    assert found == value
    assert type(found) is type(value)


plain_text = st.text(st.characters(min_codepoint=32, max_codepoint=126))
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_is_yaml(value: Any) -> None:
    assert parse_yaml(json.dumps(value), "a").plain() == value


def test_values_and_keys_know_their_lines() -> None:
    entries = parse_yaml("a: 1\nb:\n  - x\n  -\n    y\n", "f.yaml").entries
    assert entries is not None
    assert entries["a"].value.origin == Origin("f.yaml", 1)
    assert entries["b"].key_origin == Origin("f.yaml", 2)
    items = entries["b"].value.content
    assert isinstance(items, tuple)
    assert [str(item.origin) for item in items] == ["f.yaml:3", "f.yaml:5"]


def test_anchors_and_aliases_stand_for_the_value() -> None:
    assert parse_yaml("a: &x {k: [1]}\nb: *x\n", "f").plain() == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_merge_keys_bring_in_what_is_not_said_first_mapping_first() -> None:
    text = "a: &a {k: 1, l: 1}\nb: &b {l: 2, m: 2}\nc: {<<: [*a, *b], m: 3}\n"
    assert parse_yaml(text, "f").plain()["c"] == {"k": 1, "l": 1, "m": 3}  # type: ignore[index,call-overload]  # a mapping


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "f:1: an alias (`*name`) stands inside the value that its anchor (`&name`) names"),
        ("a: &a\n  b: {<<: *a}", "f:2: `<<` takes a mapping or a list of mappings, such as `<<: *name`"),
        ("a:\n  <<: 5", "f:2: `<<` takes a mapping or a list of mappings, such as `<<: *name`"),
        ("a: *x", "f:1: YAML syntax error, column 4: found undefined alias 'x'"),
        ("a: !thing b", "f:1: tag !thing is not known; a recipe has plain values, lists and mappings"),
        ("a: !!python/name:os.system x", "f:1: tag tag:yaml.org,2002:python/name:os.system is not known"),
        ("a: !!map 5", "f:1: tag tag:yaml.org,2002:map is not known"),
        ("a: !!bool maybe", "f:1: maybe is not a boolean"),
        ("a\n---\nb", "f:2: YAML syntax error, column 1: expected a single document in the stream (begun in line 1)"),
        (
            "a: [1\nb: 2",
            "f:2: YAML syntax error, column 2: while parsing a flow sequence (begun in line 1): expected ','",
        ),
        ("\ta: 1", "f:1: YAML syntax error, column 1: while scanning for the next token: found character '\\t'"),
        ("a: \x01", "f: not readable as YAML: unacceptable character #x0001"),
    ],
)
def test_what_cannot_be_read_is_shown_with_its_line(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith(said)


def test_without_lines_the_source_alone_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_yaml("[1", "--set a=[1", lines=False)
    assert str(caught.value).startswith("--set a=[1: YAML syntax error, column 3")
