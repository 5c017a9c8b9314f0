"""Passes of other distributions, found by the entry point group `samonnx.passes`.

[project.entry-points."samonnx.passes"]
drop_dropout = "acme.passes:DropDropout"
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

__all__ = ["GROUP", "ForeignPass", "clashes", "foreign_passes"]

GROUP = "samonnx.passes"


@dataclass(frozen=True)
class ForeignPass:
    """One entry point: the pass's name, its `package.module:ClassName`, and who brings it ("acme 1.0")."""

    name: str
    target: str
    distribution: str


def foreign_passes() -> tuple[ForeignPass, ...]:
    """All entry points of the group, by name and distribution; nothing is imported."""
    found = {ForeignPass(point.name, point.value, _distribution(point)) for point in entry_points(group=GROUP)}
    return tuple(sorted(found, key=lambda one: (one.name, one.distribution, one.target)))


def clashes(foreign: Collection[ForeignPass], builtin: Collection[str]) -> tuple[str, ...]:
    """A sentence for each name that a pass of ours has already, or that several distributions give."""
    names: dict[str, list[ForeignPass]] = {}
    for one in foreign:
        names.setdefault(one.name, []).append(one)
    sentences = []
    for name, owners in names.items():
        who = " and ".join(f"{one.distribution} ({one.target})" for one in owners)
        if name in builtin:
            sentences.append(f"pass {name!r} of {who} is hidden by samonnx's own; name it as package.module:ClassName")
        elif len(owners) > 1:
            sentences.append(
                f"pass {name!r} is brought by {who}; name the one that is meant as package.module:ClassName"
            )
    return tuple(sentences)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
