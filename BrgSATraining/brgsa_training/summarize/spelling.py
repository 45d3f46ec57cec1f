"""Misspelt words of a report read as what they stand for: "Atelactasis", "plueral", and British spelling.

A word is corrected when it is not known, and near to exactly one word of the vocabulary: one edit (a letter too many,
too few, wrong, or two swapped), two in a word of nine letters or more.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_WORD = re.compile(r"[^\W\d_]{6,}")
_LONG = 9
_BRITISH = re.compile(
    r"aem(?=[oiay])|oe(?=soph|dem|tiol)|(?<=tum)our|(?<=col)our|(?<=cent)re\b|(?<=calib)re\b|(?<=fib)re\b"
)
_AMERICAN = {"aem": "em", "oe": "e", "our": "or", "re": "er"}


class Corrected(NamedTuple):
    """A sentence as it is searched, and where each of its letters came from (None: nothing was corrected)."""

    text: str
    starts: list[int] | None = None
    ends: list[int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the sentence as it was written; a corrected word counts as a whole."""
        if self.starts is None or self.ends is None or end <= start:
            return start, end
        return self.starts[start], self.ends[end - 1]


class Spelling:
    """Corrects towards `words`; the words of `others` are right as they are, although they are near to one of them."""

    def __init__(self, words: Iterable[str] = (), others: Iterable[str] = ()):
        self._words = frozenset(words)
        self._known = {word: word for word in (*self._words, *others)}
        self._near: dict[tuple[str, int], list[str]] = {}
        for word in sorted(self._words):
            for length in range(len(word) - 2, len(word) + 3):
                self._near.setdefault((word[0], length), []).append(word)

    def correct(self, sentence: str) -> Corrected:
        """Return a plain sentence with its misspelt words corrected."""
        changed = []
        for match in _WORD.finditer(sentence):
            word = match[0]
            right = self._known.get(word)
            if right is None:
                right = self._known[word] = self._right(word)
            if right != word:
                changed.append((*match.span(), right))
        if not changed:
            return Corrected(sentence)
        text, starts, ends, at = "", [], [], 0
        for start, end, right in (*changed, (len(sentence), len(sentence), "")):
            text += sentence[at:start] + right
            starts += [*range(at, start), *[start] * len(right)]
            ends += [*range(at + 1, start + 1), *[end] * len(right)]
            at = end
        return Corrected(text, starts, ends)

    def _right(self, word: str) -> str:
        word = _BRITISH.sub(lambda match: _AMERICAN[match[0]], word)
        if word in self._words:
            return word
        near: dict[int, list[str]] = {}
        for other in self._near.get((word[0], len(word)), ()):
            edits = _edits(word, other, 2 if min(len(word), len(other)) >= _LONG else 1)
            if edits:
                near.setdefault(edits, []).append(other)
        best = near.get(1) or near.get(2) or [word]
        return best[0] if len(best) == 1 else word


def _edits(one: str, two: str, most: int) -> int:
    """Return how many edits lead from one word to another, 0 if more than `most`."""
    if abs(len(one) - len(two)) > most:
        return 0
    before: list[int] = []
    row = list(range(len(two) + 1))
    for i, letter in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, other in enumerate(two, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == two[j - 2] and one[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return 0
    return row[-1] if row[-1] <= most else 0
