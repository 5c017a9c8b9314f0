"""The shared weights file: each content once, aligned, in an order that depends on names and contents only."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.weights_file import ALIGNMENT, EXTERNAL_FROM, WeightsLayout, is_external, lay_out


class Octets:
    """A tensor reduced to what a layout needs."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.calls = 0

    @property
    def nbytes(self) -> int:
        return len(self.content)

    def tobytes(self) -> bytes:
        self.calls += 1
        return self.content


contents = st.binary(max_size=200) | st.sampled_from([b"", b"same" * 40])
named = st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), contents), max_size=12)


@settings(max_examples=30)
@given(named)
def test_every_tensor_is_found_where_the_layout_says(pairs: list[tuple[str, bytes]]) -> None:
    tensors = [(name, Octets(content)) for name, content in pairs]
    layout = lay_out(tensors)
    written = written_bytes(layout)
    assert len(written) == layout.size
    for _, tensor in tensors:
        region = layout.region_of(tensor)
        assert written[region.offset : region.offset + region.length] == tensor.content


@given(named)
def test_offsets_are_aligned_and_equal_contents_are_stored_once(pairs: list[tuple[str, bytes]]) -> None:
    layout = lay_out([(name, Octets(content)) for name, content in pairs])
    assert len(layout.contents) == len({content for _, content in pairs})
    assert all(region.offset % ALIGNMENT == 0 for region, _ in layout.contents)
    ends = [region.offset + region.length for region, _ in layout.contents]
    starts = [*(region.offset for region, _ in layout.contents[1:]), layout.size]
    assert all(end <= start for end, start in zip(ends, starts, strict=False))


@settings(max_examples=30)
@given(named, st.randoms())
def test_the_order_in_which_tensors_come_does_not_matter(
    pairs: list[tuple[str, bytes]], shuffler: random.Random
) -> None:
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)
    one, other = (lay_out([(name, Octets(content)) for name, content in p]) for p in (pairs, shuffled))
    assert written_bytes(one) == written_bytes(other)


def test_a_tensor_object_is_read_twice_however_often_it_occurs() -> None:
    shared = Octets(b"x" * 100)
    layout = lay_out([("a", shared), ("b", shared), ("c", shared)])
    written_bytes(layout)
    assert shared.calls == 2  # once to compare, once to write


def test_small_tensors_and_strings_stay_inside_the_graph() -> None:
    at_limit = np.zeros(EXTERNAL_FROM, np.uint8)
    assert is_external(ir.tensor(at_limit))
    assert not is_external(ir.tensor(at_limit[1:]))
    assert not is_external(ir.StringTensor([b"word"] * 1000, shape=ir.Shape([1000])))


def written_bytes(layout: WeightsLayout) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        layout.write(Path(folder) / "w")
        return (Path(folder) / "w").read_bytes()
