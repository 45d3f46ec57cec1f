"""Free abnormality names, as a language model gives them, mapped to the names of the vocabulary."""

import re
from collections import Counter

from brgsa_training.summarize.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W_]+")


class Normaliser:
    """Maps names and counts what it mapped and what it could not."""

    def __init__(self, vocabulary: Vocabulary):
        self._words = vocabulary.normaliser
        self._names: dict[tuple[str, ...], str] = {}
        for abnormality in vocabulary.abnormalities:  # own names first: they win over another one's synonym
            self._names.setdefault(self._key(abnormality.name), abnormality.name)
        for abnormality in vocabulary.abnormalities:
            for synonym in abnormality.synonyms:
                self._names.setdefault(self._key(synonym), abnormality.name)
        self._shorter = {key: name for key, name in self._names.items() if key == self._without_qualifiers(key)}
        self._known: dict[str, str | None] = {}
        self.merged: Counter[tuple[str, str]] = Counter()
        self.unmapped: Counter[str] = Counter()

    def name(self, raw: str) -> str | None:
        """Return the vocabulary's name for a raw name, or None; case, plural, word order and fillers do not matter.

        If the whole name is unknown, it is looked up again without qualifiers such as "mild" or "bilateral".
        """
        folded = " ".join(raw.lower().split())
        if folded not in self._known:
            key = self._key(folded)
            self._known[folded] = self._names.get(key) or self._shorter.get(self._without_qualifiers(key))
        found = self._known[folded]
        if found is None:
            self.unmapped[folded] += 1
        elif folded != found.lower():
            self.merged[folded, found] += 1
        return found

    def _key(self, name: str) -> tuple[str, ...]:
        spelled = (self._words.spelling.get(word, word) for word in _WORD.findall(name.lower()))
        words = (word for text in spelled for word in text.split())
        return tuple(sorted(_singular(word) for word in words if word not in self._words.fillers))

    def _without_qualifiers(self, key: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word for word in key if word not in self._words.qualifiers)


_PLURALS = (
    ("ies", "y"),
    ("sses", "ss"),
    ("ases", "asis"),
    ("eses", "esis"),
    ("oses", "osis"),
    ("axes", "ax"),
    ("ae", "a"),
)


def _singular(word: str) -> str:
    """Fold English, Latin and Greek plurals as radiology uses them: masses, opacities, bullae, metastases."""
    if len(word) <= 3 or word.endswith(("ss", "us", "is")):
        return word
    for ending, singular in _PLURALS:
        if word.endswith(ending):
            return word[: -len(ending)] + singular
    return word[:-1] if word.endswith("s") else word
