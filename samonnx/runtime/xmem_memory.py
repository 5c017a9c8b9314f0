"""XMem's bank in buffers that stay where they are, and calls of graphs from it into it (I/O binding).

Every tensor has two buffers. A call reads the current one of each and writes the other one of those that the graph
gives; the roles change when the call is accepted. Tensors that a graph does not give stay where they are, so that an
ordinary frame moves the counters and the sensory state alone. The bank before the last step is still there when that
frame is to be run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import Manifest, ManifestError
from samonnx.runtime.object_group import BoundArray
from samonnx.runtime.session import Session, SessionError
from samonnx.runtime.xmem_bank import XMemBank, objects_in_order

__all__ = ["XMemMemory"]

READ_HERE = (
    "working_frame",
    "long_frame",
    "long_use",
    "long_count",
    "sensory",
    "object_since",
    "frame_count",
    "last_memory",
)
"""Tensors of the bank that the runtime looks at, or writes to."""


class XMemMemory:
    """The bank of one clip. Raises ManifestError for an artifact whose bank is not XMem's."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._pairs = {pair.input: pair for pair in manifest.bank}
        self._every = manifest.following().every
        missing = [name for name in READ_HERE if f"bank.{name}" not in self._pairs]
        if missing:
            raise ManifestError(
                f"the artifact of recipe {manifest.recipe!r} has XMem's memory, but its bank lacks "
                f"{', '.join(missing)}. Compile the recipe again, with `track` and `consolidate`"
            )
        self.rows: list[int | None] = []
        self._buffers: dict[str, list[BoundArray]] = {}
        self._current: dict[str, int] = {}
        self._written: tuple[str, ...] = ()
        self._before: dict[str, int] | None = None
        self.restore(XMemBank.empty(manifest))

    @property
    def objects(self) -> tuple[int, ...]:
        """Numbers of the objects, in the order in which they came."""
        return objects_in_order(tuple(self.rows), self._array("object_since"))

    @property
    def next_frame(self) -> int:
        """Index of the frame that comes next."""
        return int(self._array("frame_count"))

    @property
    def memory_is_due(self) -> bool:
        """Whether the next frame is a memory frame even if no mask is given on it."""
        return self.next_frame - int(self._array("last_memory")) >= self._every

    @property
    def is_full(self) -> bool:
        """Whether consolidation is due before the next frame."""
        return bool((self._array("working_frame") >= 0).all())

    def seats(self) -> dict[int, int]:
        """Object number → its row."""
        return {number: row for row, number in enumerate(self.rows) if number is not None}

    def run(self, session: Session, inputs: Mapping[str, BoundArray], outputs: Mapping[str, BoundArray]) -> None:
        """Run a graph from the current bank into the other buffers; `accept` makes what was written the bank.

        `inputs` and `outputs` are those beside the bank. Raises SessionError.
        """
        binding = session.engine.io_binding()
        for port in session.program.inputs:
            bound = self._source(port.name) if port.name in self._pairs else inputs.get(port.name)
            if bound is None or bound.array.shape != port.sides() or bound.array.dtype != np.dtype(port.dtype):
                raise SessionError(
                    f"program {session.program.name!r} has an input {port.name!r} ({port}) that the tracker cannot fill"
                )
            binding.bind_ortvalue_input(port.name, bound.value)
        given = {port.name for port in session.program.outputs}
        for name, bound in outputs.items():
            if name not in given:
                raise SessionError(f"program {session.program.name!r} has no output {name!r}, which the tracker needs")
            binding.bind_ortvalue_output(name, bound.value)
        written = tuple(name for name, pair in self._pairs.items() if pair.output in given)
        for name in written:
            binding.bind_ortvalue_output(self._pairs[name].output, self._target(name).value)
        try:
            session.engine.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise SessionError(f"program {session.program.name!r} failed in ONNX Runtime: {error}") from error
        self._written = written

    def accept(self, *, as_step: bool = True) -> None:
        """Make what the last call wrote the bank; `as_step`: it can be taken back by `rewind` (a consolidation is part
        of the step after it)."""
        self._before = dict(self._current) if as_step else None
        for name in self._written:
            self._current[name] = 1 - self._current[name]
        self._written = ()

    def rewind(self) -> bool:
        """Go back to the bank before the last step, objects that came with it included; says whether it was there.

        The next call overwrites the bank after that step."""
        if self._before is None:
            return False
        self._current, self._before = self._before, None
        since = self._array("object_since")
        self.rows = [number if since[row] >= 0 else None for row, number in enumerate(self.rows)]
        return True

    def skip_frame(self) -> None:
        """Pass over a frame without objects, as a step: exactly what the graph would do to the bank."""
        self._target("bank.frame_count").array[...] = self.next_frame + 1
        self._written = ("bank.frame_count",)
        self.accept()

    def remove(self, number: int) -> None:
        """Take an object out of its row.

        Frames from before the first of the remaining objects can be read by none: their working slots become free, and
        their long-term elements the first to go at the next removal of obsolete ones. Without any object left the
        memory is empty. Values in the row stay, since an object reads those of its own frames only.
        """
        row = self.rows.index(number)
        self.rows[row] = None
        for name, free in (("object_since", -1), ("sensory", 0)):
            for array in self._all(name):
                array[row] = free
        left = self._array("object_since")[self._array("object_since") >= 0]
        first = left.min() if left.size else np.iinfo(np.int32).max
        for frames in self._all("working_frame"):
            frames[frames < first] = -1
        unread = self._array("long_frame") < first
        for use in self._all("long_use"):
            use[unread] = 0
        if not left.size:
            for name in ("long_count", "last_memory"):
                for array in self._all(name):
                    array[...] = 0

    def bank(self) -> XMemBank:
        """A copy of the bank."""
        tensors = {name: self._source(name).array.copy() for name in self._pairs}
        return XMemBank.made_by(self._manifest, tensors, tuple(self.rows))

    def restore(self, bank: XMemBank) -> None:
        """Go on from a bank. Raises BankError if it belongs to another recipe or other weights."""
        bank.checked(self._manifest)
        for name in self._pairs:
            self._current[name] = 0
            if name in self._buffers:
                self._buffers[name][0].array[...] = bank.tensors[name]
            else:
                self._buffers[name] = [BoundArray(np.array(bank.tensors[name], order="C"))]
        self.rows, self._before, self._written = list(bank.rows), None, ()

    def _array(self, name: str) -> npt.NDArray[Any]:
        return self._source(f"bank.{name}").array

    def _all(self, name: str) -> list[npt.NDArray[Any]]:
        """Both buffers of a tensor, as far as they are there."""
        return [bound.array for bound in self._buffers[f"bank.{name}"]]

    def _source(self, name: str) -> BoundArray:
        return self._buffers[name][self._current[name]]

    def _target(self, name: str) -> BoundArray:
        """The buffer that is not the current one, made when it is first needed."""
        pair, buffers = self._pairs[name], self._buffers[name]
        if len(buffers) == 1:
            buffers.append(BoundArray(np.full(pair.shape, pair.empty, dtype=np.dtype(pair.dtype))))
        return buffers[1 - self._current[name]]
