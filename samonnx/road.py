"""Says where the compiler is on its road: a line a finished step with its time, a spinner on the current one."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import Progress

__all__ = ["Road"]


class Road:
    """One compile; `step` ends the step before it."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console, self.progress = console, progress
        self.task = progress.add_task("", total=None)
        self.name, self.start = "", 0.0

    def step(self, name: str) -> None:
        self.finish()
        self.name, self.start = name, time.perf_counter()
        self.progress.update(self.task, description=name)

    def finish(self) -> None:
        if self.name:
            self.console.print(
                f"  [green]done[/] {self.name:<58} {time.perf_counter() - self.start:6.1f} s", highlight=False
            )
        self.name = ""
