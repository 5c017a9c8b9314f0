"""For mkdocstrings: the paragraphs of a pass's contract keep their headings; it would take `Exact:` for a call-out."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"(Exact|Declines|Cost):\s+(.*)")


class PassContracts(griffe.Extension):
    """Exact, Declines and Cost become paragraphs of their own."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """griffe calls this with each class, before its docstring is parsed."""
        if cls.docstring is not None and "\nExact: " in cls.docstring.value:
            cls.docstring.value = as_paragraphs(cls.docstring.value)


def as_paragraphs(text: str) -> str:
    """The docstring with each part of the contract as one paragraph of Markdown; the rest stays."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        heading = _HEADING.match(line)
        inside = bool(heading) or (inside and line.startswith(" "))
        if heading:
            lines += ["", f"**{heading[1]}:** {heading[2]}"]
        else:
            lines.append(line.strip() if inside else line)
    return "\n".join(lines)
