"""Which object has which row of which group of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import PortInfo
from samonnx.runtime.object_group import ObjectGroup

__all__ = ["Seating"]


class Seating:
    """Objects by number, in the order in which they came; groups are made as they are needed."""

    def __init__(self, new_group: Callable[[], ObjectGroup]) -> None:
        self.groups: list[ObjectGroup] = []
        self._new_group = new_group
        self._places: dict[int, tuple[ObjectGroup, int]] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._places

    @property
    def numbers(self) -> tuple[int, ...]:
        """All objects, in the order in which they came."""
        return tuple(self._places)

    def place(self, number: int) -> tuple[ObjectGroup, int]:
        """Group and row of an object."""
        return self._places[number]

    def free_place(self) -> tuple[ObjectGroup, int]:
        """A row without an object, of a new group if there is none."""
        for group in self.groups:
            row = group.free_row()
            if row is not None:
                return group, row
        self.groups.append(self._new_group())
        return self.groups[-1], 0

    def seat(self, number: int, group: ObjectGroup, row: int) -> None:
        """Note that the object has that row."""
        self._places[number] = (group, row)

    def unseat(self, number: int) -> None:
        """Take the object out, and its group if nobody is left in it; an object that is not there is let pass.

        Its row is empty then, and free for another.
        """
        place = self._places.pop(number, None)
        if place is not None:
            place[0].release(place[1])
            self.groups = [group for group in self.groups if group.objects.count(None) < len(group.objects)]

    def read(self, number: int, output: str) -> npt.NDArray[np.float32]:
        """The object's row of an output of its group's last call."""
        group, row = self._places[number]
        array: npt.NDArray[np.float32] = group.outputs[output].array[row]
        return array

    def rows(self, port: PortInfo) -> npt.NDArray[np.generic]:
        """That output for all objects: its shape and dtype, with the objects as the first axis."""
        rows = [self.read(number, port.name) for number in self._places]
        return np.array(rows, dtype=port.dtype).reshape(-1, *port.sides()[1:])
