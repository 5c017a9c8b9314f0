from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.bank import Bank, BankError
from samonnx.runtime.manifest import Manifest
from samonnx.runtime.prompts import Points, Prompts
from samonnx.runtime.session import Session
from samonnx.runtime.tracker import Tracker
from tests.runtime.hand_made_artifact import build, clip


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> Manifest:
    return Manifest.load(artifact)


@pytest.fixture(scope="module")
def bank(artifact: Path) -> Bank:
    """Three objects, four frames in."""
    tracker = Tracker(artifact)
    prompts = {n: Prompts(points=Points(((5.0 * n, 6.0),), (1,))) for n in (4, 2, 7)}
    list(tracker.track(clip(4), {0: prompts}))
    return tracker.bank()


def assert_same(one: Bank, other: Bank) -> None:
    assert (one.objects, one.next_frame, one.digest) == (other.objects, other.next_frame, other.digest)
    assert set(one.tensors) == set(other.tensors)
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        np.testing.assert_array_equal(tensor, other.tensors[name])


def test_an_empty_bank_holds_no_frames(manifest: Manifest) -> None:
    empty = Bank.empty(manifest)
    assert empty.frames() == ((), ())
    assert empty.objects == (0, 1)
    assert not empty.tensors["bank.memory"].any()
    assert (empty.tensors["bank.pointer_frame"] == -1).all()


def test_frames_are_those_in_the_slots(bank: Bank) -> None:
    assert bank.frames() == ((0, 2, 3),) * 3


def test_saving_and_loading_changes_nothing(bank: Bank, manifest: Manifest, tmp_path: Path) -> None:
    bank.save(tmp_path / "clip.npz")
    assert_same(Bank.load(tmp_path / "clip.npz", manifest), bank)
    assert os.listdir(tmp_path) == ["clip.npz"]


def test_the_name_of_the_file_is_kept_as_given(bank: Bank, manifest: Manifest, tmp_path: Path) -> None:
    bank.save(tmp_path / "clip.bank")
    assert_same(Bank.load(tmp_path / "clip.bank", manifest), bank)


def test_select_takes_rows_by_object_in_the_order_asked(bank: Bank) -> None:
    chosen = bank.select([7, 4])
    assert chosen.objects == (7, 4)
    np.testing.assert_array_equal(chosen.tensors["bank.memory"][0], bank.tensors["bank.memory"][2])
    np.testing.assert_array_equal(chosen.tensors["bank.memory"][1], bank.tensors["bank.memory"][0])


def test_selecting_and_joining_again_is_the_same_bank(bank: Bank) -> None:
    assert_same(bank.select([4]).with_object_rows(bank.select([2, 7])), bank)


def test_joining_replaces_an_object_that_is_in_both(bank: Bank, manifest: Manifest) -> None:
    joined = bank.with_object_rows(bank.select([2]))
    assert joined.objects == (4, 7, 2)


def test_a_clone_has_memory_of_its_own(bank: Bank) -> None:
    clone = bank.clone()
    assert_same(clone, bank)
    assert not np.shares_memory(clone.tensors["bank.memory"], bank.tensors["bank.memory"])


def test_outputs_of_the_graph_become_the_next_bank(artifact: Path, manifest: Manifest) -> None:
    session = Session(artifact)
    inputs = {port.name: np.zeros(port.sides(), dtype=port.dtype) for port in session.program.inputs}
    outputs = session.run({**inputs, **Bank.empty(manifest).tensors})
    made = Bank.from_outputs(manifest, outputs, next_frame=1)
    assert made.frames() == ((0,), (0,))
    with pytest.raises(BankError, match=r"outputs next_bank\.memory_frame are missing"):
        Bank.from_outputs(manifest, {n: v for n, v in outputs.items() if n != "next_bank.memory_frame"})


def test_an_object_that_is_not_there_is_named(bank: Bank) -> None:
    with pytest.raises(BankError, match=r"the bank has no object 9; it has: \[4, 2, 7\]"):
        bank.select([4, 9])


def test_banks_of_different_moments_are_not_joined(bank: Bank, manifest: Manifest) -> None:
    with pytest.raises(BankError, match="one bank continues at frame 4, the other at 0"):
        bank.with_object_rows(Bank.empty(manifest))


def test_a_bank_of_another_recipe_is_refused(bank: Bank, single_artifact: Path, tmp_path: Path) -> None:
    bank.save(tmp_path / "clip.npz")
    other = build(tmp_path / "other", recipe="another", seed=5)
    with pytest.raises(BankError) as caught:
        Bank.load(tmp_path / "clip.npz", other)
    assert "clip.npz was made by recipe 'hand_made' with weights seeded(seed=0)" in str(caught.value)
    assert "this artifact is recipe 'another' with weights seeded(seed=5)" in str(caught.value)


def test_a_bank_of_other_weights_of_the_same_recipe_is_refused(bank: Bank, tmp_path: Path) -> None:
    other = build(tmp_path / "other", seed=5)
    with pytest.raises(BankError, match="the same name, but another configuration or other weights"):
        bank.checked(other)
    with pytest.raises(BankError, match="the bank to add was made by recipe 'hand_made'"):
        Bank.empty(other).with_object_rows(bank)


@pytest.mark.parametrize("keep", [0, 10, 400, -200, -1])
def test_a_truncated_file_is_said(bank: Bank, manifest: Manifest, tmp_path: Path, keep: int) -> None:
    bank.save(tmp_path / "clip.npz")
    (tmp_path / "clip.npz").write_bytes((tmp_path / "clip.npz").read_bytes()[:keep])
    with pytest.raises(BankError, match=r"clip\.npz is damaged, cut short, or not an \.npz at all"):
        Bank.load(tmp_path / "clip.npz", manifest)


def test_a_flipped_bit_is_noticed(bank: Bank, manifest: Manifest, tmp_path: Path) -> None:
    bank.save(tmp_path / "clip.npz")
    content = bytearray((tmp_path / "clip.npz").read_bytes())
    place = content.index(bank.tensors["bank.memory"].tobytes()[:16])
    content[place] ^= 1
    (tmp_path / "clip.npz").write_bytes(bytes(content))
    with pytest.raises(BankError, match="is damaged"):
        Bank.load(tmp_path / "clip.npz", manifest)


def test_an_npz_of_something_else_is_said(manifest: Manifest, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(BankError, match=r"is an \.npz, but not a bank that samonnx saved"):
        Bank.load(tmp_path / "x.npz", manifest)


def test_a_pickle_is_refused_unread(manifest: Manifest, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(BankError, match="is damaged"):
        Bank.load(tmp_path / "x.npy", manifest)


def test_a_missing_file_is_said(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="does not exist"):
        Bank.load(tmp_path / "no.npz", manifest)


def test_wrong_tensors_are_said(bank: Bank, manifest: Manifest) -> None:
    short = Bank({"bank.memory": bank.tensors["bank.memory"]}, bank.objects, 0, "r", "w", bank.digest)
    with pytest.raises(BankError, match=r"it differs in bank\.memory_conditioning, bank\.memory_frame, bank\.pointer"):
        short.checked(manifest)
    narrow = {**bank.tensors, "bank.pointer": bank.tensors["bank.pointer"][..., :3].astype(np.float64)}
    with pytest.raises(BankError, match=r"bank.pointer: expected float32 \[3, 3, 8\], got float64 \[3, 3, 3\]"):
        Bank(narrow, bank.objects, 0, "r", "w", bank.digest).checked(manifest)
    with pytest.raises(BankError, match=r"bank\.memory: expected 1 rows, one an object"):
        Bank(bank.tensors, (1,), 0, "r", "w", bank.digest)
    with pytest.raises(BankError, match="a number stands twice"):
        Bank(bank.tensors, (1, 1, 2), 0, "r", "w", bank.digest)


def test_a_failed_save_leaves_the_old_file_and_no_litter(
    bank: Bank, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(tmp_path / "clip.npz")

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(BankError, match=r"cannot be written to .*clip\.npz: No space left on device"):
        bank.select([2]).save(tmp_path / "clip.npz")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["clip.npz"]
    assert_same(Bank.load(tmp_path / "clip.npz", manifest), bank)


def test_saving_into_a_folder_that_does_not_exist_is_said(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="No such file or directory"):
        bank.save(tmp_path / "no" / "clip.npz")
