"""The tokeniser of BERT: words in lower case without accents, cut into pieces of a vocabulary."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_UNKNOWN, _FIRST, _LAST = "[UNK]", "[CLS]", "[SEP]"
_LONGEST_WORD = 100  # characters; a longer one is unknown

# Code points of Chinese characters: each is a word of its own.
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    r"""Cuts text into the numbered pieces of a vocabulary, as BERT's uncased models do.

    Control characters go, white space separates, and every punctuation mark and Chinese character
    is a word; words lose their capitals and accents. A word is cut from the left into the longest
    pieces that the vocabulary has, those after the first written with ``##``; a word that cannot be
    cut is ``[UNK]``.

    Parameters
    ----------
    vocabulary : sequence of str
        Piece i has number i.

    Raises
    ------
    ValueError
        If a piece occurs twice, or ``[UNK]``, ``[CLS]`` or ``[SEP]`` is missing.

    Examples
    --------
    >>> from abcdeep_core.examples.word_piece import WordPiece
    >>> pieces = WordPiece(["[UNK]", "[CLS]", "[SEP]", "cafe", "##s", "!"])
    >>> pieces.tokens("Caf\u00e9s!")
    ['cafe', '##s', '!']
    >>> pieces.encode("Caf\u00e9s!")
    [1, 3, 4, 5, 2]
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.numbers = {piece: number for number, piece in enumerate(vocabulary)}
        if len(self.numbers) != len(vocabulary):
            raise ValueError("vocabulary: expected every piece once")
        for piece in (_UNKNOWN, _FIRST, _LAST):
            if piece not in self.numbers:
                raise ValueError(f"vocabulary: expected a piece {piece}")

    def tokens(self, text: str) -> list[str]:
        """Return the pieces of a text, without ``[CLS]`` and ``[SEP]``."""
        return [piece for word in words(text) for piece in self._cut(word)]

    def encode(self, text: str, longest: int = 256) -> list[int]:
        """Return the numbers of ``[CLS]``, the pieces and ``[SEP]``, at most `longest` of them."""
        pieces = [_FIRST, *self.tokens(text)[: longest - 2], _LAST]
        return [self.numbers[piece] for piece in pieces]

    def _cut(self, word: str) -> list[str]:
        if len(word) > _LONGEST_WORD:
            return [_UNKNOWN]
        pieces: list[str] = []
        begin = 0
        while begin < len(word):
            mark = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((end for end in ends if mark + word[begin:end] in self.numbers), None)
            if end is None:
                return [_UNKNOWN]
            pieces.append(mark + word[begin:end])
            begin = end
        return pieces


def words(text: str) -> list[str]:
    r"""Return the words and punctuation marks of a text, in lower case and without accents.

    Examples
    --------
    >>> from abcdeep_core.examples.word_piece import words
    >>> words("It's 3.5 \u00c5ngstr\u00f6m")
    ['it', "'", 's', '3', '.', '5', 'angstrom']
    """
    spaced = "".join(_spaced(character) for character in text if not _is_dropped(character))
    plain = (
        character
        for character in unicodedata.normalize("NFD", spaced)
        if unicodedata.category(character) != "Mn"
    )
    lowered = "".join(plain).lower()
    return "".join(_apart(lowered)).split()


def _is_dropped(character: str) -> bool:
    """Whether a character is a control one other than white space, or stands for a broken one."""
    if character in "\t\n\r":
        return False
    category = unicodedata.category(character)
    return character in "\0\ufffd" or category in ("Cc", "Cf", "Co", "Cs")


def _spaced(character: str) -> str:
    code = ord(character)
    if any(first <= code <= last for first, last in _IDEOGRAPHS):
        return f" {character} "
    return " " if character.isspace() else character


def _apart(text: str) -> Iterable[str]:
    """Yield the characters, with spaces around punctuation."""
    for character in text:
        ascii_mark = character.isascii() and character.isprintable() and not character.isalnum()
        mark = ascii_mark or unicodedata.category(character).startswith("P")
        yield f" {character} " if mark and character != " " else character
