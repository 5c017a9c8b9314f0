from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.bank import Bank, BankError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.xmem_bank import XMemBank
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_artifact import build as build_sam
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_xmem import build
from tests.runtime.xmem_by_hand import by_mask


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def tracked(artifact: Path) -> XMemTracker:
    """After nine frames: objects 4 (row 0) and 2 (row 1)."""
    tracker = XMemTracker(artifact)
    for _ in tracker.track(clip(9), {0: {4: by_mask(5, 5, 12, 15)}, 3: {2: by_mask(2, 25, 10, 12)}}):
        pass
    return tracker


def test_a_saved_bank_is_the_bank(tracked: XMemTracker, tmp_path: Path) -> None:
    bank = tracked.bank()
    bank.save(tmp_path / "bank.npz")
    loaded = XMemBank.load(tmp_path / "bank.npz", tracked.manifest)
    assert (loaded.rows, loaded.objects, loaded.next_frame) == ((4, 2), (4, 2), 9)
    assert set(loaded.tensors) == {pair.input for pair in tracked.manifest.bank}
    for name, tensor in bank.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["bank.npz"]


def test_an_empty_row_is_kept_as_one(artifact: Path, tracked: XMemTracker, tmp_path: Path) -> None:
    tracker = XMemTracker(artifact)
    tracker.restore(tracked.bank())
    tracker.remove(4)
    tracker.bank().save(tmp_path / "bank.npz")
    loaded = XMemBank.load(tmp_path / "bank.npz", tracker.manifest)
    assert (loaded.rows, loaded.objects) == ((None, 2), (2,))


def test_a_bank_of_another_artifact_is_refused_and_costs_nothing(
    tracked: XMemTracker, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "xmem"
    build(other, objects=1)
    stranger = XMemTracker(other)
    stranger.step(clip(1)[0], {1: by_mask(5, 5, 12, 15)})
    before = tracked.bank()
    with pytest.raises(BankError, match=r"the bank was made by recipe 'hand_made_xmem' .*another configuration"):
        tracked.restore(stranger.bank())
    stranger.bank().save(tmp_path / "bank.npz")
    with pytest.raises(BankError, match=r"bank .*bank\.npz was made by recipe 'hand_made_xmem'"):
        XMemBank.load(tmp_path / "bank.npz", tracked.manifest)
    for name, tensor in tracked.bank().tensors.items():
        np.testing.assert_array_equal(tensor, before.tensors[name])


def test_banks_of_the_two_kinds_are_not_taken_for_each_other(
    tracked: XMemTracker, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sam") / "hand_made"
    build_sam(folder)
    manifest = Manifest.load(folder)
    Bank.empty(manifest, (1,)).save(tmp_path / "sam.npz")
    tracked.bank().save(tmp_path / "xmem.npz")
    with pytest.raises(BankError, match=r"sam\.npz was made by recipe"):
        XMemBank.load(tmp_path / "sam.npz", tracked.manifest)
    with pytest.raises(BankError, match="but not a bank that samonnx saved"):
        Bank.load(tmp_path / "xmem.npz", manifest)


def test_contradictions_are_said(tracked: XMemTracker, tmp_path: Path) -> None:
    bank, manifest = tracked.bank(), tracked.manifest
    wrong = {
        r"row 1 has the object None, but bank\.object_since says 3 for it": replace(bank, rows=(4, None)),
        r"rows are \[4, 4\]; expected 2, each a number of its own or None": replace(bank, rows=(4, 4)),
        r"rows are \[4\]; expected 2": replace(bank, rows=(4,)),
        r"expected the tensors .*; it differs in bank\.sensory": replace(
            bank, tensors={name: tensor for name, tensor in bank.tensors.items() if name != "bank.sensory"}
        ),
        r"bank\.long_use: expected float32 \[6\], got float64 \[6\]": replace(
            bank, tensors={**bank.tensors, "bank.long_use": np.zeros(6)}
        ),
    }
    for message, broken in wrong.items():
        with pytest.raises(BankError, match=message):
            broken.checked(manifest)
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(BankError, match=r"cut\.npz is damaged, cut short, or not an \.npz at all"):
        XMemBank.load(tmp_path / "cut.npz", manifest)
    with pytest.raises(BankError, match="does not exist"):
        XMemBank.load(tmp_path / "nothing.npz", manifest)
