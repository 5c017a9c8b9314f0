"""For mkdocs: links to files of the repository outside docs/ are links on a code host, and plain words on the site."""

from __future__ import annotations

import re

_BEYOND = re.compile(r"\[([^\]]+)\]\(\.\./(?!guides/|reference/)[^)]+\)")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """mkdocs calls this with the text of each page."""
    nested = "/" in str(getattr(getattr(page, "file", None), "src_uri", ""))
    return markdown if nested else _BEYOND.sub(r"\1", markdown)
