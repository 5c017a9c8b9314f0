from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from samonnx.number_arguments import index, positive, share


def test_numbers_in_their_range_are_taken() -> None:
    assert [index("0"), index("17"), positive("1"), share("0"), share("0.25"), share("1")] == [0, 17, 1, 0, 0.25, 1]


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (index, "-1", "a whole number of at least 0"),
        (index, "1.5", "a whole number of at least 0"),
        (positive, "0", "a whole number of at least 1"),
        (positive, "many", "a whole number of at least 1"),
        (share, "1.01", "a number from 0 to 1"),
        (share, "-0.5", "a number from 0 to 1"),
        (share, "nan", "a number from 0 to 1"),
        (share, "half", "a number from 0 to 1"),
    ],
)
def test_others_are_refused_by_name(parse: Callable[[str], float], text: str, expected: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse(text)
    assert str(caught.value) == f"expected {expected}; found {text!r}"
