"""The result of the `segment` benchmark as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.segment_result import ProgramResult, SegmentResult
from benchmarks.tables import agreement_table, machine_line, print_absent, profile_table, time_table, work_table

__all__ = ["print_segment_report", "segment_title"]


def segment_title(result: SegmentResult) -> str:
    return (
        f"Image, words and a box to detections with {result.recipe}, and the parts alone; {result.threads} threads, "
        f"{result.repeats} repeats in turn"
    )


def print_segment_report(result: SegmentResult, console: Console) -> None:
    groups = {program.program: program.measured for program in result.programs}
    remark = " PyTorch always holds the whole model: no figure for eager on parts without an image."
    console.print(time_table(segment_title(result), groups, remark))
    print_absent(console, groups)
    console.print(work_table(groups))
    title = (
        "Largest difference from eager, over eager's largest magnitude (of flags: how many differ); allowed: "
        f"{', '.join(_allowed(program) for program in result.programs)}"
    )
    console.print(agreement_table(title, groups))
    if result.word_costs():
        console.print(_words_table(result))
    for program in result.programs:
        for variant in program.variants:
            if variant.operators:
                console.print(profile_table(f"Time by operator: {program.program}, {variant.name}", variant))
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)


def _allowed(program: ProgramResult) -> str:
    return f"{program.program} {'any' if program.tolerance is None else f'{program.tolerance:g}'}"


def _words_table(result: SegmentResult) -> Table:
    table = Table(
        title="One image, many words: what each further text costs",
        title_justify="left",
        caption="Again: `segment`. Image kept: `encode_text` and `ground`. Text kept too: `ground`.",
        caption_justify="left",
    )
    table.add_column("variant", no_wrap=True)
    for name in ("again\nms", "image kept\nms", "times\nas fast", "text kept too\nms", "times\nas fast"):
        table.add_column(name, justify="right")
    for cost in result.word_costs():
        table.add_row(
            cost.variant,
            f"{cost.again * 1e3:.1f}",
            f"{cost.image_kept * 1e3:.1f}",
            f"{cost.again / cost.image_kept:.2f}",
            f"{cost.both_kept * 1e3:.1f}",
            f"{cost.again / cost.both_kept:.2f}",
        )
    return table
