from __future__ import annotations

import warnings

import pytest

from samonnx.plain_warnings import plain_warnings


def test_a_warning_is_one_line_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_warnings():
        warnings.simplefilter("always")
        for text in ("the text was cut", "the text was cut", "another"):
            warnings.warn(text, stacklevel=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "samonnx: warning: the text was cut\nsamonnx: warning: another\n"


def test_afterwards_warnings_are_as_before() -> None:
    before = warnings.showwarning
    with plain_warnings():
        assert warnings.showwarning is not before
    assert warnings.showwarning is before
