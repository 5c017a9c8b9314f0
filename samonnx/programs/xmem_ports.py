"""Inputs, outputs and bank of XMem's programs (docs/reference/xmem-bank.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from samonnx.models.xmem import STRIDE, XMemWidths
from samonnx.models.xmem_bank import MemorySizes, XMemBank
from samonnx.models.xmem_masks import padded_size
from samonnx.programs.program import BankTensor, Port

__all__ = ["XMemSizes", "bank_ports", "bank_tensors", "frame_ports", "next_ports", "probabilities_port"]

_EMPTY = {
    "working_frame": -1,
    "long_frame": -1,
    "object_since": -1,
    "long_count": 0,
    "frame_count": 0,
    "last_memory": 0,
}
"""What an empty bank holds; 0.0 in all others."""

_MEANINGS = {
    "working_key": ("keys of the slots' elements, row by row of the grid", "finite"),
    "working_shrinkage": ("shrinkage of the slots' elements", "1 …"),
    "working_selection": ("selection of the slots' elements, which consolidation alone reads", "0 … 1"),
    "working_value": ("values of the slots' elements, an object's own", "finite"),
    "working_use": ("sum of the weights with which the element was read", "0 …"),
    "working_life": ("readings since the element was written, + 1e-7", "0 …"),
    "working_frame": ("frame index of each slot; -1: the slot is empty", "-1, 0 … 2^29"),
    "long_key": ("keys of long-term elements", "finite"),
    "long_shrinkage": ("shrinkage of long-term elements", "1 …"),
    "long_value": ("values of long-term elements, an object's own", "finite"),
    "long_use": ("as working_use", "0 …"),
    "long_life": ("as working_life", "0 …"),
    "long_frame": ("frame that the element was chosen from", "-1, 0 … 2^29"),
    "long_count": ("long-term elements; they stand in the first places, the others are empty", "0 …"),
    "sensory": ("sensory state, one map an object", "finite"),
    "object_since": ("frame at which the object was first given a mask; -1: the row has no object", "-1, 0 … 2^29"),
    "frame_count": ("frames so far, which is the index of the next one", "0 … 2^29"),
    "last_memory": ("the latest memory frame; 0 before there is one", "0 … 2^29"),
}


@dataclass(frozen=True)
class XMemSizes:
    """All that ports and components are sized by: frames of `height` x `width` pixels, `objects` rows."""

    widths: XMemWidths
    memory: MemorySizes
    objects: int
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """Cells of the padded frame."""
        return padded_size(self.height) // STRIDE, padded_size(self.width) // STRIDE

    def bank_shape(self, field: str) -> tuple[int, ...]:
        """Of a tensor of the bank."""
        o, slots, places = self.objects, self.memory.working_frames, self.memory.long_term
        cells, key, value = self.grid[0] * self.grid[1], self.widths.key, self.widths.value
        shapes: dict[str, tuple[int, ...]] = {
            "working_key": (slots, cells, key),
            "working_selection": (slots, cells, key),
            "working_value": (o, slots, cells, value),
            "working_frame": (slots,),
            "long_key": (places, key),
            "long_value": (o, places, value),
            "sensory": (o, self.widths.sensory, *self.grid),
            "object_since": (o,),
            "long_count": (),
            "frame_count": (),
            "last_memory": (),
        }
        return shapes.get(field, (slots, cells) if field.startswith("working_") else (places,))


def bank_tensors(fields: Iterable[str]) -> tuple[BankTensor, ...]:
    """In the order of the bank, whatever the order of `fields`."""
    wanted = set(fields)
    return tuple(BankTensor(name, _EMPTY.get(name, 0.0)) for name in XMemBank._fields if name in wanted)


def bank_ports(sizes: XMemSizes, fields: Iterable[str]) -> tuple[Port, ...]:
    """The inputs `bank.*`."""
    return tuple(
        Port(
            tensor.input,
            "int32" if tensor.name in _EMPTY else "float32",
            sizes.bank_shape(tensor.name),
            *_MEANINGS[tensor.name],
        )
        for tensor in bank_tensors(fields)
    )


def next_ports(sizes: XMemSizes, fields: Iterable[str]) -> tuple[Port, ...]:
    """The outputs `next_bank.*`."""
    return tuple(replace(port, name=f"next_{port.name}") for port in bank_ports(sizes, fields))


def frame_ports(sizes: XMemSizes) -> tuple[Port, ...]:
    """The inputs of a step beside the bank."""
    o, frame = sizes.objects, (sizes.height, sizes.width)
    return (
        Port("image", "float32", (1, 3, *frame), "normalised frame", ""),
        Port("masks", "float32", (o, *frame), "masks given on this frame, looked at where is_given", "0 or 1"),
        Port("is_given", "bool", (o,), "whether the object is given a mask; its first one makes it an object", ""),
        Port(
            "memory_frame",
            "bool",
            (),
            "whether the frame joins the memory: a mask is given, or memory.every frames have passed since "
            "bank.last_memory, and it is not the last frame",
            "",
        ),
        Port("last_frame", "bool", (), "the clip ends here: sensory state and memory are left as they are", ""),
    )


def probabilities_port(sizes: XMemSizes) -> Port:
    """What a step gives beside the bank."""
    return Port(
        "probabilities",
        "float32",
        (1 + sizes.objects, sizes.height, sizes.width),
        "background, then the objects, summing to 1 at every pixel; 0 for rows without an object",
        "0 … 1",
    )
