"""`samonnx schema`: print the JSON schema of recipe files, for editors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from samonnx.errors import SamonnxError
from samonnx.exit_codes import ExitCode, run_command
from samonnx.recipe import schema

__all__ = ["main", "schema_text"]


def schema_text() -> str:
    """The schema as the text of recipes/schema/recipe.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the schema, or write it to --output FILE; returns an `ExitCode`."""
    parser = argparse.ArgumentParser(
        prog="samonnx schema",
        description="Print the JSON schema of recipe files, which editors use to complete and check them.",
        epilog="example: samonnx schema --output recipes/schema/recipe.schema.json",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file instead of standard output")
    output: Path | None = parser.parse_args(argv).output
    return run_command(lambda: _emit(output))


def _emit(output: Path | None) -> int:
    if output is None:
        sys.stdout.write(schema_text())
        return int(ExitCode.OK)
    try:
        output.write_text(schema_text(), encoding="utf-8")
    except OSError as error:
        raise SamonnxError(f"cannot write {output}: {error.strerror or error}") from error
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
