"""XMem's memory as a value: all that an XMemTracker remembers, in the tensors of the graph.

Unlike the banks of `samonnx.runtime.bank` it is one for all objects: keys, counters and frame indices are shared,
values and sensory state have a row for each object (samonnx.models.xmem_bank says what the tensors hold).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from samonnx.runtime.bank_file import BankError, check_origin, read_bank_file, write_bank_file
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Array

__all__ = ["XMemBank"]

FRAME_COUNT, OBJECT_SINCE = "bank.frame_count", "bank.object_since"


@dataclass(frozen=True)
class XMemBank:
    """A bank; `tensors` maps the graph's input names (`bank.working_key`, …) to arrays that are not to be written to,
    `rows` has the number of the object in each row of the graph, None for a free row. `recipe`, `weights` and `digest`
    say where the bank comes from."""

    tensors: Mapping[str, Array]
    rows: tuple[int | None, ...]
    recipe: str
    weights: str
    digest: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    @property
    def next_frame(self) -> int:
        """Index of the frame that comes next."""
        return int(self.tensors[FRAME_COUNT])

    @property
    def objects(self) -> tuple[int, ...]:
        """Numbers of the objects, in the order in which they came, by rows those that came together."""
        return objects_in_order(self.rows, self.tensors[OBJECT_SINCE])

    @classmethod
    def made_by(cls, manifest: Manifest, tensors: Mapping[str, Array], rows: tuple[int | None, ...]) -> XMemBank:
        """Raises BankError for tensors that are not those of the manifest."""
        bank = cls(tensors, rows, manifest.recipe, manifest.weights.source, manifest.bank_digest)
        return bank.checked(manifest)

    @classmethod
    def empty(cls, manifest: Manifest) -> XMemBank:
        """The bank before the first frame."""
        tensors = {pair.input: np.full(pair.shape, pair.empty, dtype=np.dtype(pair.dtype)) for pair in manifest.bank}
        return cls.made_by(manifest, tensors, (None,) * manifest.following().objects)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz: aside first, then moved to `path`, so that a failure leaves an earlier file whole."""
        header = {key: getattr(self, key) for key in ("rows", "recipe", "weights", "digest")}
        write_bank_file(path, header, self.tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], manifest: Manifest) -> XMemBank:
        """Read a saved bank for the artifact of `manifest`.

        Raises BankError: no such file, damaged or cut short, not such a bank, made by another recipe or other weights,
        tensors of another dtype or shape.
        """
        header, tensors = read_bank_file(path)
        try:
            recipe, weights, digest = str(header["recipe"]), str(header["weights"]), str(header["digest"])
            check_origin(f"bank {path}", digest, recipe, weights, manifest)
            rows = tuple(None if number is None else int(number) for number in header["rows"])
        except (KeyError, ValueError, TypeError) as error:
            raise BankError(f"{path} is an .npz, but not a bank of XMem's that samonnx saved") from error
        try:
            return cls(tensors, rows, recipe, weights, digest).checked(manifest)
        except BankError as error:
            raise BankError(f"bank {path}: {error}") from error

    def checked(self, manifest: Manifest) -> XMemBank:
        """This bank, if its digest, rows, tensors, dtypes and shapes are those of `manifest`; BankError otherwise."""
        check_origin("the bank", self.digest, self.recipe, self.weights, manifest)
        expected = {pair.input: pair for pair in manifest.bank}
        if set(expected) != set(self.tensors):
            odd = ", ".join(sorted(set(expected) ^ set(self.tensors)))
            raise BankError(f"expected the tensors {', '.join(expected)}; it differs in {odd}")
        for name, pair in expected.items():
            tensor = self.tensors[name]
            if tensor.dtype != np.dtype(pair.dtype) or tensor.shape != pair.shape:
                raise BankError(
                    f"{name}: expected {pair.dtype} {list(pair.shape)}, got {tensor.dtype} {list(tensor.shape)}"
                )
        numbers = [number for number in self.rows if number is not None]
        if len(self.rows) != manifest.following().objects or len(set(numbers)) != len(numbers):
            raise BankError(
                f"rows are {list(self.rows)}; expected {manifest.following().objects}, each a number of its own or None"
            )
        for row, (number, since) in enumerate(zip(self.rows, self.tensors[OBJECT_SINCE], strict=True)):
            if (number is None) != (int(since) < 0):
                raise BankError(
                    f"row {row} has the object {number}, but {OBJECT_SINCE} says {int(since)} for it; expected -1 for "
                    "a free row, and a frame index for one with an object"
                )
        return self


def objects_in_order(rows: tuple[int | None, ...], since: Array) -> tuple[int, ...]:
    """Numbers of the objects in `rows`, by the frame at which they came (`since` i32 [O]), then by row."""
    seated = [(int(frame), row) for row, frame in enumerate(since) if rows[row] is not None]
    return tuple(number for _, row in sorted(seated) if (number := rows[row]) is not None)
