"""Choosing variants, and how many threads are used when nobody says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.arguments import benchmark_parser, option_values
from benchmarks.options import Options, Selection
from samonnx.errors import SamonnxError

NAMES = ["eager", "onnx", "onnx, OpenVINO", "ort-cpu"]


def taken(*patterns: str) -> list[str]:
    return [name for name in NAMES if Selection(patterns).takes(name)]


def test_no_pattern_takes_everything_and_several_take_what_any_of_them_fits() -> None:
    assert taken() == NAMES
    assert taken("onnx") == ["onnx"]
    assert taken("*openvino", "ort*") == ["onnx, OpenVINO", "ort-cpu"]


def test_a_pattern_without_a_variant_is_told_with_all_names() -> None:
    Selection(("ORT-*",)).check(NAMES)
    with pytest.raises(SamonnxError, match="--variant 'web': no such variant; there are: 'eager', 'onnx', "):
        Selection(("onnx", "web")).check(NAMES)


def test_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "_siblings", lambda cpu: "0,2" if cpu % 2 == 0 else "1,3")
    assert machine.physical_cores() == 2
    assert Options(Path("recipe.yaml")).threads == 2
    assert option_values(benchmark_parser("track", "").parse_args([]))["threads"] == 2
