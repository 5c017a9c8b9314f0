"""The result of the `track` benchmark as tables on the terminal."""

from __future__ import annotations

from rich.console import Console

from benchmarks.tables import agreement_table, machine_line, print_absent, profile_table, time_table, work_table
from benchmarks.track_result import TrackResult

__all__ = ["print_track_report", "track_title"]


def track_title(result: TrackResult) -> str:
    bank = "full bank" if result.full_bank else f"{result.frames} earlier frames"
    return (
        f"One tracking step of {result.recipe}, image encoder included: {bank} ({result.memories} memories, "
        f"{result.pointers} pointers), one object; {result.threads} threads, {result.repeats} repeats in turn"
    )


def print_track_report(result: TrackResult, console: Console) -> None:
    groups = {"": result.measured}
    console.print(time_table(track_title(result), groups))
    print_absent(console, groups)
    console.print(work_table(groups))
    seen = ", present" if result.object_score > 0 else " (object absent: masks and pointer are constants)"
    title = f"Largest difference from eager, over eager's largest magnitude; object score {result.object_score:.2f}"
    console.print(agreement_table(title + seen, groups))
    for variant in result.variants:
        if variant.operators:
            console.print(profile_table(f"Time by operator: {variant.name}", variant))
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)
