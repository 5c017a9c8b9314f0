from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.extras import MissingExtraError
from samonnx.runtime.tokenizer import TextError, Tokenizer, TruncatedTextWarning
from samonnx.runtime.vocabulary import VocabularyError
from tests.runtime.hand_made_vocabulary import write_vocabulary

START, END = 49406, 49407

ORIGINALS = [
    # text, and the tokens that sam3/model/tokenizer_ve.py makes of it, without start and end
    ("", []),
    ("!", [256]),
    ("!!", [748]),
    ("a dog", [320, 1929]),
    ("  A  Dog\t\n", [320, 1929]),
    ("visual", [7195]),
    ("person in a red-striped shirt", [2533, 530, 320, 736, 268, 22192, 2523]),
    ("traffic light", [3399, 1395]),
    ("it's the dogs' bone, isn't it?", [585, 568, 518, 3255, 262, 6195, 267, 2923, 713, 585, 286]),
    ("IT'S", [585, 568]),
    ("don''t", [847, 8445, 339]),
    ("'s", [568]),
    ("1234", [272, 273, 274, 275]),
    ("3.5 km", [274, 269, 276, 4590]),
    ("snake_case __init__", [8798, 318, 2068, 3838, 42670, 3838]),
    ("C++", [322, 19056]),
    ("#hashtag @user", [258, 9238, 287, 7031]),
    ("café", [15304]),
    ("cafe\u0301", [15304]),
    ("cafÃ©", [15304]),
    ("doesnâ€™t", [2503, 713]),
    ("“quoted” – dash…", [257, 27706, 257, 1224, 10206, 959]),
    ("Größe", [709, 7255, 127, 253, 324]),
    ("İstanbul", [328, 16384, 11231]),
    ("ΑΘΗΝΑΣ", [138, 109, 138, 116, 138, 115, 138, 121, 138, 109, 139, 480]),
    ("собака", [23669, 20978, 109, 16912, 27152, 27080]),
    ("日本語の犬", [39121, 44353, 34002, 252, 21575, 163, 232, 361]),
    ("한국어", [15197, 250, 31871, 255, 31625, 368]),
    ("العربية", [12973, 18843, 10948, 16378, 12046, 20915]),
    ("कुत्ता", [22067, 39653, 27263, 19389, 27263, 13343]),
    ("🐶", [10631]),
    ("\U0001f468\u200d\U0001f469\u200d\U0001f467", [25023, 26304, 964, 356]),
    ("\u2764\ufe0f", [1752]),
    ("½ ² ①", [33613, 41175, 158, 239, 510]),
    ("ﬁne", [3797]),
    ("ſ 'ſ", [129, 379, 6, 129, 379]),
    ("a &amp; b", [320, 261, 321]),
    ("&amp;lt;b&amp;gt;", [283, 321, 285]),
    ("&#39;s", [568]),
    ("&nbsp;", []),
    ("a\x00b", [3937]),
    ("a\x1cb", [3937]),
    ("a\x85b", [320, 959, 321]),
    ("a\u200bb", [320, 9844, 321]),
    ("a\u3000b", [320, 321]),
    ("\ud800", [39802]),
    ("<start_of_text> x <end_of_text>", [49406, 343, 49407]),
    ("<START_OF_TEXT>", [49406]),
    ("<|endoftext|>", [27, 347, 40786, 4160, 91, 285]),
    ("supercalifragilisticexpialidocious", [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466]),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(77)


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Tokenizer]:
    """By context length, with the vocabulary HAND_MADE."""
    path = write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "v.txt", HAND_MADE)
    return {length: Tokenizer(length, path) for length in (3, 4, 7, 16, 200)}


HAND_MADE = ["b c", "a a", "a bc", "c a</w>", "aa aa", "bc ca</w>", "aaaa b</w>", "b b</w>", "abc abc"]


def of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens between start and end."""
    tokens: list[int] = tokenizer.encode(text)[0].tolist()
    assert tokens[0] == START
    end = len(tokens) - 1 - tokens[::-1].index(END)
    assert not any(tokens[end + 1 :])
    return tokens[1:end]


@pytest.mark.parametrize(("text", "expected"), ORIGINALS)
def test_tokens_are_the_originals(tokenizer: Tokenizer, text: str, expected: list[int]) -> None:
    assert of(tokenizer, text) == expected


def test_tokens_start_end_and_are_filled_up_with_zeros() -> None:
    tokens = Tokenizer(6).encode("a dog")
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [[START, 320, 1929, END, 0, 0]]


def test_a_text_that_just_fits_is_not_cut() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tokenizer(4).encode("a dog").tolist() == [[START, 320, 1929, END]]


def test_a_longer_text_is_cut_and_ends_with_the_end() -> None:
    with pytest.warns(TruncatedTextWarning) as caught:
        assert Tokenizer(4).encode("A big  red dog").tolist() == [[START, 320, 1205, END]]
    assert str(caught[0].message) == (
        "the text has 6 tokens, start and end among them, but the model reads 4. "
        "Kept: 'a big'; cut off, or cut in two: 'red dog'"
    )


def test_a_word_that_is_cut_in_two_is_not_among_the_words_kept() -> None:
    with pytest.warns(TruncatedTextWarning, match="Kept: 'a'; cut off, or cut in two: 'supercalifragilistic…'"):
        assert of(Tokenizer(5), "a supercalifragilistic…") == [320, 1642, 2857]


def test_a_warning_shows_the_beginning_of_a_long_rest() -> None:
    with pytest.warns(TruncatedTextWarning) as caught:
        Tokenizer(8).encode(" ".join(["dog"] * 500))
    assert "the text has 502 tokens" in str(caught[0].message)
    assert len(str(caught[0].message)) < 250


@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet="abc ", max_size=60), length=st.sampled_from([3, 4, 7, 16]))
def test_what_is_cut_begins_like_what_is_not(hand_made: Mapping[int, Tokenizer], text: str, length: int) -> None:
    whole = hand_made[200].encode(text)[0].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        cut = hand_made[length].encode(text)[0].tolist()
    assert len(cut) == length
    found = whole.index(END) + 1
    assert cut == (whole[:length] if found <= length else [*whole[: length - 1], END])


def merged_in_the_order_of_the_file(word: str) -> list[str]:
    """Another way to the same: each merge in turn, wherever it fits."""
    symbols = [*word[:-1], word[-1] + "</w>"]
    for merge in HAND_MADE:
        left, right = merge.split()
        done: list[str] = []
        for symbol in symbols:
            if done and done[-1] == left and symbol == right:
                done[-1] = left + right + "\0"  # not to be merged again by the same merge
            else:
                done.append(symbol)
        symbols = [symbol.rstrip("\0") for symbol in done]
    return symbols


@settings(deadline=None, max_examples=200)
@given(words=st.lists(st.text(alphabet="abc", min_size=1, max_size=12), max_size=6))
def test_the_earliest_merge_of_the_file_comes_first(hand_made: Mapping[int, Tokenizer], words: list[str]) -> None:
    numbers = {symbol: place for place, symbol in zip((64, 65, 66), "abc", strict=True)}
    numbers |= {symbol + "</w>": place + 256 for symbol, place in numbers.items()}
    numbers |= {merge.replace(" ", ""): 512 + rank for rank, merge in enumerate(HAND_MADE)}
    expected = [numbers[symbol] for word in words for symbol in merged_in_the_order_of_the_file(word)]
    assert of(hand_made[200], " ".join(words)) == expected


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=40))
def test_any_text_has_tokens_of_the_vocabulary(tokenizer: Tokenizer, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        tokens = tokenizer.encode(text)
    assert tokens.shape == (1, 77)
    assert tokens.min() >= 0
    assert tokens.max() <= END


@settings(deadline=None, max_examples=60)
@given(words=st.lists(st.text(alphabet="abcdog", min_size=1, max_size=8), min_size=1, max_size=5))
def test_case_and_white_space_make_no_difference(tokenizer: Tokenizer, words: list[str]) -> None:
    plain = of(tokenizer, " ".join(words))
    assert of(tokenizer, "\n " + " \t\u3000".join(words).upper() + "\u2028") == plain


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(TextError, match="context_length is 2; expected 3 or more"):
        Tokenizer(2)


def test_what_is_no_text_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match="the text is a list; expected str"):
        tokenizer.encode(["a dog"])  # type: ignore[arg-type]  # the wrong type is what is tested


def test_a_vocabulary_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="does not exist"):
        Tokenizer(32, tmp_path / "v.txt")


@pytest.mark.parametrize("package", ["ftfy", "regex"])
def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed; run: pip install \"samonnx\[text\]"):
        Tokenizer(32)
