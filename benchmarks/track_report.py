"""The result of the `track` benchmark as tables on the terminal."""

from __future__ import annotations

from rich.console import Console

from benchmarks.tables import agreement_table, machine_line, profile_table, time_table, work_table
from benchmarks.track_result import TrackResult

__all__ = ["print_track_report"]


def print_track_report(result: TrackResult, console: Console) -> None:
    bank = "full bank" if result.full_bank else f"{result.frames} earlier frames"
    title = (
        f"One tracking step of {result.recipe}, image encoder included: {bank} ({result.memories} memories, "
        f"{result.pointers} pointers), one object; {result.threads} threads, {result.repeats} repeats in turn"
    )
    groups = {"": result.variants}
    console.print(time_table(title, groups))
    console.print(work_table(groups))
    seen = ", present" if result.object_score > 0 else " (object absent: masks and pointer are constants)"
    title = f"Largest difference from eager, over eager's largest magnitude; object score {result.object_score:.2f}"
    console.print(agreement_table(title + seen, groups))
    for variant in result.variants:
        if variant.operators:
            console.print(profile_table(f"Time by operator: {variant.name}", variant))
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)
