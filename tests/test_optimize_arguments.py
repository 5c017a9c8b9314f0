"""The command line of `samonnx optimize`."""

from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.optimize_arguments import OptimizeArguments, parse_arguments


def test_a_file_and_where_to_are_enough() -> None:
    assert parse_arguments(["a.onnx", "-o", "b.onnx"]) == OptimizeArguments(
        source=Path("a.onnx"),
        output=Path("b.onnx"),
        target="ort-cpu",
        passes=None,
        shapes={},
        ranges={},
        fixed={},
        timed=True,
        threads=None,
        json=None,
    )


def test_values_follow_the_last_equals_sign() -> None:
    options = "--shape a=1x3 --shape b:0=scalar --range a=-1:2.5 --fix c=1 --fix d=0.5 --fix e=true --fix f=default"
    found = parse_arguments(["a.onnx", "-o", "b.onnx", *options.split(), "--fix", "g=h=2", "--passes", "x,m:Y"])
    assert found.shapes == {"a": (1, 3), "b:0": ()}
    assert found.ranges == {"a": (-1.0, 2.5)}
    assert found.fixed == {"c": 1, "d": 0.5, "e": True, "f": None, "g=h": 2}
    assert found.passes == ("x", "m:Y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "a=1,3"], "expected INPUT=1x3x224x224, or INPUT=scalar; found 'a=1,3'"),
        (["--shape", "1x3"], "expected INPUT=1x3x224x224; found '1x3'"),
        (["--range", "a=1"], "expected INPUT=low:high with two numbers; found 'a=1'"),
        (["--fix", "a=yes"], "expected INPUT=value: a number, true, false or default; found 'a=yes'"),
        (["--fix", "a=1", "--fix", "a=2"], "--fix a is given twice"),
        (["--passes", "a,,b"], "expected names of passes with commas between them; found 'a,,b'"),
        (["--threads", "0"], "expected a whole number of at least 1; found '0'"),
        (["--target", "tpu"], "invalid choice: 'tpu'"),
        (["--json", "b.onnx"], "--json b.onnx is a graph's file; give another name"),
    ],
)
def test_what_cannot_be_read_is_shown(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(["a.onnx", "-o", "b.onnx", *options])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
