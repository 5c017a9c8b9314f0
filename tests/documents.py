"""Parts of the documents in the repository: code blocks, shell commands, tables, sections."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

__all__ = ["ROOT", "Row", "blocks", "commands", "rows", "section", "text_of"]

ROOT = Path(__file__).resolve().parents[1]

Row = tuple[str, ...]


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """The commands of a document's shell blocks, each as its words."""
    lines = "\n".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    found = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [words for words in found if words]


def rows(text: str) -> list[Row]:
    """Cells of all tables' rows, heads included."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def section(text: str, heading: str) -> str:
    """From a heading to the next one of the same or a higher level."""
    level = heading.partition(" ")[0]
    return text.partition(f"{heading}\n")[2].partition(f"\n{level} ")[0]
