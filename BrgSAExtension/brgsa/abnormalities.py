"""What to look for in a scan: abnormalities in plain words, and lists of them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from brgsa import abnormality_files
from brgsa.errors import InputError, UsageError
from brgsa.text import clean, shorten

PRESETS_FOLDER = Path(__file__).parent / "data" / "abnormalities"
# Code system -> its name, the form of its identifiers, an example.
CODE_SYSTEMS = {
    "radlex": ("RadLex", r"RID[0-9]+", "RID5350"),
    "snomed": ("SNOMED CT", r"[0-9]{6,18}", "233604007"),
    "oifm": ("OIFM", r"OIFM_[A-Z0-9]+_[0-9]+", "OIFM_CDE_000076"),
}
CODE_MATCHES = ("exact", "broader", "narrower")


@dataclass(frozen=True)
class Abnormality:
    """One abnormality to score.

    Runs of white space become one space. Empty `prompts` become `There is NAME`, empty `negative_prompts` become
    `There is no NAME`.

    Args:
        name: what tables and reports call it.
        prompts: texts that the scan is compared with; their embeddings are averaged.
        negative_prompts: texts that say the opposite, for the prompt style `pair`.
        group: heading under which it is shown, for example an organ.
        codes: `{"radlex": {"id", "label", "match"}, "snomed": {"id", "label", "match"}, "oifm": id}`, each optional;
            `match` says whether the code's meaning is `exact`, `broader` or `narrower`.
        threshold: score from which it counts as present; None where nobody fitted one.

    Raises:
        UsageError: a value makes no sense, or the model's text cleaning would leave nothing of a prompt.
    """

    name: str
    prompts: tuple[str, ...] = ()
    negative_prompts: tuple[str, ...] = ()
    group: str | None = None
    codes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    threshold: float | None = None

    def __post_init__(self) -> None:
        name = _one_line(self.name, "the name")
        if start := re.match(r"there (is|are) ", name, re.IGNORECASE):
            raise UsageError(
                f'the name "{shorten(name)}" is a prompt. Write only what is there: "{shorten(name[start.end() :])}"'
            )
        values = {
            "name": name,
            "prompts": _prompts(self.prompts, "prompt", name) or (_checked(f"There is {name}", "prompt", name),),
            "negative_prompts": _prompts(self.negative_prompts, "negative prompt", name) or (f"There is no {name}",),
            "group": _one_line(self.group, f'the group of "{shorten(name)}"') if self.group else None,
            "codes": _codes(self.codes, name),
            "threshold": _threshold(self.threshold, name),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as the JSON format has them."""
        found: dict[str, Any] = {"name": self.name}
        if self.prompts != (f"There is {self.name}",):
            found["prompts"] = list(self.prompts)
        if self.negative_prompts != (f"There is no {self.name}",):
            found["negative_prompts"] = list(self.negative_prompts)
        rest = {"group": self.group, "codes": dict(self.codes) or None, "threshold": self.threshold}
        return found | {key: value for key, value in rest.items() if value is not None}


@dataclass(frozen=True)
class AbnormalityList(Sequence):
    """Abnormalities to score together, in the order of the result table. Names differ in more than case and spacing.

    Raises:
        UsageError: the list is empty or a name occurs twice.
    """

    name: str
    abnormalities: tuple[Abnormality, ...]
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _one_line(self.name, "the name of the list"))
        object.__setattr__(self, "abnormalities", tuple(self.abnormalities))
        for key in ("description", "source"):
            if not isinstance(getattr(self, key), str):
                raise UsageError(f"the {key} of the list is not text")
        _refuse_repeats(self.abnormalities, [f"abnormality {n}" for n in range(1, len(self) + 1)])

    def __len__(self) -> int:
        return len(self.abnormalities)

    def __getitem__(self, index):
        return self.abnormalities[index]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(abnormality.name for abnormality in self)

    @classmethod
    def from_names(cls, names: Iterable[str], name: str = "custom") -> AbnormalityList:
        """Make a list with the default prompt `There is NAME` for each name."""
        return cls(name, tuple(Abnormality(each) for each in names))

    @classmethod
    def presets(cls) -> dict[str, str]:
        """Return the names of the lists that come with the package, each with its description."""
        return {preset.name: preset.description for preset in map(cls.read, _preset_paths().values())}

    @classmethod
    def preset(cls, name: str) -> AbnormalityList:
        """Return a list that comes with the package.

        Raises:
            UsageError: there is no such list.
        """
        paths = _preset_paths()
        if name not in paths:
            hint = abnormality_files.closest(name, paths)
            raise UsageError(f'no preset called "{shorten(name)}"{hint}. Presets: {", ".join(paths)}.')
        return cls.read(paths[name])

    @classmethod
    def parse(cls, text: str | os.PathLike) -> AbnormalityList:
        """Return the list that `text` means: a preset, a file, or names separated by semicolons ("Pneumonia;" is one).

        Raises:
            UsageError: it is none of these, or a name makes no sense.
            InputError: the file cannot be read or used.
        """
        text = os.fspath(text).strip()
        if text in _preset_paths():
            return cls.preset(text)
        if _is_file(text) or Path(text).suffix.lower() in abnormality_files.FORMATS:
            return cls.read(text)
        if ";" in text:
            names = text.removesuffix(";").split(";")
            if blank := [n for n, each in enumerate(names, 1) if not each.strip()]:
                raise UsageError(f'name {blank[0]} of "{shorten(text)}" is empty. Write it or remove its semicolon.')
            return cls.from_names(names)
        hint = abnormality_files.closest(text, _preset_paths())
        raise UsageError(
            f'no abnormality preset or file called "{shorten(text)}"{hint}. Presets: {", ".join(_preset_paths())}. '
            f'Files end in {", ".join(abnormality_files.FORMATS)}. Names need a ";", even one: "Mass;".'
        )

    @classmethod
    def read(cls, path: str | os.PathLike) -> AbnormalityList:
        """Read a list from a .json, .csv or .txt file; `brgsa.abnormality_files` has the formats.

        Raises:
            InputError: the file is missing or wrong; the message names the file and the row.
        """
        head, rows = abnormality_files.read(path)
        abnormalities = []
        for place, values in rows:
            try:
                abnormalities.append(Abnormality(**values))
            except UsageError as error:
                raise InputError(f"{path}, {place}: {error}") from error
        try:
            _refuse_repeats(abnormalities, [place for place, _ in rows])
            return cls(abnormalities=tuple(abnormalities), **head)
        except UsageError as error:
            raise InputError(f"{path}: {error}") from error

    def write(self, path: str | os.PathLike) -> tuple[str, ...]:
        """Write a .json, .csv or .txt file and return the names of the fields that this format cannot hold.

        JSON holds everything, CSV everything about the abnormalities, plain text their names and prompts.

        Raises:
            UsageError: another suffix, or a name that plain text cannot hold.
            BrgSAError: the file cannot be written.
        """
        head = {"name": self.name, "description": self.description, "source": self.source}
        abnormality_files.write(path, head, [abnormality.to_dict() for abnormality in self])
        again = self.read(path)
        lost = [key for key in head if head[key] != getattr(again, key)]
        lost = ["list name" if key == "name" else key for key in lost]
        pairs = list(zip(self, again, strict=True))
        lost += [f.name for f in fields(Abnormality) if any(getattr(a, f.name) != getattr(b, f.name) for a, b in pairs)]
        return tuple(dict.fromkeys(lost))


def describe_presets() -> list[dict[str, Any]]:
    """Return one row per preset: `preset`, `abnormalities` (count), `with_codes` (count), `description`."""
    lists = (AbnormalityList.read(path) for path in _preset_paths().values())
    return [
        {
            "preset": each.name,
            "abnormalities": len(each),
            "with_codes": sum(bool(abnormality.codes) for abnormality in each),
            "description": each.description,
        }
        for each in lists
    ]


def describe(abnormalities: AbnormalityList) -> list[dict[str, Any]]:
    """Return one row per abnormality.

    The columns are `name`, `group`, `prompts`, `model_reads`, `negative_prompts`, `codes` and `threshold`.
    `model_reads` are the prompts after the released text cleaning. All but `threshold` are text; several prompts are
    joined by " | ".
    """
    return [
        {
            "name": each.name,
            "group": each.group or "",
            "prompts": " | ".join(each.prompts),
            "model_reads": " | ".join(map(clean, each.prompts)),
            "negative_prompts": " | ".join(each.negative_prompts),
            "codes": ", ".join(_describe_code(system, code) for system, code in each.codes.items()),
            "threshold": each.threshold,
        }
        for each in abnormalities
    ]


def _describe_code(system: str, code: str | Mapping[str, str]) -> str:
    if isinstance(code, str):
        return code
    return f"{CODE_SYSTEMS[system][0]} {code['id']}" + (f" ({code['match']})" if "match" in code else "")


def _preset_paths() -> dict[str, Path]:
    return {path.stem: path for path in sorted(PRESETS_FOLDER.glob("*.json")) if not path.name.endswith(".schema.json")}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a long list of names is not a possible path
        return False


def _refuse_repeats(abnormalities: Sequence[Abnormality], places: Sequence[str]) -> None:
    if not abnormalities:
        raise UsageError("the list has no abnormalities. Add at least one.")
    first: dict[str, str] = {}
    for abnormality, place in zip(abnormalities, places, strict=True):
        before = first.setdefault(abnormality.name.casefold(), place)
        if before != place:
            raise UsageError(
                f'{place} repeats the name "{shorten(abnormality.name)}" of {before}. Rename or delete one.'
            )


def _one_line(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{what} is {_brief(value)}, not text")
    text = " ".join(value.split())
    if not text:
        raise UsageError(f"{what} is empty")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise UsageError(f"{what} holds a control character: {shorten(ascii(text), 60)}")
    return text


def _prompts(values: Any, what: str, name: str) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise UsageError(f'the {what}s of "{shorten(name)}" are not a list of texts')
    return tuple(_checked(value, what, name) for value in values)


def _checked(value: Any, what: str, name: str) -> str:
    prompt = _one_line(value, f'a {what} of "{shorten(name)}"')
    read = clean(prompt)
    if set(read.split()) - {"there", "is", "no"}:
        return prompt
    start = f'{what} "{shorten(prompt)}" of "{shorten(name)}"'
    if len(re.findall(r"\w+", prompt)) == 1:
        raise UsageError(
            f"{start} has one word, which the released text cleaning erases; "
            f'write a phrase such as "There is {shorten(prompt)}"'
        )
    raise UsageError(
        f'{start} reaches the model as "{shorten(read)}": the released text cleaning keeps only ASCII letters and '
        "digits and no sentence of one word; write an English phrase"
    )


def _codes(codes: Any, name: str) -> dict[str, Any]:
    if not isinstance(codes, Mapping):
        raise UsageError(f'the codes of "{shorten(name)}" are not an object of code systems')
    checked: dict[str, Any] = {}
    for system, code in codes.items():
        what = f'{shorten(str(system))} code of "{shorten(name)}"'
        if system not in CODE_SYSTEMS:
            raise UsageError(f"the {what} is of an unknown system. Systems: {', '.join(CODE_SYSTEMS)}.")
        if system == "oifm":
            checked[system] = _identifier(system, code, what)
            continue
        if not isinstance(code, Mapping) or not set(code) <= {"id", "label", "match"}:
            raise UsageError(f'the {what} needs an "id" and may have a "label" and a "match", nothing else')
        checked[system] = {"id": _identifier(system, code.get("id"), what)}
        if "label" in code:
            checked[system]["label"] = _one_line(code["label"], f"the label of the {what}")
        if "match" in code:
            if code["match"] not in CODE_MATCHES:
                found = shorten(repr(code["match"]), 40)
                raise UsageError(f"the match of the {what} is {found}, not one of {', '.join(CODE_MATCHES)}")
            checked[system]["match"] = code["match"]
    return checked


def _identifier(system: str, value: Any, what: str) -> str:
    pattern, example = CODE_SYSTEMS[system][1:]
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise UsageError(f"the {what} is {shorten(repr(value), 40)}, which is none; one looks like {example}")
    return value


def _threshold(value: Any, name: str) -> float | None:
    if value is None:
        return None
    # Cosines lie in [-1, 1] and differences of two cosines in [-2, 2]; NaN fails the comparison too.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -2 <= value <= 2:
        raise UsageError(f'the threshold of "{shorten(name)}" is {_brief(value)}, not a score between -2 and 2')
    return float(value)


def _brief(value: Any) -> str:
    # A whole number of thousands of digits cannot be printed.
    return "a huge number" if isinstance(value, int) and abs(value) > 10**18 else shorten(repr(value), 40)
