"""The memory bank as a value: all that a tracker remembers, in arrays whose first axis is the object.

A bank belongs to one recipe and one set of weights (`Manifest.bank_digest`): its features mean nothing to another
network, so loading it elsewhere is refused. On disk it is an .npz without pickles.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from samonnx.runtime.bank_file import BankError, check_origin, other_origin, read_bank_file, write_bank_file
from samonnx.runtime.manifest import BankPair, Manifest
from samonnx.runtime.session import Array

__all__ = ["Bank", "BankError", "empty_rows"]

FRAME_TENSOR = "bank.memory_frame"


@dataclass(frozen=True)
class Bank:
    """A bank, one row an object.

    `tensors` maps the graph's input names (`bank.memory`, …) to arrays whose first axis has the length of `objects`;
    they are not to be written to. `objects` are the caller's numbers of the objects, `next_frame` the index of the
    frame that comes next. `recipe`, `weights` and `digest` say where the bank comes from.
    """

    tensors: Mapping[str, Array]
    objects: tuple[int, ...]
    next_frame: int
    recipe: str
    weights: str
    digest: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        if len(set(self.objects)) != len(self.objects):
            raise BankError(f"objects {list(self.objects)}: a number stands twice")
        for name, tensor in self.tensors.items():
            if tensor.ndim == 0 or tensor.shape[0] != len(self.objects):
                raise BankError(
                    f"{name}: expected {len(self.objects)} rows, one an object, found shape {list(tensor.shape)}"
                )

    @classmethod
    def empty(cls, manifest: Manifest, objects: Sequence[int] | None = None) -> Bank:
        """A bank in which nothing has been seen; by default as many objects as the graph has rows, numbered from 0."""
        numbers = tuple(range(manifest.tracking().objects)) if objects is None else tuple(objects)
        tensors = {pair.input: empty_rows(pair, len(numbers)) for pair in manifest.bank}
        return cls._made_by(manifest, tensors, numbers, 0)

    @classmethod
    def from_outputs(
        cls, manifest: Manifest, outputs: Mapping[str, Array], objects: Sequence[int] | None = None, next_frame: int = 0
    ) -> Bank:
        """The bank that a call of the graph gave back (its `next_bank.*` outputs); other outputs are left aside."""
        numbers = tuple(range(manifest.tracking().objects)) if objects is None else tuple(objects)
        missing = [pair.output for pair in manifest.bank if pair.output not in outputs]
        if missing:
            raise BankError(f"outputs {', '.join(missing)} are missing; pass all that the graph gave")
        tensors = {pair.input: np.asarray(outputs[pair.output]) for pair in manifest.bank}
        return cls._made_by(manifest, tensors, numbers, next_frame).checked(manifest)

    @classmethod
    def _made_by(cls, manifest: Manifest, tensors: Mapping[str, Array], objects: tuple[int, ...], frame: int) -> Bank:
        return cls(tensors, objects, frame, manifest.recipe, manifest.weights.source, manifest.bank_digest)

    def select(self, objects: Sequence[int]) -> Bank:
        """The bank of some of the objects, in the order asked for (copied). BankError if one is not there."""
        missing = [number for number in objects if number not in self.objects]
        if missing:
            raise BankError(f"the bank has no object {missing[0]}; it has: {list(self.objects)}")
        rows = [self.objects.index(number) for number in objects]
        return replace(self, tensors={name: t[rows] for name, t in self.tensors.items()}, objects=tuple(objects))

    def with_object_rows(self, other: Bank) -> Bank:
        """Both banks' objects in one; an object that is in both is taken from `other`. `next_frame` must agree."""
        if other.digest != self.digest:
            raise BankError(other_origin("the bank to add", other.recipe, other.weights, self.recipe, self.weights))
        if other.next_frame != self.next_frame:
            raise BankError(
                f"one bank continues at frame {self.next_frame}, the other at {other.next_frame}; "
                f"only banks of the same moment can be joined"
            )
        kept = self.select([number for number in self.objects if number not in other.objects])
        tensors = {name: np.concatenate([t, other.tensors[name]]) for name, t in kept.tensors.items()}
        return replace(self, tensors=tensors, objects=kept.objects + other.objects)

    def clone(self) -> Bank:
        """The same bank in memory of its own."""
        return replace(self, tensors={name: tensor.copy() for name, tensor in self.tensors.items()})

    def frames(self) -> tuple[tuple[int, ...], ...]:
        """For each object, the indices of the frames whose memory is held, in order."""
        if FRAME_TENSOR not in self.tensors:
            raise BankError(f"the bank has no tensor {FRAME_TENSOR!r}; it has: {', '.join(self.tensors)}")
        return tuple(tuple(sorted(int(f) for f in row if f != -1)) for row in self.tensors[FRAME_TENSOR])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz: aside first, then moved to `path`, so that a failure leaves an earlier file whole."""
        header = {key: getattr(self, key) for key in ("objects", "next_frame", "recipe", "weights", "digest")}
        write_bank_file(path, header, self.tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], manifest: Manifest) -> Bank:
        """Read a saved bank for the artifact of `manifest`.

        Raises BankError: no such file, damaged or cut short, not a bank, made by another recipe or other weights,
        tensors of another dtype or shape.
        """
        header, tensors = read_bank_file(path)
        try:
            objects, frame = tuple(int(number) for number in header["objects"]), int(header["next_frame"])
            recipe, weights, digest = str(header["recipe"]), str(header["weights"]), str(header["digest"])
        except (KeyError, ValueError, TypeError) as error:
            raise BankError(f"{path} is an .npz, but not a bank that samonnx saved") from error
        check_origin(f"bank {path}", digest, recipe, weights, manifest)
        try:
            return cls(tensors, objects, frame, recipe, weights, digest).checked(manifest)
        except BankError as error:
            raise BankError(f"bank {path}: {error}") from error

    def checked(self, manifest: Manifest) -> Bank:
        """This bank, if its digest, tensors, dtypes and shapes are those of `manifest`; BankError otherwise."""
        check_origin("the bank", self.digest, self.recipe, self.weights, manifest)
        expected = {pair.input: pair for pair in manifest.bank}
        if set(expected) != set(self.tensors):
            odd = ", ".join(sorted(set(expected) ^ set(self.tensors)))
            raise BankError(f"expected the tensors {', '.join(expected)}; it differs in {odd}")
        for name, pair in expected.items():
            shape = (len(self.objects), *pair.shape[1:])
            tensor = self.tensors[name]
            if tensor.dtype != np.dtype(pair.dtype) or tensor.shape != shape:
                raise BankError(f"{name}: expected {pair.dtype} {list(shape)}, got {tensor.dtype} {list(tensor.shape)}")
        return self


def empty_rows(pair: BankPair, rows: int) -> Array:
    """`rows` objects' worth of one bank tensor, filled with what an empty slot holds."""
    return np.full((rows, *pair.shape[1:]), pair.empty, dtype=np.dtype(pair.dtype))
