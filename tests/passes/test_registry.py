from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from samonnx.passes import PASSES, Exactness, GraphPass, UnknownPassError, pass_by_name, pass_summaries
from samonnx.passes.fold_constants import FoldConstants


@pytest.mark.parametrize("name", PASSES)
def test_file_name_and_registry_agree(name: str) -> None:
    path = Path(inspect.getfile(PASSES[name]()))
    folder = "" if path.parent.name == "passes" else f"{path.parent.name}_"
    assert PASSES[name]().name == name == folder + path.stem
    assert PASSES[name]().__name__ == "".join(word.capitalize() for word in name.split("_"))


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_is_a_value(name: str) -> None:
    cls = PASSES[name]()
    assert issubclass(cls, GraphPass)
    assert "__dataclass_params__" in vars(cls), "without its own @dataclass the options are lost"
    assert vars(cls)["__dataclass_params__"].frozen
    for option in dataclasses.fields(cls):
        has_default = option.default is not dataclasses.MISSING or option.default_factory is not dataclasses.MISSING
        assert has_default or name == "unroll_memory", f"option {option.name} has no default"


@pytest.mark.parametrize("name", PASSES)
def test_the_tolerance_fits_the_exactness(name: str) -> None:
    cls = PASSES[name]()
    assert (cls.tolerance == 0.0) == (cls.exactness is Exactness.BIT_EXACT)
    assert 0.0 <= cls.tolerance < 1.0


@pytest.mark.parametrize("name", PASSES)
def test_the_docstring_is_the_contract(name: str) -> None:
    text = inspect.getdoc(PASSES[name]()) or ""
    lines = text.splitlines()
    assert lines[0].endswith(".")
    assert not lines[1]
    positions = [text.find(part) for part in ("→", "Exact:", "Declines:", "Cost:")]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_summaries_are_the_first_lines() -> None:
    summaries = {summary.name: summary for summary in pass_summaries()}
    assert list(summaries) == list(PASSES)
    fold = summaries["fold_constants"]
    assert fold.summary == "Evaluate nodes that depend on constants only, and remove nodes that constants make idle."
    assert (fold.exactness, fold.tolerance) == (Exactness.BIT_EXACT, 0.0)


def test_a_pass_is_found_by_name_or_by_import_path() -> None:
    assert pass_by_name("fold_constants") is FoldConstants
    assert pass_by_name("samonnx.passes.fold_constants:FoldConstants") is FoldConstants


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fold_constant", r"unknown pass 'fold_constant'; did you mean fold_constants\?"),
        ("zzz", r"unknown pass 'zzz'; known passes: fold_constants, eliminate_dead, .* \(or give package.module:Class"),
        ("no_such_package:X", r"pass 'no_such_package:X': cannot import module 'no_such_package': No module named"),
        (
            "samonnx.passes.fold_constants:FoldConstant",
            r"no such name; passes in 'samonnx.passes.fold_constants': FoldConstants$",
        ),
        ("pathlib:Path", r"found <class 'pathlib.Path'>, which is not a GraphPass; passes in 'pathlib': none"),
    ],
)
def test_an_unknown_pass_is_an_error_with_a_way_out(name: str, message: str) -> None:
    with pytest.raises(UnknownPassError, match=message):
        pass_by_name(name)


def test_passes_import_neither_torch_nor_the_models() -> None:
    code = (
        "import sys, samonnx.passes as p, samonnx.passes.observers\n"
        "[load() for load in p.PASSES.values()]\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('samonnx.models')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
