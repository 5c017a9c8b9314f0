"""Factories: nested callables of a recipe are called inside out, and what does not fit is told with its place."""

from __future__ import annotations

from collections import Counter, OrderedDict

import pytest
from torch import nn

from samonnx.errors import SamonnxError
from samonnx.foreign.factory import called, imported, packages
from samonnx.frozen_dict import freeze
from samonnx.recipe import ModelSpec

HERE = __name__


class Config:
    def __init__(self, sizes: list[int], name: str = "") -> None:
        if not isinstance(sizes, list):
            raise TypeError(f"sizes must be a list, not {type(sizes).__name__}")
        self.sizes, self.name = sizes, name

    @classmethod
    def of_one(cls, size: int) -> Config:
        return cls([size])


class Model(nn.Module):
    def __init__(self, config: Config, extra: object = None) -> None:
        super().__init__()
        self.config, self.extra = config, extra


def built(**args: object) -> Model:
    frozen = ModelSpec(factory=f"{HERE}:Model", args=args).args
    model = called(f"{HERE}:Model", frozen, "model")
    assert isinstance(model, Model)
    return model


def test_a_nested_factory_is_called_with_plain_lists_and_dicts() -> None:
    model = built(config={"factory": f"{HERE}:Config", "args": {"sizes": [1, 2]}})
    assert model.config.sizes == [1, 2]


def test_factories_may_lie_in_lists_and_mappings_and_in_one_another() -> None:
    one = {"factory": "collections:OrderedDict", "args": {"a": {"factory": "collections:Counter"}}}
    model = built(config=[one], extra={"deep": {"factory": f"{HERE}:Config.of_one", "args": {"size": 3}}})
    made: object = model.config
    assert made == (OrderedDict(a=Counter()),)
    assert isinstance(model.extra, dict)
    assert model.extra["deep"].sizes == [3]


def test_plain_arguments_stay_frozen_as_they_were() -> None:
    model = built(config=1, extra={"sizes": [1]})
    assert model.extra == freeze({"sizes": [1]})
    with pytest.raises(TypeError, match="immutable"):
        model.extra["sizes"] = 2  # type: ignore[index]  # the point of the test


MISTAKES = {
    "no such module": (
        {"factory": "nowhere:Config"},
        "model.args.config.factory 'nowhere:Config' cannot be imported: No module named 'nowhere'; expected",
    ),
    "no such callable": ({"factory": f"{HERE}:Konfig"}, "has no attribute 'Konfig'; expected 'module:callable'"),
    "not callable": ({"factory": f"{HERE}:HERE"}, "is str, expected something that can be called"),
    "a misspelt argument": (
        {"factory": f"{HERE}:Config", "args": {"sises": [1]}},
        f"model.args.config: {HERE}:Config refuses its args: Config.__init__() got an unexpected keyword argument "
        "'sises'; sises: did you mean sizes?",
    ),
    "what it refuses itself": (
        {"factory": f"{HERE}:Config", "args": {"sizes": 3}},
        f"model.args.config: {HERE}:Config refuses its args: sizes must be a list, not int",
    ),
    "keys beside it": (
        {"factory": f"{HERE}:Config", "sizes": [1]},
        "model.args.config holds factory, sizes; a mapping with `factory` is what that callable returns: expected",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_factory_that_cannot_be_used_is_told_with_its_place(name: str) -> None:
    config, expected = MISTAKES[name]
    with pytest.raises(SamonnxError) as caught:
        built(config=config)
    assert expected in str(caught.value)


def test_arguments_of_the_model_that_do_not_fit_are_told_with_those_it_takes() -> None:
    with pytest.raises(SamonnxError, match=r"model\.args do not fit .*Model: .*'konfig'.*; it takes: config, extra"):
        built(config=1, konfig=1)


def test_a_callable_may_lie_in_a_class() -> None:
    assert imported(f"{HERE}:Config.of_one", "here") == Config.of_one


def test_the_packages_of_all_factories_are_known() -> None:
    args = {"a": {"factory": "one.two:Three", "args": {"b": [{"factory": "four:Five"}], "c": 1}}, "d": "x:y"}
    assert packages("zero:Model", freeze(args)) == ("zero", "one", "four")
