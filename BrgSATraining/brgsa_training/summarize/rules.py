"""The rules backend: abnormalities found in a report by patterns and scope, with no network and no model."""

import re
from functools import lru_cache

from brgsa_training.summarize.details import severity, size
from brgsa_training.summarize.findings import Finding
from brgsa_training.summarize.scope import Scope, Status, plain
from brgsa_training.summarize.sentences import split_sentences
from brgsa_training.summarize.vocabulary import Vocabulary

_LOCATION = re.compile(
    r"""\b(?:
        (?:(?:right|left|both|bilateral)\s)?(?:lungs?\s)?(?:upper|middle|lower)\s(?:and\s(?:upper|middle|lower)\s)?
            (?:lobes?|zones?)(?:\sof\s(?:the\s|both\s)?(?:(?:right|left)\s)?lungs?)?
      | (?:right|left|both|bilateral)\s(?:\w+\s)?
            (?:lungs?|hemithora\w+|pleura\w*|hil\w+|axilla\w*|kidneys?|apex|apices|thyroid\slobe)
      | lingula(?:r\ssegment)?
      | (?:ascending|descending|thoracic|abdominal)\s(?:and\s\w+\s)?aorta | aortic\sarch
      | aorta | coronary\sarter(?:y|ies) | mediastinum | mediastinal | subcarinal | paratracheal
      | (?:lower\send|distal\spart)\sof\sthe\so?esophagus
      | thoracic\svertebrae | vertebral\scolumn | bone\sstructures?
    )\b""",
    re.VERBOSE,
)


_PIECE = 4  # letters


class RulesBackend:
    """Finds the abnormalities of a vocabulary in report texts."""

    def __init__(self, vocabulary: Vocabulary):
        self._rules = [
            (abnormality.name, rule) for abnormality in vocabulary.abnormalities for rule in abnormality.rules
        ]
        self._spelling = vocabulary.spelling
        # A hint is looked for only where its first letters are: a sentence has few of them.
        self._hints: dict[str, list[tuple[str, int]]] = {}
        self._short_hints: list[tuple[str, int]] = []
        for number, (_, rule) in enumerate(self._rules):
            for hint in rule.hints:
                place = self._short_hints if len(hint) < _PIECE else self._hints.setdefault(hint[:_PIECE], [])
                place.append((hint, number))
        # Reports repeat whole sentences ("Trachea, both main bronchi are open."): each is searched once.
        self._cached = lru_cache(maxsize=20_000)(self._search)

    def findings(self, text: str) -> list[Finding]:
        """Return the findings of one report, in the order of its sentences."""
        return [finding for sentence in split_sentences(text) for finding in self._cached(sentence)]

    def _search(self, sentence: str) -> tuple[Finding, ...]:
        corrected = self._spelling.correct(plain(sentence))
        text = corrected.text
        scope: Scope | None = None
        best: dict[str, Finding] = {}
        pieces = {text[at : at + _PIECE] for at in range(len(text) - _PIECE + 1)}
        possible = {number for hint, number in self._short_hints if hint in text}
        for piece in self._hints.keys() & pieces:
            possible.update(number for hint, number in self._hints[piece] if hint in text)
        for number in sorted(possible):
            name, rule = self._rules[number]
            if rule.required and not rule.required.search(text):
                continue
            for mention in rule.find.finditer(text):
                scope = scope or Scope(text)
                start, end = mention.span()
                left, right = scope.clause(start, end)
                if rule.forbidden and rule.forbidden.search(text, left, right):
                    continue
                status = Status.ABSENT if rule.absent else scope.status(start, end)
                if status and (name not in best or _better(status, best[name].status)):
                    place = _nearest_location(text, left, right, start)
                    location, raw_name = (sentence[slice(*corrected.original(*span))] for span in (place, (start, end)))
                    grade, extent = severity(text, left, right, start, end), size(text, left, right, start)
                    best[name] = Finding(name, raw_name.strip(), status, sentence, location, grade, extent)
        return tuple(best.values())


def _better(new: Status, old: Status) -> bool:
    return old is not Status.PRESENT and new is not old and new is not Status.ABSENT


def _nearest_location(text: str, left: int, right: int, start: int) -> tuple[int, int]:
    places = list(_LOCATION.finditer(text, left, right)) or list(_LOCATION.finditer(text))
    return min(places, key=lambda match: abs(match.start() - start)).span() if places else (0, 0)
