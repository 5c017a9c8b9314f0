"""The result of the `encode` benchmark as tables on the terminal."""

from __future__ import annotations

from rich.console import Console

from benchmarks.encode_result import EncodeResult
from benchmarks.tables import agreement_table, machine_line, print_absent, profile_table, time_table, work_table

__all__ = ["encode_title", "print_encode_report"]


def encode_title(result: EncodeResult) -> str:
    return (
        f"The image encoder of {result.recipe} for tracking, image to three maps; {result.threads} threads, "
        f"{result.repeats} repeats in turn"
    )


def print_encode_report(result: EncodeResult, console: Console) -> None:
    groups = {"": result.measured}
    console.print(time_table(encode_title(result), groups))
    print_absent(console, groups)
    console.print(work_table(groups))
    console.print(agreement_table("Largest difference from eager, over eager's largest magnitude", groups))
    for variant in result.variants:
        if variant.operators:
            console.print(profile_table(f"Time by operator: {variant.name}", variant))
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)
