"""The abnormalities that reports are searched for: names, synonyms and search rules, read from a data file.

`data/vocabulary.json` is the vocabulary of this package, `data/rad-chestct.json` adds the labels of RAD-ChestCT to it;
`data/vocabulary.schema.json` describes the layout. A user's own file of the same layout can replace or extend it.
"""

import hashlib
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
SHIPPED = {"brgsa-chest-ct": DEFAULT_PATH, "rad-chestct": DEFAULT_PATH.with_name("rad-chestct.json")}


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
    """All abnormalities in order, and the named lists of them that benchmarks score; `digest` is that of the file."""

    name: str
    abnormalities: tuple[Abnormality, ...]
    normaliser: NormaliserWords
    label_sets: dict[str, tuple[str, ...]]
    spelling: Spelling
    digest: str

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
    """Read a vocabulary: a file, or one of this package by its name (default: brgsa-chest-ct).

    Raises:
        InputError: the file is missing, is not of this layout and version, or holds a pattern that is not valid.
    """
    return _load(SHIPPED.get(str(path), Path(path or DEFAULT_PATH)))


def vocabulary_with(labels: str, path: str | Path | None = None) -> Vocabulary:
    """Return the vocabulary at `path`, or else the first of this package that has the label set `labels`.

    Raises:
        InputError: as of `load_vocabulary`.
        UsageError: no vocabulary of this package has this set.
    """
    if path is not None:
        return load_vocabulary(path)
    shipped = [load_vocabulary(name) for name in SHIPPED]
    found = next((vocabulary for vocabulary in shipped if labels == "all" or labels in vocabulary.label_sets), None)
    if found is None:
        sets = dict.fromkeys(name for vocabulary in shipped for name in vocabulary.label_sets)
        raise UsageError(f"unknown label set {labels!r}. Choose one of: all, {', '.join(sets)}.")
    return found


@lru_cache(maxsize=4)
def _load(path: Path) -> Vocabulary:
    content = _content(path)
    try:
        return _parse(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"the vocabulary {path} is not laid out as vocabulary.schema.json says: {reason}.") from error


def _content(path: Path) -> dict[str, Any]:
    """The content of a file, laid over that of the vocabulary that it extends."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the vocabulary {path}: {error.strerror}. Give an existing file.") from error
    except ValueError as error:
        raise InputError(f"the vocabulary {path} is not valid JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise InputError(f"the vocabulary {path} has version {found!r}, this program reads version {VERSION}.")
    if "extends" not in content:
        return content
    if content["extends"] not in SHIPPED:
        raise InputError(f"the vocabulary {path} extends {content['extends']!r}; it can extend {', '.join(SHIPPED)}.")
    base = _content(SHIPPED[content["extends"]])
    try:
        own = {entry["name"] for entry in content["abnormalities"]}
        merged = {key: {**base[key], **content.get(key, {})} for key in ("terms", "label_sets")}
        kept = [entry for entry in base["abnormalities"] if entry["name"] not in own]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the vocabulary {path} is not laid out as vocabulary.schema.json says ({error.args[0]})."
        ) from error
    return {**base, **content, **merged, "abnormalities": [*kept, *content["abnormalities"]]}


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
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Vocabulary(content["name"], abnormalities, normaliser, label_sets, spelling, digest)


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
