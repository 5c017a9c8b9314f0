"""Passes that a recipe adds: found before any work, run on every program, verified, and said in the manifest."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from samonnx.compile import CompileOptions, compile_recipe
from samonnx.errors import SamonnxError, VerificationError
from samonnx.passes import MergeMoves, UnknownPassError
from samonnx.recipe import RecipeError, load_recipe
from samonnx.recipe_passes import pass_notes, passes_by_name
from samonnx.runtime.manifest import Manifest
from tests.tiny_model import TINY

MARK = '''
from dataclasses import dataclass
from typing import ClassVar
import onnx_ir as ir
from samonnx.passes import Exactness, GraphPass, PassResult

@dataclass(frozen=True)
class Mark(GraphPass):
    """Say in the name of a node that it was here."""
    name: ClassVar[str] = "mark"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        model.graph.node(0).name = "marked"
        return PassResult(model, False)

@dataclass(frozen=True)
class Break(Mark):
    """Turn the first sum into a difference."""
    name: ClassVar[str] = "break"

    def call(self, model: ir.Model) -> PassResult:
        next(node for node in model.graph if node.op_type == "Add").op_type = "Sub"
        return PassResult(model, True)

@dataclass(frozen=True)
class Needy(Mark):
    """Needs an option."""
    name: ClassVar[str] = "needy"
    option: int
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "marking_passes.py").write_text(MARK)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("marking_passes", None)
    return "marking_passes"


def compiled(tmp_path: Path, *names: str, verify_each: bool = False) -> Path:
    override = f"passes=[{', '.join(names)}]"
    options = CompileOptions(
        output=tmp_path / "out",
        overrides=(override,),
        targets=("onnx",),
        programs=("encode_text",),
        verify_each=verify_each,
    )
    return compile_recipe(TINY, options, Console(quiet=True))


def test_a_recipe_has_none_of_its_own_by_default() -> None:
    assert load_recipe(TINY).passes == ()
    assert pass_notes(()) == ()


def test_names_become_passes_in_their_order() -> None:
    names = ("merge_moves", "samonnx.passes.eliminate_dead:EliminateDead")
    assert [pass_.name for pass_ in passes_by_name(names)] == ["merge_moves", "eliminate_dead"]
    assert passes_by_name(names)[0] == MergeMoves()


def test_it_runs_on_the_program_and_the_manifest_says_so(tmp_path: Path, module: str) -> None:
    folder = compiled(tmp_path, f"{module}:Mark", "merge_moves")
    graph = onnx.load(folder / "encode_text.onnx", load_external_data=False).graph
    assert "marked" in [node.name for node in graph.node]
    assert Manifest.load(folder).notes[-2:] == (
        "the recipe's pass mark (marking_passes:Mark) ran on every program before it was lowered; it promises: "
        "bit-exact",
        "the recipe's pass merge_moves (samonnx.passes.merge_moves:MergeMoves) ran on every program before it was "
        "lowered; it promises: bit-exact",
    )


@pytest.mark.parametrize("verify_each", [True, False])
def test_a_pass_that_breaks_the_numbers_stops_the_compile(tmp_path: Path, module: str, verify_each: bool) -> None:
    with pytest.raises(VerificationError) as caught:
        compiled(tmp_path, f"{module}:Break", verify_each=verify_each)
    assert ("pass 'break' broke its promise" in str(caught.value)) is verify_each
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("merge_move", UnknownPassError, r"unknown pass 'merge_move'; did you mean merge_moves\?"),
        ("no_such_module:Mark", UnknownPassError, "cannot import module 'no_such_module'"),
        (
            "marking_passes:Needy",
            SamonnxError,
            r"'marking_passes:Needy' of the recipe cannot be made without options: .*",
        ),
        ("'a b'", RecipeError, r"passes.*'a b'"),
    ],
)
def test_a_name_that_leads_to_no_pass_stops_before_any_work(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, name: str, error: type[SamonnxError], message: str
) -> None:
    monkeypatch.setattr("samonnx.compile.build_model", lambda *_: pytest.fail("too late"))
    with pytest.raises(error, match=message):
        compiled(tmp_path, name)
