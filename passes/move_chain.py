"""A chain of reshapes and transposes as one permutation of the factors of a shape.

A reshape regroups the digits of a row-major index, a transpose permutes groups of them. As long as every regrouping
cuts a digit into whole factors, the chain is one permutation of such factors, and adjacent factors that stay adjacent
are one again: what remains is at most Reshape, Transpose, Reshape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["Arrangement", "Steps"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Steps:
    """Reshape to `first`, Transpose by `perm`, Reshape to `last`; None: no such node."""

    first: Shape | None
    perm: Shape | None
    last: Shape | None

    @property
    def transposes(self) -> int:
        """0 or 1."""
        return int(self.perm is not None)

    @property
    def nodes(self) -> int:
        """0 to 3."""
        return sum(step is not None for step in (self.first, self.perm, self.last))


@dataclass(frozen=True)
class Arrangement:
    """How the elements of a tensor of shape `source` lie in one of shape `shape`; no dimension is 0.

    `factors` multiply to the dimensions of `source` in order, `factors[order[0]]`, `factors[order[1]]`, … to those of
    `shape`; all are above 1.
    """

    source: Shape
    shape: Shape
    factors: Shape
    order: Shape

    @classmethod
    def of(cls, shape: Shape) -> Arrangement:
        """A tensor as it is."""
        factors = tuple(size for size in shape if size > 1)
        return cls(shape, shape, factors, tuple(range(len(factors))))

    def transposed(self, perm: Sequence[int]) -> Arrangement:
        """After Transpose(perm)."""
        places = _places([self.factors[index] for index in self.order], self.shape)
        order = tuple(self.order[place] for axis in perm for place in places[axis])
        return Arrangement(self.source, tuple(self.shape[axis] for axis in perm), self.factors, order)

    def reshaped(self, shape: Shape) -> Arrangement | None:
        """After Reshape(shape); None where a dimension would have to hold part of a factor that cannot be cut."""
        parts = _cut([self.factors[index] for index in self.order], [size for size in shape if size > 1])
        if parts is None:
            return None
        by_factor = dict(zip(self.order, parts, strict=True))
        starts = [0, *itertools.accumulate(len(by_factor[index]) for index in range(len(self.factors)))]
        factors = tuple(part for index in range(len(self.factors)) for part in by_factor[index])
        order = tuple(starts[index] + offset for index in self.order for offset in range(len(by_factor[index])))
        return Arrangement(self.source, shape, factors, order)

    def steps(self) -> Steps:
        """The fewest nodes that make `shape` out of `source`."""
        if self.order == tuple(range(len(self.order))):
            return Steps(None, None, None if self.source == self.shape else self.shape)
        return min(self._transpose_first(), self._transpose_last(), self._three(), key=lambda steps: steps.nodes)

    def _three(self) -> Steps:
        factors, order = self._merged(())
        moved = tuple(factors[index] for index in order)
        first, last = tuple(factors), self.shape
        return Steps(None if first == self.source else first, tuple(order), None if moved == last else last)

    def _transpose_first(self) -> Steps:
        """Transpose the axes of `source` as they are, if none of them is cut."""
        ends = set(itertools.accumulate(len(place) for place in _places(self.factors, self.source)))
        factors, order = self._merged([end - 1 for end in ends if end])
        axes = [axis for axis, size in enumerate(self.source) if size > 1]
        if len(factors) != len(axes):
            return self._three()
        units = [axis for axis, size in enumerate(self.source) if size == 1]
        moved = [axes[index] for index in order]
        sizes = [self.source[axis] for axis in moved]
        if sizes == [size for size in self.shape if size > 1] and len(self.shape) == len(self.source):
            one, many = iter(units), iter(moved)
            return Steps(None, tuple(next(one) if size == 1 else next(many) for size in self.shape), None)
        return Steps(None, (*units, *moved), self.shape)

    def _transpose_last(self) -> Steps:
        """Transpose into the axes of `shape`, if none of them is put together."""
        ends = set(itertools.accumulate(len(p) for p in _places([self.factors[i] for i in self.order], self.shape)))
        factors, order = self._merged([self.order[end - 1] for end in ends if end])
        if len(factors) != sum(size > 1 for size in self.shape):
            return self._three()
        units = len(self.shape) - len(factors)
        one, many = iter(range(units)), iter(order)
        perm = tuple(next(one) if size == 1 else units + next(many) for size in self.shape)
        first = (*([1] * units), *factors)
        return Steps(None if first == self.source else first, perm, None)

    def _merged(self, last_before_boundary: Collection[int]) -> tuple[list[int], list[int]]:
        """(factors, order) with neighbours that stay neighbours made one, except across the given boundaries."""
        runs: list[list[int]] = []
        for index in self.order:
            if runs and runs[-1][-1] + 1 == index and runs[-1][-1] not in last_before_boundary:
                runs[-1].append(index)
            else:
                runs.append([index])
        in_source = sorted(runs)
        factors = [math.prod(self.factors[index] for index in run) for run in in_source]
        return factors, [in_source.index(run) for run in runs]


def _places(factors: Sequence[int], shape: Shape) -> list[range]:
    """Which of `factors` make up each dimension; none for a dimension of 1."""
    places, start = [], 0
    for size in shape:
        end, product = start, 1
        while product < size:
            product *= factors[end]
            end += 1
        places.append(range(start, end))
        start = end
    return places


def _cut(factors: Sequence[int], dims: Sequence[int]) -> list[list[int]] | None:
    """Each factor in parts, so that every dimension is a product of whole parts; None where that cannot be."""
    left = iter(dims)
    room = 1
    parts: list[list[int]] = []
    for factor in factors:
        rest, cut = factor, []
        while rest > 1:
            room = next(left) if room == 1 else room
            part = min(rest, room)
            if rest % part or room % part:
                return None
            cut.append(part)
            rest, room = rest // part, room // part
        parts.append(cut)
    return parts
