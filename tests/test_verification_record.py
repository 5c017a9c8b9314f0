"""The record of a verification: every figure with its tolerance, as JSON that other tools read."""

from __future__ import annotations

import json

import pytest

from samonnx.verification_record import verification_record
from samonnx.verify import Comparison


def test_every_figure_is_one_row_in_order() -> None:
    figures = [
        ("track", "onnx", Comparison("masks", 1.26e-6, 1e-4)),
        ("segment", "ort-cpu", Comparison("boxes", 0.0, 1e-3)),
    ]
    assert json.loads(verification_record(figures)) == [
        {"program": "track", "target": "onnx", "engine": "onnxruntime", "what": "masks"}
        | {"largest_error": 1.3e-6, "tolerance": 1e-4},
        {"program": "segment", "target": "ort-cpu", "engine": "onnxruntime", "what": "boxes"}
        | {"largest_error": 0.0, "tolerance": 1e-3},
    ]


def test_no_figure_is_a_list_too() -> None:
    assert verification_record([]) == "[]\n"


def test_what_is_not_a_number_is_refused() -> None:
    """Such a figure fails its verification before."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        verification_record([("track", "onnx", Comparison("masks", float("nan"), 1e-4))])
