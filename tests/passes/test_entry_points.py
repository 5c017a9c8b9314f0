"""Passes of other distributions: a real one, on `sys.path`, with a pass in one file and an entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samonnx.compile import main
from samonnx.exit_codes import ExitCode
from samonnx.passes import FoldConstants, UnknownPassError, assert_exact, pass_by_name, pass_problems, pass_summaries
from tests.passes.graph_text import body_of, model_of

PASS = '''"""A pass in one file."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes import Exactness, GraphPass, PassResult


@dataclass(frozen=True)
class DropDoubleNeg(GraphPass):
    """Neg of Neg is nothing.

    y = Neg(Neg(x))  →  y = Identity(x)

    Exact:    bit for bit.
    Declines: nothing.
    Cost:     none.
    """

    name: ClassVar[str] = "drop_double_neg"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        found = False
        for node in model.graph:
            inner = node.inputs[0].producer() if node.op_type == "Neg" and node.inputs[0] is not None else None
            if inner is not None and inner.op_type == "Neg":
                node.op_type, found = "Identity", True
                node.replace_input_with(0, inner.inputs[0])
        return PassResult(model, found)
'''
TEXT = "(float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }"

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution on `sys.path`, as pip would: its module, and its metadata beside it."""
    modules = set(sys.modules)

    def put(entry_points: str, name: str = "acme-passes", version: str = "1.2", module: str = PASS) -> Path:
        site = tmp_path / name
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[samonnx.passes]\n{entry_points}\n")
        (site / f"{name.replace('-', '_')}.py").write_text(module)
        monkeypatch.syspath_prepend(site)
        return site

    yield put
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_pass_is_found_by_the_name_of_its_entry_point(install: Install) -> None:
    install("drop_double_neg = acme_passes:DropDoubleNeg")
    cls = pass_by_name("drop_double_neg")
    assert cls is pass_by_name("acme_passes:DropDoubleNeg")
    assert body_of(assert_exact(cls(), model_of(TEXT)))[-1] == "y = Identity(x)"


def test_it_is_listed_with_the_distribution_that_brings_it(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    install("drop_double_neg = acme_passes:DropDoubleNeg")
    (summary,) = (summary for summary in pass_summaries() if summary.name == "drop_double_neg")
    assert (summary.origin, summary.summary) == ("acme-passes 1.2", "Neg of Neg is nothing.")
    assert main(["--list-passes"]) == ExitCode.OK
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "drop_double_neg" in line)
    assert "acme-passes 1.2" in row
    assert pass_problems() == ()


def test_a_near_name_is_answered_with_it(install: Install) -> None:
    install("drop_double_neg = acme_passes:DropDoubleNeg")
    with pytest.raises(UnknownPassError, match=r"unknown pass 'drop_double_negs'; did you mean drop_double_neg\?"):
        pass_by_name("drop_double_negs")


@pytest.mark.parametrize(
    ("module", "point", "message"),
    [
        (PASS, "drop_double_neg = acme_passez:DropDoubleNeg", "cannot import module 'acme_passez': No module named"),
        (PASS, "drop_double_neg = acme_passes:DropNeg", "no such name; passes in 'acme_passes': DropDoubleNeg"),
        (PASS, "drop_double_neg = acme_passes:ir", "which is not a GraphPass"),
        (PASS, "drop_neg = acme_passes:DropDoubleNeg", "calls itself 'drop_double_neg'; both names must be the same"),
        ("1 / 0", "drop_double_neg = acme_passes:DropDoubleNeg", "raised ZeroDivisionError: division by zero"),
        (
            PASS.replace("    tolerance: ClassVar[float] = 0.0\n", ""),
            "drop_double_neg = acme_passes:DropDoubleNeg",
            "acme_passes:DropDoubleNeg does not set tolerance",
        ),
    ],
)
def test_a_broken_entry_point_names_its_distribution_and_does_not_stop_the_list(
    install: Install, capsys: pytest.CaptureFixture[str], module: str, point: str, message: str
) -> None:
    install(point, module=module)
    name = point.partition(" ")[0]
    with pytest.raises(UnknownPassError) as caught:
        pass_by_name(name)
    assert str(caught.value).startswith(f"the entry point {name!r} of acme-passes 1.2 is broken: ")
    assert message in str(caught.value)
    assert pass_problems() == (str(caught.value),)
    assert main(["--list-passes"]) == ExitCode.OK
    assert f"the entry point {name!r} of acme-passes 1.2" in " ".join(capsys.readouterr().out.split())


def test_names_of_ours_win_and_the_clash_is_reported(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("fold_constants = acme_passes:FoldConstants", module=PASS.replace("DropDoubleNeg", "FoldConstants"))
    assert pass_by_name("fold_constants") is FoldConstants
    assert [summary.origin for summary in pass_summaries() if summary.name == "fold_constants"] == ["samonnx"]
    (clash, *_) = pass_problems()
    assert clash == (
        "pass 'fold_constants' of acme-passes 1.2 (acme_passes:FoldConstants) is hidden by samonnx's own; name it as "
        "package.module:ClassName"
    )
    main(["--list-passes"])
    assert clash in " ".join(capsys.readouterr().out.split())


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("drop_double_neg = acme_passes:DropDoubleNeg")
    install("drop_double_neg = other:DropDoubleNeg", name="other", version="0.1")
    message = (
        "pass 'drop_double_neg' is brought by acme-passes 1.2 (acme_passes:DropDoubleNeg) and other 0.1 "
        "(other:DropDoubleNeg); name the one that is meant as package.module:ClassName"
    )
    with pytest.raises(UnknownPassError) as caught:
        pass_by_name("drop_double_neg")
    assert str(caught.value) == message
    assert pass_problems() == (message,)
    assert "drop_double_neg" not in [summary.name for summary in pass_summaries()]
