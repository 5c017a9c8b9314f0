"""Places for the boxes of a drawing in layers: each box below all that it reads, crossings kept few, lines short.

The usual three steps of layered drawing (Sugiyama, Tagawa and Toda, 1981): layers by longest path, order within layers
by sweeps of barycentres, then places. Everything is decided by the order of what is given, so the same graph gives the
same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Layout", "lay_out"]

_SWEEPS = 8
_GAP = 24.0
_JOINT_WIDTH = 12.0


@dataclass(frozen=True)
class Layout:
    """`centres`: x and layer of each box. `routes`: for each line the x at each layer between its ends."""

    centres: tuple[tuple[float, int], ...]
    routes: tuple[tuple[float, ...], ...]
    width: float
    layers: int


def lay_out(widths: Sequence[float], lines: Sequence[tuple[int, int]]) -> Layout:
    """Boxes of these widths and lines (upper, lower) between them, without circles; upper comes first in the order."""
    layers = _layers(len(widths), lines)
    # A line that passes layers gets a joint in each, which is laid out like a narrow box.
    all_widths, all_layers, chains = list(widths), list(layers), []
    for upper, lower in lines:
        chain = [upper]
        for layer in range(layers[upper] + 1, layers[lower]):
            chain.append(len(all_widths))
            all_widths.append(_JOINT_WIDTH)
            all_layers.append(layer)
        chains.append([*chain, lower])
    links = [(one, other) for chain in chains for one, other in pairwise(chain)]
    above: list[list[int]] = [[] for _ in all_widths]
    below: list[list[int]] = [[] for _ in all_widths]
    for one, other in links:
        below[one].append(other)
        above[other].append(one)
    rows: list[list[int]] = [[] for _ in range(max(all_layers, default=-1) + 1)]
    for box, layer in enumerate(all_layers):
        rows[layer].append(box)
    _order(rows, above, below)
    places = _places(rows, all_widths, above, below)
    left = min((x - all_widths[box] / 2 for box, x in enumerate(places)), default=0.0)
    places = [x - left for x in places]
    right = max((x + all_widths[box] / 2 for box, x in enumerate(places)), default=0.0)
    routes = tuple(tuple(places[joint] for joint in chain[1:-1]) for chain in chains)
    return Layout(tuple((places[box], layers[box]) for box in range(len(widths))), routes, right, len(rows))


def _layers(count: int, lines: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path from above; boxes without anything above stand right over the first that reads them."""
    layers = [0] * count
    for _ in range(count):  # lines are nearly in order: few rounds
        changed = False
        for upper, lower in lines:
            if layers[lower] <= layers[upper]:
                layers[lower], changed = layers[upper] + 1, True
        if not changed:
            break
    lowers: list[list[int]] = [[] for _ in range(count)]
    for upper, lower in lines:
        lowers[upper].append(lower)
    fed = {lower for _, lower in lines}
    for box in range(count):
        if box not in fed and lowers[box]:
            layers[box] = min(layers[lower] for lower in lowers[box]) - 1
    return layers


def _order(rows: list[list[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> None:
    """Sorts each row by the mean place of its neighbours, downwards and upwards in turn."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        order = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for index in order:
            place = {box: at for at, box in enumerate(rows[index - 1 if down else index + 1])}
            now = {box: at for at, box in enumerate(rows[index])}
            keys = {
                box: sum(place[other] for other in neighbours[box]) / len(neighbours[box])
                if neighbours[box]
                else float(now[box])
                for box in rows[index]
            }
            rows[index].sort(key=lambda box: (keys[box], now[box]))  # used at once


def _places(
    rows: Sequence[Sequence[int]],
    widths: Sequence[float],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
) -> list[float]:
    """Centres: near the mean of all neighbours, in the rows' order, with a gap between boxes."""
    places = [0.0] * len(widths)
    for row in rows:
        x = 0.0
        for box in row:
            places[box] = x + widths[box] / 2
            x += widths[box] + _GAP
        middle = (x - _GAP) / 2
        for box in row:
            places[box] -= middle
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = [[*above[box], *below[box]] for box in row]
            wished = [
                sum(places[other] for other in others) / len(others) if others else places[box]
                for box, others in zip(row, near, strict=True)
            ]
            _settle(row, wished, widths, places)
    return places


def _settle(row: Sequence[int], wished: Sequence[float], widths: Sequence[float], places: list[float]) -> None:
    """As near to `wished` as the gaps allow: the mean of pushing to the right and pushing to the left."""
    rightwards, leftwards = list(wished), list(wished)
    for at in range(1, len(row)):
        apart = (widths[row[at - 1]] + widths[row[at]]) / 2 + _GAP
        rightwards[at] = max(rightwards[at], rightwards[at - 1] + apart)
    for at in range(len(row) - 2, -1, -1):
        apart = (widths[row[at]] + widths[row[at + 1]]) / 2 + _GAP
        leftwards[at] = min(leftwards[at], leftwards[at + 1] - apart)
    for box, one, other in zip(row, rightwards, leftwards, strict=True):
        places[box] = (one + other) / 2
