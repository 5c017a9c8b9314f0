"""The result of the `masks` benchmark as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.masks_result import MasksResult, PresetResult
from benchmarks.tables import machine_line
from samonnx.runtime.automatic_masks.generator import STAGES

__all__ = ["masks_title", "print_masks_report"]


AFTER = ("box NMS", "crop NMS", "small regions")
"""Stages after the filters."""


def masks_title(result: MasksResult) -> str:
    return (
        f"Automatic masks with {result.recipe} on {result.width} x {result.height} pixels; {result.threads} threads, "
        f"{result.repeats} repeats"
    )


def print_masks_report(result: MasksResult, console: Console) -> None:
    console.print(_time_table(result))
    console.print(_mask_table(result))
    console.print(machine_line(result.machine), highlight=False, soft_wrap=True)


def _time_table(result: MasksResult) -> Table:
    stages = [name for name in STAGES if any(name in preset.seconds for preset in result.presets)]
    table = Table(title=masks_title(result), title_justify="left", caption_justify="left")
    table.caption = "Filters: enlarging, stability, boxes, crop edges and coding. Memory: peak of the process (idle: " \
                    "before the first graph was opened); codes: of the masks that are left."  # fmt: skip
    table.add_column("preset", no_wrap=True)
    for name in (
        *(f"{stage}\ns" for stage in stages),
        "all\ns",
        "processor\ns",
        "peak memory\nMiB",
        "idle\nMiB",
        "codes\nMiB",
    ):
        table.add_column(name, justify="right")
    for preset in result.presets:
        seconds = [f"{preset.seconds[stage]:.3f}" if stage in preset.seconds else "" for stage in stages]
        memory = [f"{value / 2**20:.1f}" for value in (preset.peak_bytes, preset.idle_bytes, preset.code_bytes)]
        table.add_row(_name(preset), *seconds, f"{preset.total:.2f}", f"{preset.processor:.2f}", *memory)
    return table


def _mask_table(result: MasksResult) -> Table:
    table = Table(title="Masks left after each step", title_justify="left", caption_justify="left")
    if result.drawn:
        table.caption = "The network ran; its masks and IoUs were replaced by drawn ones (--network: its own)."
    table.add_column("preset", no_wrap=True)
    steps = ("candidates", "iou", "stability", "edge")
    names = [name for name in AFTER if any(name in preset.left for preset in result.presets)]
    for name in (*steps, *names):
        table.add_column(name, justify="right")
    for preset in result.presets:
        numbers = [str(preset.passed[step]) for step in steps] + [str(preset.left.get(name, "")) for name in names]
        table.add_row(_name(preset), *numbers)
    return table


def _name(preset: PresetResult) -> str:
    layers = {0: "", 1: ", 1 crop layer"}.get(preset.crop_layers, f", {preset.crop_layers} crop layers")
    return preset.preset + layers
