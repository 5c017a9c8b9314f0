"""Files of results, as commands write them: each appears whole or not at all, and none inside an artifact."""

from __future__ import annotations

import os
from pathlib import Path

from samonnx.errors import SamonnxError

__all__ = ["ResultFileError", "check_output", "replace_file"]


class ResultFileError(SamonnxError):
    """A file of results cannot be written where it was asked for."""


def check_output(path: Path, artifact: Path) -> None:
    """Raise ResultFileError if a file cannot be put there, or would lie inside the artifact folder."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ResultFileError(f"cannot write {path}: folder {folder} does not exist")
    if path.is_dir():
        raise ResultFileError(f"cannot write {path}: it is a folder; give the name of a file")
    if folder.resolve() == artifact.resolve():
        raise ResultFileError(f"cannot write {path}: it lies in the artifact folder, whose files are the compiler's")


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, aside first and then into place. Raises ResultFileError; what was there then stays."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    except OSError as error:
        raise ResultFileError(f"cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)
