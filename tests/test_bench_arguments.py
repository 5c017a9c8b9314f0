from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.bench_arguments import BenchArguments, parse_arguments


def test_without_options_everything_is_timed() -> None:
    assert parse_arguments(["dist/x"]) == BenchArguments(
        folder=Path("dist/x"),
        programs=(),
        targets=(),
        providers=(),
        objects=None,
        repeats=10,
        warm_up=2,
        threads=None,
        json=None,
        plot=None,
        quiet=False,
    )


def test_repeated_options_add_up_and_what_is_named_twice_counts_once() -> None:
    options = (
        "--program track --program segment --program track --target onnx --provider CPU --provider CPUExecutionProvider"
    )
    found = parse_arguments(["x", *options.split(), "--objects", "4,1,4", "--warm-up", "0"])
    assert found.programs == ("track", "segment")
    assert (found.targets, found.providers, found.objects, found.warm_up) == (("onnx",), ("cpu",), (4, 1), 0)


def test_the_tracker_can_be_left_out() -> None:
    assert parse_arguments(["x", "--objects", "none"]).objects == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objects", "1,,2"], "expected whole numbers of at least 1 with commas between them, for example 1,2,4, or"),
        (["--objects", "0"], "for example 1,2,4, or none; found '0'"),
        (["--objects", ""], "or none; found ''"),
        (["--repeats", "0"], "expected a whole number of at least 1; found '0'"),
        (["--warm-up", "-1"], "expected a whole number of at least 0; found '-1'"),
        (["--threads", "x"], "expected a whole number of at least 1; found 'x'"),
        (["--plot", "a.pdf"], "expected the name of a .png file; found 'a.pdf'"),
        (["--quiet"], "--quiet shows no table: give --json FILE, --plot FILE.png, or both"),
        (["--json", "a.png", "--plot", "a.png"], "--json and --plot are the same file, a.png; give two names"),
        (["--prog", "track"], "unrecognized arguments: --prog track"),
    ],
)
def test_wrong_usage_says_what_was_expected(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["dist/x", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
