"""What the two ends of the worker's pipes agree on; docs/worker-protocol.md is its description.

Only the standard library, because one end runs inside 3D Slicer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brgsa.errors import InputError

PROTOCOL_VERSION = 1
LONGEST_LINE = 1_000_000  # bytes of a request, with its line break
DEEPEST = 20  # lists and objects inside each other
LARGEST = 2**53  # a whole number that every JSON reader keeps

# The code of an error answer for each exit code of `brgsa.errors`.
ERROR_CODES = {1: "failed", 2: "usage", 3: "input", 4: "setup", 5: "out-of-memory", 6: "failed"}
INVALID = "invalid"
CANCELLED = "cancelled"
NOT_AVAILABLE = "not-available"
UNEXPECTED = "unexpected"
NO_SCAN = "no-scan"

# What helps when memory runs out, as the options of the next `score` request.
MEMORY_SUGGESTIONS = {
    "cpu": {"device": "cpu"},
    "half": {"precision": "bf16"},
}

TEXT, FLAG, NUMBER, COUNT = "text", "true or false", "a whole number", "a whole number from 1 to 1,000,000"
TEXTS, OBJECT, OBJECTS = "a list of texts", "an object", "a list of objects"
_KINDS = {
    TEXT: lambda value: isinstance(value, str),
    FLAG: lambda value: isinstance(value, bool),
    NUMBER: lambda value: type(value) is int and abs(value) <= LARGEST,
    COUNT: lambda value: type(value) is int and 1 <= value <= 1_000_000,
    TEXTS: lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    OBJECT: lambda value: isinstance(value, dict),
    OBJECTS: lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
}
_REQUIRED = object()


@dataclass(frozen=True)
class Field:
    """One field of a request.

    Attributes:
        kind: what it must be, in the words of the error; one of `_KINDS`.
        default: its value where it is missing or null; without one it must be there.
        fields: those of an object.
    """

    kind: str
    default: Any = _REQUIRED
    fields: Mapping[str, "Field"] | None = None


_NEEDED, _OPTIONAL = Field(TEXT), Field(TEXT, None)
_MODEL = {"weights": Field(TEXT, "phantom"), "device": Field(TEXT, "auto"), "precision": Field(TEXT, "fp32")}
_PROMPTS = {
    "abnormalities": Field(OBJECTS),
    "list": Field(TEXT, "custom"),
    "prompts": Field(TEXT, "single"),
    "kind": Field(TEXT, "final"),
}
_FORCE = Field(FLAG, False)

# The fields of every request but `id` and `request`. Fields that are not here are passed over.
REQUESTS: Mapping[str, Mapping[str, Field]] = {
    "score": {"path": _NEEDED, "scan": _NEEDED, "case": Field(TEXT, "scan"), "force": _FORCE, **_PROMPTS, **_MODEL},
    "rescore": {"scan": _NEEDED, **_PROMPTS},
    "heatmap": {"scan": _NEEDED, "abnormality": Field(OBJECT), "path": _NEEDED, "method": Field(TEXT, "rollout")},
    "report": {"scan": _NEEDED, "kind": _NEEDED, "path": _NEEDED, "files": Field(TEXTS, None)},
    "similar": {
        "index": _NEEDED,
        "top": Field(COUNT, 5),
        "scan": _OPTIONAL,
        "text": _OPTIONAL,
        "source": Field(OBJECT, None, {"path": _NEEDED, "series": _OPTIONAL}),
        **_MODEL,
    },
    "index": {"inputs": Field(TEXTS), "index": _NEEDED, "force": _FORCE, **_MODEL},
    "series": {"path": _NEEDED, "series": _OPTIONAL},
    "check": {"path": _NEEDED, "weights": _MODEL["weights"]},
    "doctor": {},
    "weights/list": {},
    "weights/info": {"weights": _NEEDED},
    "weights/verify": {"weights": _NEEDED},
    "weights/import": {"source": _NEEDED, "out": _NEEDED, "text": _OPTIONAL},
    "weights/delete": {"folder": _NEEDED},
    "cache/clear": {},
    "cancel": {"target": Field(NUMBER)},
    "ping": {},
}
HEAD = {"id": Field(NUMBER), "request": _NEEDED}


class InvalidError(Exception):
    """A line that is no request of this protocol; its text says why."""


def checked(values: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """The values of these fields, with defaults for those that are missing or null.

    Args:
        where: what the fields belong to, for the error.

    Raises:
        InvalidError: a value is missing or of another kind.
        InputError: a text holds a character that is none.
    """
    found = {}
    for key, field in fields.items():
        value = values.get(key)
        if value is None and field.default is not _REQUIRED:
            found[key] = field.default
            continue
        if not _KINDS[field.kind](value):
            raise InvalidError(f'{where} needs "{key}" as {field.kind}')
        _require_characters(value, f'"{key}" of {where}')
        found[key] = checked(value, field.fields, f'"{key}" of {where}') if field.fields else value
    return found


def _require_characters(value: Any, where: str) -> None:
    """Refuse NUL and half characters, which no file name and no prompt can hold, and what is nested too deep."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise InvalidError(f"{where} is nested deeper than {DEEPEST} levels")
        for text in level:
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)):
                raise InputError(f"{where} holds a character that is none (NUL or half of a pair). Correct the name.")
        inner = [each for each in level if isinstance(each, list | dict)]
        level = [part for each in inner for part in (each if isinstance(each, list) else [*each, *each.values()])]
        depth += 1
