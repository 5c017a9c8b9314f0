"""A picture of a benchmark: a bar a variant, as long as its median, with its ratios; a panel a piece of work."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.engines import Engine
from benchmarks.measure import milliseconds
from benchmarks.variant_result import Measured, VariantResult
from benchmarks.work_variant import EAGER, ONNXSLIM, STRAIGHTFORWARD, TORCH_COMPILE

__all__ = ["plot_bars"]

COLOURS: Mapping[Engine, str] = MappingProxyType(
    {Engine.PYTORCH: "#8c8c8c", Engine.ORT: "#2f6db3", Engine.OPENVINO: "#d9822b", Engine.OPENVINO_BF16: "#8e4ec6"}
)
INK = "#222222"
OTHERS = (EAGER, TORCH_COMPILE, STRAIGHTFORWARD, ONNXSLIM)
"""Beginnings of names that are not this project's; its own are bold."""
BAR_INCHES, PANEL_INCHES, WIDTH_INCHES = 0.36, 0.75, 10.0
TITLE_COLUMNS = 105
ROOM = 1.62
"""Width of a panel over its longest bar: the label of that bar needs the rest."""


def plot_bars(title: str, panels: Mapping[str, Measured], path: Path) -> None:
    """Write a PNG. `panels`: heading → variants, in their order. Whiskers reach from the least to the greatest time."""
    rows = [len(panel.variants) + len(panel.absent) for panel in panels.values()]
    height = 1.5 + sum(PANEL_INCHES + BAR_INCHES * count for count in rows)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=150, layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, TITLE_COLUMNS)), fontsize=11, fontweight="bold", color=INK)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[0.5 + count for count in rows])[:, 0]
    for (heading, panel), axis in zip(panels.items(), axes, strict=True):
        _draw(axis, heading, panel)
    axes[-1].set_xlabel("median of one run, ms (whiskers: least and greatest)", fontsize=9, color=INK)
    used = {variant.engine for panel in panels.values() for variant in panel.variants}
    keys = [Patch(color=colour, label=engine.value) for engine, colour in COLOURS.items() if engine in used]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=9)
    figure.savefig(path, format="png", facecolor="white")


def _draw(axis: Axes, heading: str, panel: Measured) -> None:
    names = [variant.name for variant in panel.variants]
    longest = max(max(variant.timing.seconds) for variant in panel.variants) * 1e3
    for place, variant in enumerate(panel.variants):
        median = variant.median * 1e3
        low, high = variant.least * 1e3, max(variant.timing.seconds) * 1e3
        whiskers = [[median - low], [high - median]]
        axis.barh(place, median, height=0.66, color=COLOURS[variant.engine])
        axis.errorbar(median, place, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5)
        label = axis.text(high + 0.012 * longest, place, _label(variant), va="center", fontsize=8.5, color=INK)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.2})  # over the grid
    for place, absent in enumerate(panel.absent, len(names)):
        text = absent.reason if len(absent.reason) <= 90 else f"{absent.reason[:89]}…"
        axis.text(0.008 * longest, place, text, va="center", fontsize=8.5, color="#777777", style="italic")
    names += [absent.name for absent in panel.absent]
    axis.set_yticks(range(len(names)), names, fontsize=9, color=INK)
    for name, tick in zip(names, axis.get_yticklabels(), strict=True):
        if not name.startswith(OTHERS):
            tick.set_fontweight("bold")
    axis.set_ylim(len(names) - 0.4, -0.6)  # the first variant on top
    axis.set_xlim(0, ROOM * longest)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_title(heading, loc="left", fontsize=10, fontweight="bold", color=INK)
    axis.tick_params(axis="x", labelsize=8, colors=INK)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", color="#e3e3e3", linewidth=0.7)
    axis.set_axisbelow(True)


def _label(variant: VariantResult) -> str:
    ratios = []
    if variant.times_original not in (None, 1.0):
        ratios.append(f"{variant.times_original:.2f}× eager")
    elif variant.times_original is None and variant.times_eager != 1.0:
        ratios.append(f"{variant.times_eager:.2f}× eager (1 neck)")
    if variant.times_straightforward not in (None, 1.0):
        ratios.append(f"{variant.times_straightforward:.2f}× straightforward")
    return "  ·  ".join((f"{milliseconds(variant.median)} ms", *ratios, f"{variant.roofline_share:.0%} of roof"))
