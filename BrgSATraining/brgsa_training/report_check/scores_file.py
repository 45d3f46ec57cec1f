"""Scores that were made before: a `scores.json` of `brgsa score`, read without the model's packages."""

import json
import math
from pathlib import Path
from typing import Any

from brgsa.errors import InputError

SUFFIX = ".json"
VERSION = 1  # as `brgsa.scores.SCORES_VERSION`, which needs numpy
_KINDS = {"case": str, "scores": list, "findings": list, "messages": list, "settings": dict}


def read_scores(path: Path) -> dict[str, Any]:
    """Return the content of the file.

    Raises:
        InputError: it cannot be read or is no `scores.json`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Give a scores.json of brgsa score.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON. Give a scores.json of brgsa score.") from error
    if not isinstance(content, dict) or any(not isinstance(content.get(key), kind) for key, kind in _KINDS.items()):
        raise InputError(f"{path} holds no scores. Give a scores.json of brgsa score.")
    if content.get("version") != VERSION:
        version = content.get("version")
        raise InputError(f"{path} has version {version!r}, this program reads version {VERSION}. Score the scan again.")
    if not content["scores"] or not all(map(_is_row, content["scores"])):
        raise InputError(f"{path} holds no scores, or a row that is none. Score the scan again.")
    return {"path": "", "notice": None, "flags": [], **content}


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not _is_number(row.get("score")):
        return False
    return all(key in row and (row[key] is None or _is_number(row[key])) for key in ("threshold", "probability"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
