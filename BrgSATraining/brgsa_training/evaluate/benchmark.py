"""Benchmark definitions: what is scored, what is measured, and how tables of labels and scores are read for it.

A benchmark is one JSON file (`data/benchmark.schema.json` describes it). Those in `data/benchmarks` are known by name;
any other is given by its path.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.errors import InputError, UsageError

FOLDER = Path(__file__).parent / "data" / "benchmarks"
VERSION = 1

_REQUIRED = ("name", "title", "abnormalities", "labels", "source", "licence", "get")
_OPTIONAL = ("scores", "released_columns", "exclusions", "case_column", "case_pattern", "expected", "notes")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name, title: what to call it, and what it is.
        abnormalities: what is scored, with prompts; the name of a preset of `brgsa`, or abnormalities.
        labels: measured abnormality -> columns of the label table, any of which makes it present; in table order.
        scores: measured abnormality -> score columns, the largest of which counts; only where scores are merged.
        released_columns: columns of a score file that has numbers instead of names.
        exclusions: (abnormality, reason) of what is scored but not measured.
        case_column: column of the label file that holds the case name.
        case_pattern: expression for case names with the groups `patient` and `study`.
        expected: numbers of cases, studies and patients of the complete benchmark, where they are known.
        source, licence, get: where labels and prompts come from, under which terms, and where to get the data.
        notes: what a reader of the numbers should know.
    """

    name: str
    title: str
    abnormalities: AbnormalityList
    labels: Mapping[str, tuple[str, ...]]
    source: str
    licence: str
    get: str
    scores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    released_columns: tuple[str, ...] = ()
    exclusions: tuple[tuple[str, str], ...] = ()
    case_column: str | None = None
    case_pattern: re.Pattern | None = None
    expected: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the benchmarks that come with this package."""
        return sorted(path.stem for path in FOLDER.glob("*.json"))

    @classmethod
    def load(cls, name_or_path: str | os.PathLike) -> "Benchmark":
        """Read a benchmark by its name, or from a file.

        Raises:
            UsageError: there is no benchmark of this name.
            InputError: the file is not a benchmark definition.
        """
        path = FOLDER / f"{name_or_path}.json"
        if not path.is_file():
            path = Path(name_or_path)
        if not path.is_file():
            near = difflib.get_close_matches(str(name_or_path), cls.names(), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"no benchmark {str(name_or_path)!r}.{hint} Known: {', '.join(cls.names())}; or give a JSON file"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable as JSON ({str(error).splitlines()[0]})") from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Any, where: str) -> "Benchmark":
        """Check and convert the content of a definition; `where` names it in errors.

        Raises:
            InputError: something is missing, unknown or of the wrong kind.
        """
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise InputError(f'{where}: a benchmark definition needs "version": {VERSION}')
        for key in _REQUIRED:
            if not content.get(key):
                raise InputError(f"{where}: {key!r} is missing")
        for key in content:
            if key not in ("version", *_REQUIRED, *_OPTIONAL):
                raise InputError(f"{where}: {key!r} is unknown; known are {', '.join(_REQUIRED + _OPTIONAL)}")
        labels = content["labels"]
        if not isinstance(labels, dict):
            labels = {name: [name] for name in _texts(labels, where, "labels")}
        try:
            pattern = re.compile(content["case_pattern"]) if "case_pattern" in content else None
        except (re.error, TypeError) as error:
            raise InputError(f"{where}: 'case_pattern' is not a regular expression ({error})") from error
        if pattern is not None and "patient" not in pattern.groupindex:
            raise InputError(f"{where}: 'case_pattern' has no group named 'patient'")
        try:
            exclusions = tuple((row["abnormality"], row["reason"]) for row in content.get("exclusions", ()))
        except (TypeError, KeyError) as error:
            raise InputError(f"{where}: every exclusion needs 'abnormality' and 'reason'") from error
        for key in ("scores", "expected"):
            if not isinstance(content.get(key, {}), dict):
                raise InputError(f"{where}: {key!r} must be an object")
        return cls(
            name=str(content["name"]),
            title=str(content["title"]),
            abnormalities=_abnormalities(content["abnormalities"], str(content["name"]), where),
            labels={name: _texts(columns, where, f"labels of {name}") for name, columns in labels.items()},
            source=str(content["source"]),
            licence=str(content["licence"]),
            get=str(content["get"]),
            scores={
                name: _texts(columns, where, f"scores of {name}") for name, columns in content.get("scores", {}).items()
            },
            released_columns=_texts(content.get("released_columns", list(labels)), where, "released_columns"),
            exclusions=exclusions,
            case_column=content.get("case_column"),
            case_pattern=pattern,
            expected=content.get("expected", {}),
            notes=_texts(content.get("notes", []), where, "notes"),
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the measured abnormalities, in table order."""
        return tuple(self.labels)

    def without(self, names: Sequence[str]) -> "Benchmark":
        """Return the benchmark without some abnormalities.

        Raises:
            UsageError: a name is not measured, or none is left.
        """
        for name in names:
            if name not in self.labels:
                raise UsageError(f"{name!r} is not measured in {self.name}; measured are {', '.join(self.labels)}")
        labels = {name: columns for name, columns in self.labels.items() if name not in names}
        if not labels:
            raise UsageError(f"nothing of {self.name} is left to measure")
        return replace(self, labels=labels, exclusions=(*self.exclusions, *((n, "left out on request") for n in names)))

    def label_columns(self, name: str) -> list[tuple[str, ...]]:
        """Return the ways to find the label of `name` in a table, best first: columns of which any makes it present."""
        return _distinct([self.labels[name], (name,), self.scores.get(name, (name,))])

    def score_columns(self, name: str) -> list[tuple[str, ...]]:
        """Return the ways to find the score of `name` in a table, best first: columns of which the largest counts."""
        return _distinct([self.scores.get(name, (name,)), (name,)])


def _abnormalities(value: Any, name: str, where: str) -> AbnormalityList:
    try:
        if isinstance(value, str):
            return AbnormalityList.preset(value)
        return AbnormalityList(
            name,
            tuple(
                Abnormality(row["name"], tuple(row.get("prompts", ())), tuple(row.get("negative_prompts", ())))
                for row in value
            ),
        )
    except UsageError as error:
        raise InputError(f"{where}: 'abnormalities': {error}") from error
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: 'abnormalities' must be a preset or a list of objects with a name") from error


def _texts(values: Any, where: str, what: str) -> tuple[str, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not all(isinstance(v, str) for v in values):
        raise InputError(f"{where}: {what!r} must be a list of texts")
    return tuple(values)


def _distinct(ways: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(ways))
