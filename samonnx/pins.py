"""Branch points of a module, and the pins that decide them.

A module class that owns a branch declares it (`branch_points`) and marks it undecided in its constructor (`declare`).
`apply_pins` decides every one of them from a recipe's patterns, or stops with all that is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NoReturn

from torch import nn

from samonnx.errors import SamonnxError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "UNPINNED",
    "BranchPoint",
    "PinError",
    "PinRow",
    "PinTable",
    "PinValue",
    "Unpinned",
    "UnpinnedBranchError",
    "apply_pins",
    "declare",
]

PinValue = bool | int | float | str


class PinError(SamonnxError):
    """Pins and branch points do not fit together; the message lists every misfit."""


class UnpinnedBranchError(SamonnxError):
    """A branch point was read before a pin decided it."""


@dataclass(frozen=True)
class BranchPoint:
    """One branch of a forward path, declared in its module's `branch_points` and held in an attribute of this name.

    `allowed` lists the values; None allows any value of the type `kind` (any pin value if `kind` is None as well).
    """

    name: str
    allowed: tuple[PinValue, ...] | None
    meaning: str
    kind: type[PinValue] | None = None

    def accept(self, value: PinValue) -> PinValue | None:
        """The value as the module gets it (an int becomes a float where floats are expected), None if not allowed."""
        if self.allowed is None:
            return value if self.kind is None else _as_kind(value, self.kind)
        # True == 1 in Python, but a recipe that says 1 where true is meant is a mistake.
        return next((a for a in self.allowed if _as_kind(value, type(a)) == a), None)

    def expected(self) -> str:
        """The allowed values in words, as a recipe spells them."""
        if self.allowed is not None:
            return ", ".join(_spell(value) for value in self.allowed)
        return "any value" if self.kind is None else f"any {_KINDS[self.kind]}"


_KINDS: dict[type[PinValue], str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _as_kind(value: PinValue, kind: type[PinValue]) -> PinValue | None:
    if kind is float and type(value) is int:
        return float(value)
    return value if type(value) is kind else None


def _spell(value: PinValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Unpinned:
    """What a branch point holds until it is pinned. Any use of it as a value raises `UnpinnedBranchError`."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __repr__(self) -> str:
        return f"<unpinned {self.where}>"

    def _refuse(self, *_: object) -> NoReturn:
        raise UnpinnedBranchError(
            f"branch point {self.where} was used before it was pinned; pin it in the recipe (`pins:`) and call "
            "samonnx.pins.apply_pins on the whole model before running or tracing it"
        )

    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __call__ = _refuse
    __int__ = __float__ = __index__ = __str__ = __format__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse

    def __eq__(self, other: object) -> bool:
        self._refuse()

    def __hash__(self) -> int:
        self._refuse()


UNPINNED: Any = Unpinned("(an attribute that is not declared in `branch_points`)")
"""For annotated assignments in a constructor; `declare` replaces it by a mark that knows the attribute's name."""


def declare(module: nn.Module) -> None:
    """Mark all branch points of the module's class as undecided; to be called in its constructor, after super()."""
    for point in _declared(module):
        setattr(module, point.name, Unpinned(f"{type(module).__name__}.{point.name}"))


@dataclass(frozen=True)
class PinRow:
    """A decided branch: its `path` from the root, for example tracker.sam_mask_decoder.stability_fallback, and the
    `pattern` that decided it.

    `allowed` is None where any value of the right type is; that holds for attributes of foreign modules as well.
    """

    path: str
    value: PinValue
    allowed: tuple[PinValue, ...] | None
    meaning: str
    pattern: str


@dataclass(frozen=True)
class PinTable:
    """Every pinned branch of a model, in the order of its modules."""

    rows: tuple[PinRow, ...]

    def render(self) -> Table:
        """As a table for the terminal."""
        from rich.table import Table

        table = Table(title=f"{len(self.rows)} pinned branches", title_justify="left")
        for heading in ("branch", "value", "of", "meaning"):
            table.add_column(heading, overflow="fold")
        for row in self.rows:
            of = "" if row.allowed is None else ", ".join(map(_spell, row.allowed))
            table.add_row(row.path, _spell(row.value), of, row.meaning)
        return table

    def to_json(self) -> list[dict[str, PinValue | list[PinValue] | None]]:
        """As plain JSON values, one object a row."""
        return [
            {
                "path": row.path,
                "value": row.value,
                "allowed": None if row.allowed is None else list(row.allowed),
                "meaning": row.meaning,
                "pattern": row.pattern,
            }
            for row in self.rows
        ]


@dataclass(frozen=True)
class _Site:
    """A place that a pin can decide: an attribute of one module object, under each path that leads to it."""

    module: nn.Module
    point: BranchPoint
    paths: tuple[str, ...]
    declared: bool

    def matches(self, pattern: str) -> bool:
        return any(fnmatchcase(path, pattern) for path in self.paths)


def apply_pins(root: nn.Module, pins: Mapping[str, PinValue]) -> PinTable:
    """Decide every branch point below `root` and return what was decided.

    A pattern is a glob over full dotted paths, in which `*` matches across dots too. Besides declared branch points it
    may name plain bool, int, float or str attributes of submodules that declare none (`training` excepted, which
    `eval()` governs).

    Raises `PinError`, listing all of: branch points that no pattern decides, patterns that match nothing, values that
    are not allowed, branch points on which two patterns disagree. Nothing is set then.
    """
    sites = list(_sites(root))
    rows: list[PinRow] = []
    settings: list[tuple[_Site, PinValue]] = []
    problems: list[str] = []
    for site in sites:
        path, point = site.paths[0], site.point
        deciding = [(pattern, value) for pattern, value in pins.items() if site.matches(pattern)]
        if not deciding:
            if site.declared:
                problems.append(f"{path}: not pinned; allowed: {point.expected()} ({point.meaning})")
            continue
        pattern, value = deciding[0]
        if any(type(other) is not type(value) or other != value for _, other in deciding):
            said = ", ".join(f"`{pattern}: {_spell(value)}`" for pattern, value in deciding)
            problems.append(f"{path}: pins disagree: {said}")
        elif (accepted := point.accept(value)) is None:
            problems.append(
                f"{path}: found {_spell(value)} ({_KINDS[type(value)]}) from `{pattern}`, allowed: {point.expected()}"
            )
        else:
            settings.append((site, accepted))
            rows.append(PinRow(path, accepted, point.allowed, point.meaning, pattern))
    problems += [_unmatched(pattern, sites) for pattern in pins if not any(site.matches(pattern) for site in sites)]
    if problems:
        raise PinError(f"the recipe's pins do not fit {type(root).__name__}:\n  " + "\n  ".join(problems))
    for site, value in settings:
        setattr(site.module, site.point.name, value)
    return PinTable(tuple(rows))


def _unmatched(pattern: str, sites: list[_Site]) -> str:
    paths = [path for site in sites for path in site.paths]
    name = pattern.rpartition(".")[2]
    close = difflib.get_close_matches(pattern, paths, n=3)
    close += [path for path in paths if path.rpartition(".")[2] == name and path not in close][: 3 - len(close)]
    hint = f"; close: {', '.join(close)}" if close else ""
    return f"{pattern}: matches no branch point{hint}"


def _sites(root: nn.Module) -> Iterator[_Site]:
    # A module used in two places has two paths; a pattern may name either, and they cannot differ.
    paths: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    for path, module in root.named_modules(remove_duplicate=False):
        modules[id(module)] = module
        paths.setdefault(id(module), []).append(path)
    for key, module in modules.items():
        declared = _declared(module)
        for point in declared or _plain_attributes(module):
            full = tuple(f"{path}.{point.name}" if path else point.name for path in paths[key])
            yield _Site(module, point, full, bool(declared))


def _declared(module: nn.Module) -> tuple[BranchPoint, ...]:
    """The branch points of the module's class and its bases; a subclass's declaration replaces that of a base."""
    points: dict[str, BranchPoint] = {}
    for owner in reversed(type(module).__mro__):
        points.update({point.name: point for point in vars(owner).get("branch_points", ())})
    return tuple(points.values())


def _plain_attributes(module: nn.Module) -> Iterator[BranchPoint]:
    values: dict[str, object] = {}
    for owner in reversed(type(module).__mro__):
        if issubclass(owner, nn.Module) and owner is not nn.Module:
            values.update(vars(owner))
    values.update(vars(module))
    for name, value in values.items():
        if type(value) in _KINDS and not name.startswith("_") and name != "training":
            assert isinstance(value, bool | int | float | str)
            meaning = f"attribute of {type(module).__name__}, {_spell(value)} before"
            yield BranchPoint(name, None, meaning, type(value))
