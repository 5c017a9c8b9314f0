from __future__ import annotations

from pathlib import Path

import pytest

from samonnx.result_file import ResultFileError, check_output, replace_file


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text("earlier")
    replace_file(path, b"later")
    assert path.read_bytes() == b"later"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(ResultFileError, match=r"cannot write .*folder: "):
        replace_file(tmp_path / "folder", b"later")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    for path, message in (
        (tmp_path / "none" / "b.json", f"b.json: folder {tmp_path}/none does not exist"),
        (artifact, "it is a folder; give the name of a file"),
        (artifact / "manifest.json", "it lies in the artifact folder, whose files are the compiler's"),
    ):
        with pytest.raises(ResultFileError) as caught:
            check_output(path, artifact)
        assert message in str(caught.value)
    check_output(tmp_path / "b.json", artifact)
