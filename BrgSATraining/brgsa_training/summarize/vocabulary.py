"""The abnormalities that reports are searched for: names, synonyms and search rules, read from a data file.

`data/vocabulary.json` is the vocabulary of this package; `data/vocabulary.schema.json` describes the layout. A user's
own file of the same layout can replace it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from brgsa.errors import InputError, UsageError
from brgsa_training.summarize.spelling import Spelling

VERSION = 1
DEFAULT_PATH = Path(__file__).parent / "data" / "vocabulary.json"


@dataclass(frozen=True)
class Rule:
    """One way in which a report names an abnormality; all patterns are searched in the plain (lower-case) sentence.

    `hints` are pieces of text of which one must be in the sentence, a cheap test before the patterns. `find` is the
    mention itself, `required` must be anywhere in the sentence, `forbidden` must not be in the clause of the mention.
    `absent` says that the mention itself denies the abnormality ("heart size is normal").
    """

    hints: tuple[str, ...]
    find: re.Pattern[str]
    required: re.Pattern[str] | None
    forbidden: re.Pattern[str] | None
    absent: bool = False


@dataclass(frozen=True)
class Abnormality:
    """One entry of the vocabulary.

    `implies` names abnormalities that are present whenever this one is.
    """

    name: str
    synonyms: tuple[str, ...]
    rules: tuple[Rule, ...]
    implies: tuple[str, ...]


@dataclass(frozen=True)
class NormaliserWords:
    """What does not matter in a free name: fillers never, qualifiers when the whole name is unknown; and spellings."""

    fillers: frozenset[str]
    qualifiers: frozenset[str]
    spelling: dict[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """All abnormalities in order, and the named lists of them that benchmarks score."""

    name: str
    abnormalities: tuple[Abnormality, ...]
    normaliser: NormaliserWords
    label_sets: dict[str, tuple[str, ...]]
    spelling: Spelling

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(abnormality.name for abnormality in self.abnormalities)

    @cached_property
    def _implied(self) -> dict[str, tuple[str, ...]]:
        return {abnormality.name: abnormality.implies for abnormality in self.abnormalities}

    def implied_by(self, name: str) -> tuple[str, ...]:
        """Return the abnormalities that are present whenever `name` is."""
        return self._implied[name]

    def label_set(self, name: str) -> tuple[str, ...]:
        """Return the abnormality names of a label set; "all" is the whole vocabulary.

        Raises:
            UsageError: there is no such set.
        """
        if name == "all":
            return self.names
        if name not in self.label_sets:
            raise UsageError(f"unknown label set {name!r}. Choose one of: all, {', '.join(self.label_sets)}.")
        return self.label_sets[name]


def load_vocabulary(path: str | Path | None = None) -> Vocabulary:
    """Read a vocabulary file (default: the one of this package).

    Raises:
        InputError: the file is missing, is not of this layout and version, or holds a pattern that is not valid.
    """
    return _load(Path(path or DEFAULT_PATH))


@lru_cache(maxsize=4)
def _load(path: Path) -> Vocabulary:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the vocabulary {path}: {error.strerror}. Give an existing file.") from error
    except ValueError as error:
        raise InputError(f"the vocabulary {path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise InputError(f"the vocabulary {path} has version {found!r}, this program reads version {VERSION}.")
    try:
        return _parse(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"the vocabulary {path} is not laid out as vocabulary.schema.json says: {reason}.") from error


def _parse(content: dict[str, Any]) -> Vocabulary:
    terms = {f"{{{name}}}": pattern for name, pattern in content["terms"].items()}
    abnormalities = tuple(
        Abnormality(
            name=entry["name"],
            synonyms=tuple(entry["synonyms"]),
            rules=tuple(_rule(rule, terms, entry["name"]) for rule in entry["rules"]),
            implies=tuple(entry.get("implies", ())),
        )
        for entry in content["abnormalities"]
    )
    names = [abnormality.name for abnormality in abnormalities]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"{sorted(repeated)[0]!r} is there twice")
    label_sets = {name: tuple(labels) for name, labels in content["label_sets"].items()}
    used = [label for labels in label_sets.values() for label in labels]
    used += [name for abnormality in abnormalities for name in abnormality.implies]
    unknown = sorted(set(used) - set(names))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is used in a label set or by `implies`, but is no abnormality")
    words = content["normaliser"]
    normaliser = NormaliserWords(frozenset(words["fillers"]), frozenset(words["qualifiers"]), dict(words["spelling"]))
    spelling = Spelling(**content.get("spelling", {}))
    return Vocabulary(content["name"], abnormalities, normaliser, label_sets, spelling)


def _rule(rule: dict[str, Any], terms: dict[str, str], name: str) -> Rule:
    def pattern(key: str) -> re.Pattern[str] | None:
        alternatives: Sequence[str] = rule.get(key, ())
        if not alternatives:
            return None
        text = "|".join(alternatives)
        for term, value in terms.items():
            text = text.replace(term, value)
        try:
            return re.compile(text)
        except re.error as error:
            raise ValueError(f"a pattern of {name!r} under {key!r} is not valid ({error})") from error

    find = pattern("find")
    if find is None:
        raise ValueError(f"a rule of {name!r} has no 'find'")
    return Rule(tuple(rule["hints"]), find, pattern("required"), pattern("forbidden"), rule.get("says") == "absent")
