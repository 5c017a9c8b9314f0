"""The console script `samonnx`: finds the subcommand and hands over to its module.

Each subcommand is a module with `main(argv) -> int`, imported only when it is called for, so that `samonnx track`
and `samonnx segment` run without torch, and `samonnx --help` is immediate. `python -m samonnx.<subcommand>` does the
same.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from samonnx import __version__
from samonnx.exit_codes import ExitCode, run_command

__all__ = ["SUBCOMMANDS", "main"]

SUBCOMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "compile": "compile a recipe into ONNX graphs, one weights file and a manifest",
        "track": "track objects through a video with a compiled artifact (no torch needed)",
        "segment": "find what words and boxes describe in images, with a compiled artifact (no torch needed)",
        "masks": "find everything in an image, with a compiled artifact of SAM (no torch needed)",
        "bench": "time an artifact's programs and its tracker on this machine (no torch needed)",
        "validate": "compare an artifact's tracking with the eager reference, frame by frame",
        "golden": "record an artifact's outputs, or check them against a record",
        "optimize": "rewrite any ONNX file by exact passes, with its numbers compared",
        "inspect": "print what an ONNX file holds, and draw a part of its graph",
        "schema": "print the JSON schema of recipes, for editors",
    }
)
"""Name of each subcommand (its module is `samonnx.<name>`) and what it does."""

_HELP = """\
usage: samonnx SUBCOMMAND [ARGUMENTS]

Compiles segmentation-and-tracking models into one stateless ONNX graph with an explicit memory bank.

subcommands:
{subcommands}

options:
  -h, --help   show this text (`samonnx SUBCOMMAND --help`: that of a subcommand)
  --version    show the version

example:
  samonnx compile recipes/efficientsam3_m0_9.yaml
  samonnx segment dist/efficientsam3_m0_9 photo.jpg --text "a dog" -o dogs.png
  samonnx track dist/efficientsam3_m0_9 clip.mp4 --text "a dog" -o overlay.mp4

exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 3 a check of numbers failed; 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `samonnx` with these arguments (the process's own by default) and return its exit code, an `ExitCode`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        sys.stderr.write(_help())
        return int(ExitCode.USAGE)
    name, *rest = arguments
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return int(ExitCode.OK)
    if name == "--version":
        sys.stdout.write(f"samonnx {__version__}\n")
        return int(ExitCode.OK)
    if name not in SUBCOMMANDS:
        sys.stderr.write(_unknown(name))
        return int(ExitCode.USAGE)
    return run_command(lambda: _run(name, rest))


def _run(name: str, arguments: Sequence[str]) -> int:
    return int(importlib.import_module(f"samonnx.{name}").main(arguments))


def _help() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = (f"  {name:<{width}}  {summary}" for name, summary in SUBCOMMANDS.items())
    return _HELP.format(subcommands="\n".join(lines))


def _unknown(name: str) -> str:
    what = "option" if name.startswith("-") else "subcommand"
    close = difflib.get_close_matches(name, SUBCOMMANDS, n=2)
    hint = f"did you mean {' or '.join(f'`{guess}`' for guess in close)}? " if close else ""
    return f"samonnx: unknown {what} `{name}`; {hint}subcommands: {', '.join(SUBCOMMANDS)} (see samonnx --help)\n"


if __name__ == "__main__":
    sys.exit(main())
