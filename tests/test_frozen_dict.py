from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from samonnx.frozen_dict import FrozenDict, freeze


@pytest.mark.parametrize(
    "change",
    [
        lambda mapping: mapping.__setitem__("a", 2),
        lambda mapping: mapping.__delitem__("a"),
        lambda mapping: mapping.__ior__({"b": 1}),
        lambda mapping: mapping.update(b=1),
        lambda mapping: mapping.setdefault("b", 1),
        lambda mapping: mapping.pop("a"),
        lambda mapping: mapping.popitem(),
        lambda mapping: mapping.clear(),
    ],
)
def test_every_way_of_changing_it_is_refused(change: Callable[[Any], object]) -> None:
    mapping = FrozenDict({"a": 1})
    with pytest.raises(TypeError, match="this mapping is immutable; make a new one"):
        change(mapping)
    assert mapping == {"a": 1}


def test_it_is_a_dict_otherwise() -> None:
    mapping = FrozenDict({"a": 1, "b": 2})
    assert dict(**mapping) == mapping == {"b": 2, "a": 1}
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping | {"a": 3} == {"a": 3, "b": 2}


def test_equal_ones_hash_alike_in_any_order_and_survive_copying() -> None:
    mapping = FrozenDict({"a": 1, "b": 2})
    assert hash(mapping) == hash(FrozenDict({"b": 2, "a": 1}))
    for twin in (copy.copy(mapping), copy.deepcopy(mapping), pickle.loads(pickle.dumps(mapping))):
        assert type(twin) is FrozenDict
        assert twin == mapping


def test_freezing_goes_to_all_depths() -> None:
    frozen = freeze({"a": [1, {"b": [2]}]})
    assert frozen == {"a": (1, {"b": (2,)})}
    hash(frozen)
