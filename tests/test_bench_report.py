from __future__ import annotations

from dataclasses import replace

import pytest

from samonnx.bench_plot import plot_png
from samonnx.bench_report import milliseconds, print_tables
from samonnx.bench_result import Bench, Failure, Machine, ProgramResult, Timing, TrackingResult

SECONDS = (0.0011, 0.0012, 0.0015)
BENCH = Bench(
    recipe="tiny",
    weights_source="seeded(seed=0)",
    weights_bytes=561_316_672,
    rows=2,
    machine=Machine("Some CPU", 4, 8_000_000_000, 0.5, "Linux", "3.11", {"onnxruntime": "1.31.1"}),
    threads=None,
    repeats=3,
    warm_up=2,
    frame_size=(1280, 720),
    programs=(
        ProgramResult("track", "onnx", "cpu", Timing.of(SECONDS), 1.5, 812_000_000, 780_825),
        ProgramResult("segment", "onnx", "cpu", Timing.of([1.234567]), 1.5, None, 1_159_835),
    ),
    tracking=(
        TrackingResult("onnx", "cpu", 1, 1, Timing.of(SECONDS), 900_000_000),
        TrackingResult("onnx", "cpu", 4, 2, Timing.of([0.25, 0.25]), 900_000_000),
    ),
    failures=(Failure("track", "onnx", "cuda", "no device", False),),
)


def printed(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Words of each line, without the lines of the tables."""
    monkeypatch.setenv("COLUMNS", "160")
    print_tables(bench)
    return [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in capsys.readouterr().out.splitlines()]


def test_the_tables_show_every_figure_and_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(BENCH, monkeypatch, capsys)
    for line in (
        "tiny: weights 561 MB (seeded(seed=0))",
        "Some CPU, 4 cores, the engine's choice of threads; onnxruntime 1.31.1; load before 0.50",
        "program target on median least spread per s open s peak",
        "track onnx cpu 1.20 1.10 0.200 833 1.50 812 MB",
        "segment onnx cpu 1,235 1,235 0.00 0.81 1.50 ?",
        "target on objects calls median least spread per s an object",
        "onnx cpu 4 2 250 250 0.00 4.00 62.5",
        "a frame of the Tracker: 1280 x 720 pixels, preprocessing and resizing of masks included; the bank is full",
        "3 calls each, in turn, after 2 to warm up; spread: between the quartiles; open: loading the graph; "
        "peak: memory of the whole process",
        "not measured: track, onnx on cuda: no device",
    ):
        assert line in lines
    assert "a frame of the Tracker, in ms (2 objects a call of the graph)" in lines


def test_times_have_three_digits_or_all_before_the_point() -> None:
    times = {0.12345: "0.123", 12: "12.0", 99.96: "100", 12345.6: "12,346"}
    assert {value: milliseconds(value) for value in times} == times


def test_no_figure_is_cut_in_a_terminal_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    slow = Timing.of([12.3456, 12.3456])
    program = ProgramResult("encode_image", "ort-cpu", "cuda", slow, 12.5, 1_490_000_000, 1_490_000)
    tracking = TrackingResult("ort-cpu", "cuda", 100, 100, slow, None)
    print_tables(replace(BENCH, programs=(program,), tracking=(tracking,)))
    out = capsys.readouterr().out
    assert "…" not in out
    assert "encode_image ort-cpu cuda 12,346 12,346 0.00 0.08 12.50 1.49 GB" in " ".join(out.split())


def test_what_was_not_measured_has_no_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(replace(BENCH, programs=(), tracking=(), rows=None), monkeypatch, capsys)
    assert [line.partition(":")[0] for line in lines] == [
        "tiny",
        "Some CPU, 4 cores, the engine's choice of threads; onnxruntime 1.31.1; load before 0.50",
        "not measured",
    ]


@pytest.mark.parametrize("bench", [BENCH, replace(BENCH, tracking=()), replace(BENCH, programs=())])
def test_the_picture_is_a_png_whatever_was_measured(bench: Bench) -> None:
    assert plot_png(bench).startswith(b"\x89PNG\r\n")
