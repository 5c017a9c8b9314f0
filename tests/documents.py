"""Parts of the documents in the repository: code blocks, shell commands, tables, sections."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "Row", "blocks", "commands", "fenced", "rows", "run_guide", "section", "text_of"]

ROOT = Path(__file__).resolve().parents[1]

Row = tuple[str, ...]


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    return [block.code for block in fenced(document) if block.language == language]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title ("" without one), and what is in it."""

    language: str
    title: str
    code: str


def fenced(document: str) -> list[Block]:
    """All blocks, in order."""
    found = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text_of(document), re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def run_guide(document: str, folder: Path) -> None:
    """Run a guide from top to bottom, with `folder` as the current one: blocks with a title become files of that name,
    Python blocks without one run in one namespace, and a text block is what the block before it has printed. In it
    `...` stands for anything.
    """
    names: dict[str, object] = {"__name__": "guide"}
    printed = ""
    for number, block in enumerate(fenced(document), start=1):
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(block.code, f"{document}, block {number}", "exec"), names)
            printed = stdout.getvalue()
        elif block.language == "text":
            wanted = ".*".join(map(re.escape, block.code.strip().split("...")))
            assert re.fullmatch(wanted, printed.strip(), re.DOTALL), (
                f"{document}, block {number}: the page says\n{block.code}\nbut the block before it prints\n{printed}"
            )


def commands(document: str) -> list[list[str]]:
    """The commands of a document's shell blocks, each as its words."""
    lines = "\n".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    found = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [words for words in found if words]


def rows(text: str) -> list[Row]:
    """Cells of all tables' rows, heads included."""
    lines = [line for line in text.splitlines() if line.startswith("|") and line.strip("|-: ")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def section(text: str, heading: str) -> str:
    """From a heading to the next one of the same or a higher level."""
    level = heading.partition(" ")[0]
    return text.partition(f"{heading}\n")[2].partition(f"\n{level} ")[0]
