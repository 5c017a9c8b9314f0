"""What a benchmark does with its result: tables, JSON, picture, and an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol, TypeVar

from rich.console import Console

from samonnx.errors import SamonnxError, VerificationError
from samonnx.exit_codes import ExitCode, run_command

__all__ = ["run_benchmark"]


WIDTH_OF_FILES = 150
"""Columns of what goes into a file or a pipe, where nothing says how wide it may be."""


class Result(Protocol):
    def to_json(self) -> str: ...


Found = TypeVar("Found", bound=Result)


def run_benchmark(
    args: argparse.Namespace,
    measure: Callable[[Callable[[str], None]], Found],
    report: Callable[[Found, Console], None],
    plot: Callable[[Found, argparse.Namespace], None],
    disagreement: Callable[[Found], str] = lambda _: "",
) -> int:
    """Measure, print, write what `args` asks for (`json`, `plot`), and return an `ExitCode`: CHECK_FAILED when
    `disagreement` has something to say, after all is written."""

    def body() -> int:
        for path in (args.json, args.plot):
            if path is not None and not path.parent.is_dir():
                raise SamonnxError(f"{path} cannot be written: there is no folder {path.parent}")
        with Console(stderr=True).status("") as status:
            result = measure(lambda what: status.update(what))
        console = Console()
        report(result, console if console.is_terminal else Console(width=WIDTH_OF_FILES))
        if args.json is not None:
            args.json.write_text(result.to_json())
        if args.plot is not None:
            plot(result, args)
        if wrong := disagreement(result):
            raise VerificationError(wrong)
        return ExitCode.OK

    return run_command(body)
