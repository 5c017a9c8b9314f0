"""One weights file for all graphs of an artifact: every distinct tensor once, in a fixed order.

    track.onnx            ─┐  location "weights.bin", offset, length
    track.ort-cpu.onnx    ─┼─►  │ tensor │ pad │ tensor │ pad │ …
    track@first.onnx      ─┘

Tensors are the same if their bytes are: dtype, shape and name stand in the graphs. Order: by the smallest name under
which a tensor occurs, then by content, so that the file depends neither on the order of programs nor on memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import onnx_ir as ir

__all__ = ["ALIGNMENT", "EXTERNAL_FROM", "WEIGHTS_NAME", "Region", "WeightsLayout", "is_external", "lay_out"]

WEIGHTS_NAME = "weights.bin"

EXTERNAL_FROM = 1024
"""Bytes from which a tensor goes into the weights file; smaller ones are cheaper inside the graph."""

ALIGNMENT = 64
"""Offsets are multiples of this many bytes. Engines map the file at a page boundary (and round an offset down to
one), so a tensor starts on a cache line and at the width of an AVX-512 register. Whole pages would buy nothing more
and waste 2 KiB a tensor on average."""


@dataclass(frozen=True)
class Region:
    """Where a tensor lies in the weights file, in bytes."""

    offset: int
    length: int


class HasBytes(Protocol):
    """What the layout needs of a tensor: its bytes, little endian, row-major, and their number."""

    @property
    def nbytes(self) -> int: ...

    def tobytes(self) -> bytes: ...


@dataclass(frozen=True)
class WeightsLayout:
    """The plan of a weights file. Tensors are referred to, not copied."""

    regions: MappingProxyType[int, Region]
    """By `id` of the tensor object; `tensors` keeps those objects alive."""
    tensors: tuple[HasBytes, ...]
    contents: tuple[tuple[Region, HasBytes], ...]
    """What is written, in order of offsets: one tensor object for each distinct content."""
    size: int

    def region_of(self, tensor: HasBytes) -> Region:
        """The place of one of the tensors that the layout was made for."""
        return self.regions[id(tensor)]

    def write(self, path: Path) -> None:
        """Stream the file to disk and flush it there; one tensor at a time is in memory."""
        with path.open("xb") as file:
            for region, tensor in self.contents:
                file.write(bytes(region.offset - file.tell()))
                file.write(tensor.tobytes())
            file.flush()
            os.fsync(file.fileno())


def is_external(tensor: ir.TensorProtocol) -> bool:
    """True for tensors of EXTERNAL_FROM bytes or more; strings have no fixed size and stay inside."""
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= EXTERNAL_FROM


def lay_out(named_tensors: Iterable[tuple[str, HasBytes]]) -> WeightsLayout:
    """Plan the file for pairs of name and tensor; a tensor may come under several names, any number of times."""
    objects: dict[int, HasBytes] = {}
    content_of: dict[int, str] = {}
    length_of: dict[str, int] = {}
    first_name: dict[str, str] = {}
    for name, tensor in named_tensors:
        if id(tensor) not in objects:
            octets = tensor.tobytes()
            objects[id(tensor)] = tensor
            content_of[id(tensor)] = hashlib.sha256(octets).hexdigest()
            length_of[content_of[id(tensor)]] = len(octets)
        content = content_of[id(tensor)]
        first_name[content] = min(name, first_name.get(content, name))

    representatives = {content_of[key]: tensor for key, tensor in objects.items()}
    regions: dict[str, Region] = {}
    end = 0
    for content in sorted(first_name, key=lambda content: (first_name[content], content)):
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        regions[content] = Region(offset, length_of[content])
        end = offset + length_of[content]
    return WeightsLayout(
        regions=MappingProxyType({key: regions[content] for key, content in content_of.items()}),
        tensors=tuple(objects.values()),
        contents=tuple((region, representatives[content]) for content, region in regions.items()),
        size=end,
    )
