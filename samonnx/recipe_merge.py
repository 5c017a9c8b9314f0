"""A recipe file with all that it extends, and with the command line's `--set` arguments: one tree of located values."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from samonnx.recipe_problems import Origin, Problem, RecipeError, show
from samonnx.recipe_yaml import Entry, Located, parse_yaml

__all__ = ["apply_override", "read_with_bases"]


def read_with_bases(path: Path) -> Located:
    """Read a recipe file and, through `extends`, its bases; a base is named relative to the file that extends it.

    Mappings are merged key by key at all depths, the extending file's value wins; lists are replaced as a whole. The
    key `extends` is gone from the result. Raises `RecipeError`.
    """
    return _read(path, Origin(str(path)), ())


def _read(path: Path, asked_by: Origin, chain: tuple[Path, ...]) -> Located:
    resolved = path.resolve()
    if resolved in (above.resolve() for above in chain):
        circle = " → ".join(str(link) for link in (*chain, path))
        raise RecipeError([Problem(asked_by, f"`extends` goes in a circle: {circle}")])
    tree = parse_yaml(_text(path, asked_by), str(path))
    if tree.entries is None:
        found = "nothing" if tree.content is None else show(tree.plain())
        raise RecipeError(
            [Problem(tree.origin, f"found {found}, expected a recipe: a mapping with `name:`, `model:`, …")]
        )
    entries = dict(tree.entries)
    extends = entries.pop("extends", None)
    own = Located(Origin(str(path), 1), entries)
    if extends is None:
        return own
    base = extends.value.content
    if not isinstance(base, str) or not base:
        message = f"extends: found {show(extends.value.plain())}, expected the path of one recipe file"
        raise RecipeError([Problem(extends.value.origin, message)])
    return merge(_read(_beside(path, base), extends.value.origin, (*chain, path)), own)


def _beside(path: Path, base: str) -> Path:
    """`base` seen from the folder of `path`, without `x/../`, so that messages name files as a reader would."""
    raw = path.parent / base
    short = Path(os.path.normpath(raw))
    # Behind a symbolic link `x/..` is not where it seems.
    return short if short.resolve() == raw.resolve() else raw


def _text(path: Path, asked_by: Origin) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            [Problem(Origin(str(path)), f"not UTF-8 text ({error.reason} at byte {error.start})")]
        ) from error
    except OSError as error:
        what = f"cannot read {path}: {error.strerror or error}"
        raise RecipeError([Problem(asked_by, what + _similar_files(path))]) from error


def _similar_files(path: Path) -> str:
    if path.exists() or not path.parent.is_dir():
        return ""
    there = sorted(other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml"))
    close = difflib.get_close_matches(path.name, there, n=1)
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return f"; there: {', '.join(there)}" if there else ""


def merge(base: Located, over: Located) -> Located:
    """`over` on top of `base`; what stands in both as a mapping is merged, else the value of `over` is taken."""
    if base.entries is None or over.entries is None:
        return over
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        below = entries.get(key)
        entries[key] = Entry(entry.key_origin, merge(below.value, entry.value)) if below else entry
    return Located(over.origin, entries)


def apply_override(tree: Located, argument: str, dotted_keys: Sequence[tuple[str, ...]]) -> Located:
    """Apply one `--set a.b.c=value`; the value is YAML (`4`, `true`, `[onnx]`) and replaces what was there.

    In the mappings at `dotted_keys` a key may hold dots itself: there all the rest of the path is the key.
    Raises `RecipeError` naming the argument. Whether the key exists is left to validation.
    """
    origin = Origin(f"--set {argument}")
    path, equals, text = argument.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        message = "expected key.key=value, such as --set memory.recent_slots=4"
        raise RecipeError([Problem(origin, message)])
    if keys[0] == "extends":
        raise RecipeError([Problem(origin, "`extends` can stand in files only")])
    for mapping in dotted_keys:
        if tuple(keys[: len(mapping)]) == mapping and len(keys) > len(mapping):
            keys = [*mapping, ".".join(keys[len(mapping) :])]
    value = parse_yaml(text, origin.source, lines=False)
    return _replace(tree, keys, 0, value, origin)


def _replace(tree: Located, keys: Sequence[str], depth: int, value: Located, origin: Origin) -> Located:
    if depth == len(keys):
        return value
    entries: Mapping[str, Entry] = tree.entries or {}
    if tree.entries is None and tree.content is not None:
        here = ".".join(keys[:depth])
        hint = f"; set it as a whole: --set {here}=[…]" if isinstance(tree.content, tuple) else ""
        raise RecipeError([Problem(origin, f"`{here}` is {show(tree.plain())}, which has no keys{hint}")])
    key = keys[depth]
    below = entries.get(key, Entry(origin, Located(origin, None)))
    # A mapping on the way keeps its place: what is missing in it is missing in the file.
    key_origin = origin if depth + 1 == len(keys) else below.key_origin
    replaced = Entry(key_origin, _replace(below.value, keys, depth + 1, value, origin))
    return Located(tree.origin, {**entries, key: replaced})
