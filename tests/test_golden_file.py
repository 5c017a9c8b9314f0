"""Golden files: a record comes back as it was, and a comparison says how far an output moved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samonnx.golden_file import FORMAT, GoldenError, GoldenRecord, Movement, movements
from samonnx.golden_run import summed_up

Array = npt.NDArray[np.generic]


def record_of(*arrays: Array, tolerance: float = 1e-4) -> GoldenRecord:
    """A record with one output per array: y0, y1, …"""
    summed = [summed_up(array, program="track", step=0, output=f"y{i}") for i, array in enumerate(arrays)]
    return GoldenRecord(
        format=FORMAT,
        recipe="tiny",
        recipe_digest="r",
        weights_source="seeded(seed=0)",
        weights_digest="w",
        target="onnx",
        tools={"onnx": "1"},
        steps=1,
        seed=0,
        outputs=tuple(record for record, _ in summed),
        samples=tuple(samples for _, samples in summed),
    ).with_tolerance(tolerance)


def movement(old: Array, new: Array, tolerance: float = 1e-4) -> Movement:
    return movements(record_of(old, tolerance=tolerance), record_of(new))[0]


shapes = st.lists(st.integers(0, 40), max_size=3).map(tuple)
arrays = st.tuples(shapes, st.sampled_from(["float32", "int32", "bool", "int64"]), st.integers(0, 99)).map(
    lambda of: (np.random.RandomState(of[2]).standard_normal(of[0]) * 3).astype(of[1])
)


@given(st.lists(arrays, max_size=4))
def test_a_record_comes_back_from_disk_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, contents: list[Array]
) -> None:
    path = tmp_path_factory.getbasetemp() / "g.npz"
    record = record_of(*contents)
    record.save(path)
    loaded = GoldenRecord.load(path)
    assert loaded.outputs == record.outputs
    assert all(m.is_identical and not m.exceeds for m in movements(loaded, record))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(loaded.samples, record.samples, strict=True))


def test_the_same_record_gives_the_same_bytes_and_leaves_no_other_file(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        record_of(np.ones((3, 4), np.float32)).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


@given(st.integers(0, 1_000_000))
def test_samples_are_few_and_the_stride_is_odd(size: int) -> None:
    record, samples = summed_up(np.zeros(size, np.int8), program="p", step=0, output="y")
    assert record.stride % 2 == 1
    assert samples.size <= 1024
    assert samples.size >= min(size, 300)


def test_a_small_move_is_within_the_tolerance_and_measured_by_the_largest_magnitude() -> None:
    old = np.linspace(-8, 8, 100, dtype=np.float32)
    moved = movement(old, old + np.float32(4e-4))
    assert not moved.is_identical
    assert moved.moved == pytest.approx(5e-5, rel=1e-2)
    assert not moved.exceeds
    assert movement(old, old + np.float32(1.6e-3)).exceeds


def test_one_value_of_a_small_output_is_enough_to_exceed() -> None:
    old = np.ones(10, np.float32)
    new = old.copy()
    new[3] = 1.01
    assert movement(old, new).exceeds


def test_one_sample_in_a_thousand_may_jump_and_is_mentioned() -> None:
    old = np.ones(1023, np.float32)
    new = old.copy()
    new[5] = 1.05
    moved = movement(old, new)
    assert not moved.exceeds
    assert moved.remark == "1 of 1023 samples left out, the furthest at 5.0e-02"
    new[7] = 1.05
    assert movement(old, new).exceeds


def test_a_move_between_the_samples_shows_in_the_mean() -> None:
    old = np.ones(5000, np.float32)
    new = old.copy()
    new[1 :: summed_up(old, program="p", step=0, output="y")[0].stride] = 2
    assert movement(old, new).exceeds


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
def test_a_discrete_output_may_not_move_at_all(dtype: str) -> None:
    old = np.zeros(5000, dtype)
    new = old.copy()
    new[1] = 1  # not among the samples
    assert movement(old, new, tolerance=0.5).exceeds
    assert not movement(old, old.copy()).exceeds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_longer_finite_exceeds_any_tolerance(value: float) -> None:
    old = np.ones(5000, np.float32)
    new = old.copy()
    new[1] = value
    moved = movement(old, new, tolerance=0.9)
    assert moved.exceeds
    assert moved.remark == "1 values are not finite, 0 were"


def test_values_that_always_were_infinite_do_not_count_as_moved() -> None:
    old = np.array([np.inf, -np.inf, np.nan, 1.0], np.float32)
    new = old.copy()
    new[3] = np.nextafter(np.float32(1), np.float32(2))
    assert 0 < movement(old, new).moved < 1e-6
    assert movement(old, -old).exceeds


def test_another_shape_or_dtype_or_a_lost_output_exceeds() -> None:
    old = np.ones((2, 3), np.float32)
    assert movement(old, old.reshape(3, 2)).remark == "is float32 [3, 2], was float32 [2, 3]"
    assert movement(old, old.astype(np.int32)).exceeds
    lost = movements(record_of(old, old), record_of(old))[1]
    assert lost.exceeds
    assert lost.remark == "the artifact has no such output"


def test_an_output_that_was_all_zero_is_measured_absolutely() -> None:
    moved = movement(np.zeros(4, np.float32), np.full(4, 0.25, np.float32))
    assert moved.moved == 0.25


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"there is no golden file .*; `samonnx golden record` makes one"):
        GoldenRecord.load(tmp_path / "g.npz")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_off_file_is_an_error(tmp_path: Path, part: float) -> None:
    path = tmp_path / "g.npz"
    record_of(np.ones(100, np.float32)).save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(GoldenError, match=r"is damaged or not a golden file"):
        GoldenRecord.load(path)


def test_a_damaged_byte_anywhere_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    record = record_of(np.arange(100, dtype=np.float32))
    record.save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            loaded = GoldenRecord.load(path)
        except GoldenError:
            continue
        assert loaded.outputs == record.outputs
        assert loaded.samples[0].tobytes() == record.samples[0].tobytes()


def test_other_npz_files_and_other_formats_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(GoldenError, match="is damaged or not a golden file: 'header"):
        GoldenRecord.load(tmp_path / "other.npz")
    replace(record_of(np.ones(1)), format=99).save(tmp_path / "newer.npz")
    with pytest.raises(GoldenError, match="expected format 1; record it again with this version"):
        GoldenRecord.load(tmp_path / "newer.npz")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(GoldenError, match="cannot be written"):
        record_of(np.ones(1)).save(tmp_path / "file" / "g.npz")
