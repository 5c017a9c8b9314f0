from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import samonnx
from samonnx import cli
from samonnx.errors import SamonnxError, VerificationError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.schema import schema_text

ROOT = Path(__file__).resolve().parents[1]

Main = Callable[[Sequence[str]], int]


@pytest.fixture
def subcommand(monkeypatch: pytest.MonkeyPatch) -> Callable[[Main], None]:
    """Put a function in the place of `samonnx.golden`'s main."""

    def install(main: Main) -> None:
        module = ModuleType("samonnx.golden")
        module.main = main  # type: ignore[attr-defined]  # that is how a module gets a function
        monkeypatch.setitem(sys.modules, "samonnx.golden", module)

    return install


def raising(error: BaseException) -> Main:
    def main(argv: Sequence[str]) -> int:
        raise error

    return main


# Finding the subcommand


def test_every_subcommand_is_a_module_of_that_name() -> None:
    missing = [name for name in cli.SUBCOMMANDS if importlib.util.find_spec(f"samonnx.{name}") is None]
    assert missing == []


def test_help_lists_every_subcommand_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == ExitCode.OK
    text = capsys.readouterr().out
    for name, summary in cli.SUBCOMMANDS.items():
        assert f"  {name}" in text
        assert summary in text
    assert "example:\n  samonnx compile recipes/efficientsam3_m0_9.yaml\n" in text


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["-h"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("exit codes:"))
    assert [int(part.split()[0]) for part in line.removeprefix("exit codes:").split(";")] == [
        part.value
        for part in (ExitCode.OK, ExitCode.ERROR, ExitCode.USAGE, ExitCode.CHECK_FAILED, ExitCode.INTERRUPTED)
    ]


def test_without_arguments_help_goes_to_stderr_as_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: samonnx SUBCOMMAND")


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"samonnx {samonnx.__version__}\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "comple",
            "unknown subcommand `comple`; did you mean `compile`? subcommands: "
            "compile, track, segment, masks, bench, validate, golden, optimize, inspect, schema",
        ),
        (
            "zzz",
            "unknown subcommand `zzz`; subcommands: "
            "compile, track, segment, masks, bench, validate, golden, optimize, inspect, schema (see samonnx --help)",
        ),
        ("--verbose", "unknown option `--verbose`; subcommands: compile,"),
    ],
)
def test_an_unknown_subcommand_is_wrong_usage_with_suggestions(
    name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "recipe.yaml"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"samonnx: {said}")


def test_a_subcommand_gets_the_rest_of_the_arguments_and_its_code_is_returned(
    subcommand: Callable[[Main], None],
) -> None:
    seen: list[Sequence[str]] = []

    def main(argv: Sequence[str]) -> int:
        seen.append(list(argv))
        return 3

    subcommand(main)
    assert cli.main(["golden", "check", "--help", "r.yaml"]) == 3
    assert seen == [["check", "--help", "r.yaml"]]


# Exit codes


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SamonnxError("a.yaml:3: bad"), 1, "samonnx: a.yaml:3: bad\n"),
        (VerificationError("masks moved by 0.1"), 3, "samonnx: masks moved by 0.1\n"),
        (KeyboardInterrupt(), 130, "samonnx: interrupted\n"),
        (
            ModuleNotFoundError("No module named 'torch._C'", name="torch._C"),
            1,
            "samonnx: this command needs the package `torch`, which is not installed: pip install 'samonnx[compile]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'av'", name="av"),
            1,
            "samonnx: this command needs the package `av`, which is not installed: pip install 'samonnx[video]'\n",
        ),
    ],
)
def test_what_a_user_can_mend_ends_with_a_message_and_a_code(
    error: BaseException, code: int, said: str, subcommand: Callable[[Main], None], capsys: pytest.CaptureFixture[str]
) -> None:
    subcommand(raising(error))
    assert cli.main(["golden"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


@pytest.mark.parametrize("error", [ValueError("ours"), ModuleNotFoundError("no module 'ours'", name="ours")])
def test_our_own_mistakes_keep_their_traceback(error: Exception) -> None:
    def body() -> int:
        raise error

    with pytest.raises(type(error), match="ours"):
        run_command(body)


def test_argparse_s_code_for_wrong_usage_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["schema", "--nonsense"])
    assert caught.value.code == ExitCode.USAGE
    assert "usage: samonnx schema" in capsys.readouterr().err


# samonnx schema


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert text == schema_text()
    assert json.loads(text)["title"] == "samonnx recipe"


def test_schema_writes_a_file_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "--output", str(tmp_path / "s.json")]) == ExitCode.OK
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == schema_text()
    assert cli.main(["schema", "--output", str(tmp_path / "none" / "s.json")]) == ExitCode.ERROR
    assert capsys.readouterr().err == f"samonnx: cannot write {tmp_path}/none/s.json: No such file or directory\n"


def test_schema_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["schema", "--help"])
    assert caught.value.code == 0
    assert "example: samonnx schema --output" in capsys.readouterr().out


def test_the_module_runs_as_a_program_from_the_repository_root() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "samonnx.cli", "compil"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean `compile`?" in done.stderr
