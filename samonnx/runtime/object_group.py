"""As many objects as the graph has rows, with a bank that stays where it is.

The bank lies in two sets of buffers. A call reads one set and writes the other (I/O binding), and the roles change
when the call is accepted: nothing is copied between frames, and the bank before the last frame is still there when
that frame is to be run again for a correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from samonnx.errors import SamonnxError
from samonnx.runtime.bank import empty_rows
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.session import Array, Session, SessionError

__all__ = ["BoundArray", "ObjectGroup", "RowInputs", "SharedInputs"]

READ_OUTPUTS = ("low_res_masks", "ious", "iou", "mask_choice", "object_score")
"""What the tracker reads; other outputs (full-size logits, the pointer) are left unbound and never copied."""


class BoundArray:
    """A numpy array and the OrtValue that lies over the same memory: what is written to one is seen by the other."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.value = onnxruntime.OrtValue.ortvalue_from_numpy(array)


class SharedInputs:
    """The inputs that all groups have in common: `image`, `frame_index`, `num_frames`."""

    def __init__(self, size: int) -> None:
        self.image = BoundArray(np.zeros((1, 3, size, size), dtype=np.float32))
        self.frame_index = BoundArray(np.zeros((), dtype=np.int32))
        self.num_frames = BoundArray(np.zeros((), dtype=np.int32))

    def bound(self) -> dict[str, BoundArray]:
        return {"image": self.image, "frame_index": self.frame_index, "num_frames": self.num_frames}


@dataclass(frozen=True, eq=False)
class RowInputs:
    """One object's inputs on one frame, as the graph takes them. The defaults mean: no prompt, follow the memory."""

    coordinates: npt.NDArray[np.float32] | None = None
    """f32 [K, 2] in the S x S image."""
    labels: npt.NDArray[np.int32] | None = None
    """i32 [K]."""
    mask: npt.NDArray[np.float32] | None = None
    """f32 [S, S]."""
    previous_logits: npt.NDArray[np.float32] | None = None
    """f32 [1, 4h, 4w]."""
    attend_memory: bool = True


class ObjectGroup:
    """The rows of one graph call."""

    def __init__(self, manifest: Manifest, shared: SharedInputs) -> None:
        self._manifest = manifest
        self.objects: list[int | None] = [None] * manifest.tracking().objects
        general = manifest.program("track")
        self._inputs = shared.bound()
        for port in general.inputs:
            if port.name not in self._inputs and not port.name.startswith("bank."):
                self._inputs[port.name] = BoundArray(np.zeros(port.sides(), dtype=np.dtype(port.dtype)))
        self.outputs = {
            port.name: BoundArray(np.zeros(port.sides(), dtype=np.dtype(port.dtype)))
            for port in general.outputs
            if port.name in READ_OUTPUTS
        }
        rows = manifest.tracking().objects
        self._banks = tuple(
            {pair.input: BoundArray(empty_rows(pair, rows)) for pair in manifest.bank} for _ in range(2)
        )
        self._holds_nothing = [True, True]
        self._current = 0
        self._accepted_frame: int | None = None
        self._bindings: dict[int, onnxruntime.IOBinding] = {}
        self._bound: Session | None = None
        for row in range(rows):
            self.set_row(row, RowInputs())

    @property
    def holds_nothing(self) -> bool:
        """Whether the whole current bank is empty."""
        return self._holds_nothing[self._current]

    @property
    def filled_slots(self) -> int:
        """The slots of the current bank from this one on are empty, for all rows; 0: all slots are."""
        frames = self._banks[self._current].get("bank.memory_frame")
        if frames is None:
            return 0  # then no program is made for a number of slots either (Manifest)
        filled = np.asarray(frames.array, dtype=np.int32) >= 0
        return int(np.flatnonzero(filled.any(axis=0)).max(initial=-1)) + 1

    def free_row(self) -> int | None:
        """A row without an object, or None."""
        return self.objects.index(None) if None in self.objects else None

    def assign(self, row: int, number: int) -> None:
        """Give the row to an object, with an empty bank (an idle row has gathered noise)."""
        self.objects[row] = number
        for pair in self._manifest.bank:
            self._banks[self._current][pair.input].array[row] = pair.empty

    def release(self, row: int) -> None:
        """Take the object out of the row, with its prompts and its bank.

        The bank before the last frame goes too: a correction of the other objects would go back to it.
        """
        self.objects[row] = None
        self.set_row(row, RowInputs())
        for bank in self._banks:
            for pair in self._manifest.bank:
                bank[pair.input].array[row] = pair.empty

    def set_row(self, row: int, given: RowInputs) -> None:
        """Fill one row of the prompt inputs; raises SessionError if the graph lacks an input that is needed."""
        self._write("point_coords", row, given.coordinates, 0)
        self._write("point_labels", row, given.labels, -1)
        self._write("attend_memory", row, given.attend_memory, False)
        self._write("mask_prompt", row, given.mask, 0)
        self._write("mask_prompt_valid", row, True if given.mask is not None else None, False)
        self._write("prev_logits", row, given.previous_logits, 0)
        self._write("prev_logits_valid", row, True if given.previous_logits is not None else None, False)

    def _write(self, name: str, row: int, value: npt.ArrayLike | None, otherwise: float) -> None:
        bound = self._inputs.get(name)
        if bound is not None:
            bound.array[row] = otherwise if value is None else value
        elif value is not None and name != "attend_memory":
            raise SessionError(
                f"the graph has no input {name!r}: recipe {self._manifest.recipe!r} was compiled without it"
            )

    def rewind_to(self, frame_index: int) -> bool:
        """If the last accepted call was for this frame, go back to the bank before it; says whether it did."""
        if self._accepted_frame != frame_index:
            return False
        self._current = 1 - self._current
        self._accepted_frame = None
        return True

    def run(self, session: Session) -> None:
        """Run the graph from the current bank into the other set; `accept` makes that one current."""
        try:
            session.engine.run_with_iobinding(self._binding(session))
        except SamonnxError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise SessionError(f"program {session.program.name!r} failed in ONNX Runtime: {error}") from error

    def accept(self, frame_index: int) -> None:
        """Make the bank that the last call wrote the current one."""
        self._current = 1 - self._current
        self._holds_nothing[self._current] = False
        self._accepted_frame = frame_index

    def unbind(self) -> None:
        """Let go of the session of the last call, so that it can be closed."""
        self._bindings.clear()
        self._bound = None

    def bank_rows(self) -> dict[str, Array]:
        """The current bank: `bank.*` name -> array [rows, …]; not copied."""
        return {name: bound.array for name, bound in self._banks[self._current].items()}

    def fill(self, row: int, number: int, tensors: Mapping[str, Array]) -> None:
        """Put an object with a bank of its own into a row, when restoring; `tensors` have no row axis."""
        self.objects[row] = number
        for name, tensor in tensors.items():
            self._banks[self._current][name].array[row] = tensor
        self._holds_nothing[self._current] = False

    def _binding(self, session: Session) -> onnxruntime.IOBinding:
        """Made once for each session and direction; the buffers never move."""
        if session is not self._bound:
            self.unbind()
            self._bound = session
        if self._current in self._bindings:
            return self._bindings[self._current]
        source, target = self._banks[self._current], self._banks[1 - self._current]
        binding = session.engine.io_binding()
        for port in session.program.inputs:
            bound = source.get(port.name) or self._inputs.get(port.name)
            if bound is None or bound.array.shape != port.sides() or bound.array.dtype != np.dtype(port.dtype):
                raise SessionError(
                    f"program {session.program.name!r} has an input {port.name!r} ({port}) that the tracker cannot fill"
                )
            binding.bind_ortvalue_input(port.name, bound.value)
        there = {port.name for port in session.program.outputs}
        wanted = {name: bound.value for name, bound in self.outputs.items()}
        wanted |= {pair.output: target[pair.input].value for pair in self._manifest.bank}
        for name, value in wanted.items():
            if name not in there:
                raise SessionError(f"program {session.program.name!r} has no output {name!r}, which the tracker needs")
            binding.bind_ortvalue_output(name, value)
        self._bindings[self._current] = binding
        return binding
