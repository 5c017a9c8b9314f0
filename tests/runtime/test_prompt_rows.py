"""What of a prompt's row depends on the original whose predictor is followed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.prompt_rows import row_inputs
from samonnx.runtime.prompts import MaskPrompt, Points, Prompts
from tests.runtime import hand_made_artifact

CLICK = Prompts(points=Points(((5.0, 5.0),), (1,)))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder: Path = tmp_path_factory.mktemp("rows") / "artifact"
    hand_made_artifact.build(folder)
    return Manifest.load(folder)


@pytest.mark.parametrize("attends", [False, True])
def test_a_correction_attends_memory_where_the_manifest_says_so_and_a_first_click_never(
    manifest: Manifest, attends: bool
) -> None:
    memory = replace(manifest.tracking(), corrections_attend_memory=attends)
    manifest = replace(manifest, memory=memory)
    earlier = np.full((1, 4, 4), 50, np.float32)
    corrected = row_inputs(manifest, 1, CLICK, width=20, height=20, earlier=earlier)
    assert corrected.attend_memory is attends
    assert corrected.previous_logits is not None
    assert float(corrected.previous_logits.max()) == 32
    assert row_inputs(manifest, 1, CLICK, width=20, height=20).attend_memory is False


@pytest.mark.parametrize("binary", [False, True])
def test_a_resized_mask_is_cut_at_one_half_where_the_manifest_says_so(manifest: Manifest, binary: bool) -> None:
    manifest = replace(manifest, preprocessing=replace(manifest.seeing(), binary_mask_prompts=binary))
    mask = np.zeros((30, 30), dtype=bool)
    mask[7:20, 7:20] = True
    row = row_inputs(manifest, 1, Prompts(mask=MaskPrompt(mask)), width=30, height=30).mask
    assert row is not None
    assert row.dtype == np.float32
    soft = (row > 0) & (row < 1)
    assert bool(soft.any()) is not binary
    assert row.max() == 1
