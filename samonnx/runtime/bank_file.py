"""Saved banks: an .npz without pickles, with a header of JSON that says what the bank belongs to."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from samonnx.errors import SamonnxError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Array

__all__ = ["BankError", "check_origin", "other_origin", "read_bank_file", "write_bank_file"]

FORMAT = 1
HEADER = "samonnx.bank"


class BankError(SamonnxError):
    """A bank that cannot be read, does not belong here, or does not hold what is asked of it."""


def write_bank_file(path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    """Write `header` (plain values) and `tensors`: aside first, then moved to `path`, so that a failure leaves an
    earlier file whole. Raises BankError."""
    path = Path(path)
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    arrays: dict[str, Array] = {HEADER: np.frombuffer(text.encode(), dtype=np.uint8), **tensors}
    try:
        with open(aside, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise BankError(f"the bank cannot be written to {path}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def read_bank_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and tensors. Raises BankError: no such file, damaged or cut short, not a bank, another format."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            tensors = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise BankError(f"bank {path} does not exist") from error
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        NotImplementedError,
        zipfile.BadZipFile,
    ) as error:
        raise BankError(f"bank {path} is damaged, cut short, or not an .npz at all ({error})") from error
    try:
        header = json.loads(tensors.pop(HEADER).tobytes())
        if header["format"] != FORMAT:
            raise BankError(f"bank {path} has format {header['format']}; this samonnx reads format {FORMAT}")
    except (KeyError, ValueError, TypeError) as error:
        raise BankError(f"{path} is an .npz, but not a bank that samonnx saved") from error
    return header, tensors


def check_origin(what: str, digest: str, recipe: str, weights: str, manifest: Manifest) -> None:
    """Raise BankError unless the bank with that digest was made by the recipe and the weights of `manifest`."""
    if digest != manifest.bank_digest:
        raise BankError(other_origin(what, recipe, weights, manifest.recipe, manifest.weights.source))


def other_origin(what: str, recipe: str, weights: str, here_recipe: str, here_weights: str) -> str:
    """The message for a bank of another origin than the one that is wanted here."""
    same = " (the same name, but another configuration or other weights)" if recipe == here_recipe else ""
    return (
        f"{what} was made by recipe {recipe!r} with weights {weights}{same}; this artifact is recipe {here_recipe!r} "
        f"with weights {here_weights}. The features of one network mean nothing to another: track from the start"
    )
