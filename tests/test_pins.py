from __future__ import annotations

import copy
import io
import json
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from rich.console import Console
from torch import nn

from samonnx.pins import (
    UNPINNED,
    BranchPoint,
    PinError,
    PinTable,
    PinValue,
    Unpinned,
    UnpinnedBranchError,
    apply_pins,
    declare,
)


class Layer(nn.Module):
    branch_points: ClassVar[tuple[BranchPoint, ...]] = (BranchPoint("pre_norm", (True, False), "norms come first"),)
    pre_norm: bool

    def __init__(self) -> None:
        super().__init__()
        declare(self)
        self.width = 8  # a plain attribute of a module that declares branch points is not for pins


class Decoder(nn.Module):
    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("source", ("none", "last"), "which masks are decoded"),
        BranchPoint("points", None, "most points", kind=int),
        BranchPoint("threshold", None, "of stability", kind=float),
    )
    source: str
    points: int
    threshold: float

    def __init__(self) -> None:
        super().__init__()
        declare(self)
        self.layers = nn.ModuleList([Layer(), Layer()])


class Foreign(nn.Module):
    shared_flag = True

    def __init__(self) -> None:
        super().__init__()
        self.mode = "fast"
        self.size = 3
        self.ratio = 0.5
        self._private = True
        self.listing = [1]


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()
        self.foreign = Foreign()


PINS: dict[str, PinValue] = {
    "decoder.source": "last",
    "decoder.points": 2,
    "decoder.threshold": 0.98,
    "decoder.layers.*.pre_norm": True,
}


def refusal(pins: dict[str, PinValue], root: Root | None = None) -> list[str]:
    """The problems that `apply_pins` lists, one a line."""
    with pytest.raises(PinError) as caught:
        apply_pins(root or Root(), pins)
    first, *problems = str(caught.value).splitlines()
    assert first == "the recipe's pins do not fit Root:"
    return [problem.strip() for problem in problems]


def without(*names: str) -> dict[str, PinValue]:
    return {pattern: value for pattern, value in PINS.items() if pattern not in names}


def test_pins_set_every_branch_point_and_the_table_says_what_decided() -> None:
    root = Root()
    table = apply_pins(root, PINS)
    assert (root.decoder.source, root.decoder.points, root.decoder.threshold) == ("last", 2, 0.98)
    assert all(isinstance(layer, Layer) and layer.pre_norm is True for layer in root.decoder.layers)
    assert [(row.path, row.value, row.pattern) for row in table.rows] == [
        ("decoder.source", "last", "decoder.source"),
        ("decoder.points", 2, "decoder.points"),
        ("decoder.threshold", 0.98, "decoder.threshold"),
        ("decoder.layers.0.pre_norm", True, "decoder.layers.*.pre_norm"),
        ("decoder.layers.1.pre_norm", True, "decoder.layers.*.pre_norm"),
    ]
    assert (table.rows[0].allowed, table.rows[0].meaning) == (("none", "last"), "which masks are decoded")
    assert table.rows[1].allowed is None


def test_a_star_matches_across_dots() -> None:
    apply_pins(root := Root(), without("decoder.layers.*.pre_norm") | {"*.pre_norm": False})
    assert [layer.pre_norm for layer in root.decoder.layers] == [False, False]


def test_a_branch_point_of_the_root_is_named_without_a_dot() -> None:
    layer = Layer()
    assert [row.path for row in apply_pins(layer, {"pre_norm": False}).rows] == ["pre_norm"]


def test_an_integer_becomes_a_float_where_a_float_is_expected() -> None:
    apply_pins(root := Root(), PINS | {"decoder.threshold": 1})
    assert type(root.decoder.threshold) is float


def test_pinning_again_decides_again() -> None:
    apply_pins(root := Root(), PINS)
    apply_pins(root, PINS | {"decoder.source": "none"})
    assert root.decoder.source == "none"


def test_a_subclass_has_its_bases_branch_points_and_may_redeclare_them() -> None:
    class Wider(Layer):
        branch_points: ClassVar[tuple[BranchPoint, ...]] = (
            BranchPoint("dropout", (False,), "off when compiled"),
            BranchPoint("pre_norm", (True,), "always here"),
        )

    table = apply_pins(Wider(), {"pre_norm": True, "dropout": False})
    assert [(row.path, row.allowed) for row in table.rows] == [("pre_norm", (True,)), ("dropout", (False,))]


# What is refused


def test_a_branch_point_without_a_pin_is_refused_with_its_meaning_and_choices() -> None:
    assert refusal(without("decoder.source", "decoder.points", "decoder.layers.*.pre_norm")) == [
        "decoder.source: not pinned; allowed: none, last (which masks are decoded)",
        "decoder.points: not pinned; allowed: any integer (most points)",
        "decoder.layers.0.pre_norm: not pinned; allowed: true, false (norms come first)",
        "decoder.layers.1.pre_norm: not pinned; allowed: true, false (norms come first)",
    ]


def test_a_branch_point_that_code_set_by_hand_still_needs_its_pin() -> None:
    root = Root()
    root.decoder.source = "last"
    assert refusal(without("decoder.source"), root) == [
        "decoder.source: not pinned; allowed: none, last (which masks are decoded)"
    ]


@pytest.mark.parametrize(
    ("pattern", "close"),
    [
        ("decoder.sources", "; close: decoder.source, decoder.points, decoder.threshold"),
        ("decoder.layers.2.pre_norm", "; close: decoder.layers.1.pre_norm, decoder.layers.0.pre_norm"),
        ("encoder.blocks.*.stack.pre_norm", "; close: decoder.layers.1.pre_norm, decoder.layers.0.pre_norm"),
        ("zzz", ""),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_close_names(pattern: str, close: str) -> None:
    assert refusal(PINS | {pattern: True}) == [f"{pattern}: matches no branch point{close}"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("decoder.source", "first", "found first (string) from `decoder.source`, allowed: none, last"),
        ("decoder.points", True, "found true (boolean) from `decoder.points`, allowed: any integer"),
        ("decoder.points", 2.0, "found 2.0 (number) from `decoder.points`, allowed: any integer"),
        ("decoder.threshold", "high", "found high (string) from `decoder.threshold`, allowed: any number"),
    ],
)
def test_a_value_outside_the_allowed_ones_is_refused(name: str, value: PinValue, said: str) -> None:
    assert refusal(PINS | {name: value}) == [f"{name}: {said}"]


def test_one_is_not_true() -> None:
    with pytest.raises(PinError, match=r"pre_norm: found 1 \(integer\) from `pre_norm`, allowed: true, false"):
        apply_pins(Layer(), {"pre_norm": 1})


def test_two_pins_that_disagree_are_refused_and_two_that_agree_are_not() -> None:
    assert refusal(PINS | {"*.1.pre_norm": False}) == [
        "decoder.layers.1.pre_norm: pins disagree: `decoder.layers.*.pre_norm: true`, `*.1.pre_norm: false`"
    ]
    apply_pins(Root(), PINS | {"*.1.pre_norm": True})


def test_all_problems_are_listed_at_once_and_nothing_is_set() -> None:
    root = Root()
    pins = without("decoder.points") | {"decoder.source": "first", "nothing.here": 1}
    assert len(refusal(pins, root)) == 3
    assert isinstance(root.decoder.threshold, Unpinned)


# Foreign modules


def test_plain_attributes_of_foreign_modules_are_pinned_from_outside() -> None:
    table = apply_pins(root := Root(), PINS | {"foreign.mode": "exact", "foreign.shared_*": False, "foreign.ratio": 1})
    assert (root.foreign.mode, root.foreign.shared_flag, root.foreign.ratio) == ("exact", False, 1.0)
    assert Foreign.shared_flag is True
    rows = {row.path: row for row in table.rows}
    assert rows["foreign.mode"].meaning == "attribute of Foreign, fast before"
    assert rows["foreign.mode"].allowed is None


def test_attributes_of_foreign_modules_keep_their_type() -> None:
    assert refusal(PINS | {"foreign.size": "big", "foreign.mode": True}) == [
        "foreign.mode: found true (boolean) from `foreign.mode`, allowed: any string",
        "foreign.size: found big (string) from `foreign.size`, allowed: any integer",
    ]


@pytest.mark.parametrize("name", ["foreign._private", "foreign.training", "foreign.listing", "decoder.layers.0.width"])
def test_private_attributes_modes_containers_and_own_settings_are_not_for_pins(name: str) -> None:
    (said,) = refusal(PINS | {name: True})
    assert said.startswith(f"{name}: matches no branch point")


def test_foreign_modules_need_no_pins() -> None:
    assert apply_pins(Foreign(), {}) == PinTable(())


def test_a_module_in_two_places_is_one_branch_under_either_name() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Layer()
            self.second = self.first

    assert [row.path for row in apply_pins(Twice(), {"second.pre_norm": True}).rows] == ["first.pre_norm"]
    with pytest.raises(PinError, match=r"first\.pre_norm: pins disagree: `first\.pre_norm: true`, `second\.pre_norm"):
        apply_pins(Twice(), {"first.pre_norm": True, "second.pre_norm": False})


# The mark of an unpinned branch


@pytest.mark.parametrize(
    "use",
    [
        bool,
        int,
        float,
        str,
        hash,
        list,
        lambda value: value == "last",
        lambda value: value != "last",
        lambda value: value >= 1,
        lambda value: operator.le(1, value),
        lambda value: value * 2,
        lambda value: range(3)[value],
        lambda value: "last" in value,
        lambda value: {value: 1},
        lambda value: f"{value}",
    ],
)
def test_using_an_unpinned_branch_names_it(use: Callable[[Any], object]) -> None:
    with pytest.raises(
        UnpinnedBranchError, match=r"branch point Decoder\.source was used before it was pinned; pin it in"
    ):
        use(Decoder().source)


def test_an_unpinned_branch_can_be_shown_and_copied() -> None:
    assert repr(copy.deepcopy(Decoder()).source) == "<unpinned Decoder.source>"


def test_the_anonymous_mark_refuses_too() -> None:
    with pytest.raises(UnpinnedBranchError, match="not declared in `branch_points`"):
        bool(UNPINNED)


# The table


def test_the_table_renders_with_values_as_a_recipe_spells_them() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(apply_pins(Root(), PINS).render())
    text = console.export_text()
    assert "5 pinned branches" in text
    (line,) = (line for line in text.splitlines() if "decoder.layers.0.pre_norm" in line)
    assert [cell.strip() for cell in line.split("│")][1:-1] == [
        "decoder.layers.0.pre_norm",
        "true",
        "true, false",
        "norms come first",
    ]


def test_the_table_is_plain_json() -> None:
    rows = apply_pins(Root(), PINS).to_json()
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0] == {
        "path": "decoder.source",
        "value": "last",
        "allowed": ["none", "last"],
        "meaning": "which masks are decoded",
        "pattern": "decoder.source",
    }
