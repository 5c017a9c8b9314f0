"""Tables and pictures: what was measured and what was not are both there, and nothing is left out for its length."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.bar_plot import plot_bars
from benchmarks.engines import Engine
from benchmarks.measure import Timing
from benchmarks.tables import agreement_table, print_absent, time_table, work_table
from benchmarks.variant_result import Absent, Measured, VariantResult


def row(name: str, engine: Engine, median: float, straightforward: float | None) -> VariantResult:
    eager = name.startswith("eager")
    return VariantResult(
        name=name,
        engine=engine,
        timing=Timing((0.9 * median, median, 1.2 * median)),
        median=median,
        least=0.9 * median,
        times_eager=3.0 / median,
        times_original=4.0 / median,
        times_straightforward=straightforward,
        flops=10**12,
        flops_share=1.0,
        gemm_peak=4e11,
        roofline_share=10**12 / median / 4e11,
        graph=None,
        peak_bytes=None,
        errors={} if eager else {"masks": 2e-7},
        masks_equal={} if eager else {"masks": 0.9987},
        operators=(),
    )


MEASURED = Measured(
    (
        row("eager", Engine.PYTORCH, 3.0, None),
        row("eager, 2 necks", Engine.PYTORCH, 4.0, None),
        row("ort-cpu", Engine.ORT, 0.5, 1.875),
    ),
    (Absent("openvino, bf16", Engine.OPENVINO_BF16, "no bf16 on this CPU (it has [FP32])"),),
)


@pytest.fixture
def console() -> Console:
    return Console(width=150, record=True, quiet=True)


def test_ratios_roof_and_masks_stand_in_the_tables(console: Console) -> None:
    with console.capture() as captured:
        console.quiet = False
        console.print(time_table("title", {"": MEASURED}), work_table({"": MEASURED}))
        console.print(agreement_table("agreement", {"": MEASURED}))
    text = captured.get()
    assert {"8.00", "6.00", "1.88"} <= set(text.split()), "4 s, 3 s over 0.5 s, and the straightforward one's"
    assert "500.0%" in text
    assert "99.87%" in text
    assert "…" not in text


def test_what_was_not_run_is_told_with_its_reason(console: Console) -> None:
    with console.capture() as captured:
        console.quiet = False
        print_absent(console, {"segment": MEASURED})
    expected = "not run: segment, openvino, bf16 (OpenVINO bf16): no bf16 on this CPU (it has [FP32])\n"
    assert captured.get() == expected


@pytest.mark.parametrize("panels", [{"": MEASURED}, {"segment": MEASURED, "ground": MEASURED}])
def test_a_picture_is_as_high_as_it_has_rows(panels: dict[str, Measured], tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    plot_bars("A long title: " + 20 * "many words ", panels, path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width == 1500
    assert height == pytest.approx(150 * (1.5 + len(panels) * (0.75 + 0.36 * 4)), abs=1)
