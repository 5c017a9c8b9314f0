"""What the manifest says of XMem agrees with the programs."""

from __future__ import annotations

import pytest

from samonnx.models.xmem_bank import MemorySizes, XMemBank
from samonnx.programs.xmem import PLAIN_CHANGES
from samonnx.programs.xmem_components import Consolidate, WriteBank
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.runtime.manifest import XMemInfo
from samonnx.xmem_description import XMEM, xmem_info, xmem_preprocessing
from tests.models.xmem_tiny import tiny

SIZES = XMemSizes(tiny().widths, MemorySizes(7, 3, 90, 20, 4, 8), 3, 37, 51)


def test_the_sizes_of_the_memory_are_the_recipes() -> None:
    expected = XMemInfo(7, 3, 90, 20, every=4, top_k=8, objects=3, height=37, width=51)
    assert xmem_info(SIZES) == expected
    assert xmem_info(SIZES, points=4).points == 4


@pytest.mark.parametrize(("height", "width"), [(37, 51), (51, 37)])
def test_a_frame_is_stretched_to_the_recipes_and_masks_are_0_and_1(height: int, width: int) -> None:
    info = xmem_preprocessing(XMemSizes(SIZES.widths, SIZES.memory, 1, height, width))
    assert (info.size, info.frame_size, info.fit) == (51, (height, width), "stretch")
    assert info.binary_mask_prompts


def test_what_the_notes_say_a_graph_leaves_and_gives_is_so() -> None:
    rule = XMEM[0]
    track, plain = rule.split("; track@plain gives")
    plain, consolidate = plain.split("; consolidate gives")
    for name in XMemBank._fields:
        assert (name in track.partition(". ")[2]) == (name not in WriteBank.changed), name
        assert (name in plain) == (name in PLAIN_CHANGES), name
        given = name in consolidate or (name.startswith("long_") and "long_*" in consolidate)
        assert given == (name in Consolidate.changed), name
