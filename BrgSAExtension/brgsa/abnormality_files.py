"""Abnormality lists as files: JSON, CSV and plain text.

JSON follows `data/abnormalities/abnormality-list.schema.json` and holds everything.

CSV has one abnormality a row, UTF-8, separated by commas, semicolons or tabs, and a first row with column names: `name`
and any of `COLUMNS`. Several prompts stand on several lines of one cell. Empty cells mean the default.

Plain text has one name a line. Prompts other than the default follow the name, each after a tab. Lines that start with
`#` are comments.

Nothing here knows what makes an abnormality valid; this is only the way between a file and its fields.
"""

import codecs
import csv
import difflib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brgsa.errors import InputError, UsageError
from brgsa.files import atomic_open, csv_reader, write_csv, write_json
from brgsa.text import shorten

FORMATS = (".json", ".csv", ".txt")
VERSION = 1
MAX_BYTES = 5_000_000
HEAD_KEYS = ("name", "description", "source")
ABNORMALITY_KEYS = ("name", "prompts", "negative_prompts", "group", "codes", "threshold")
# CSV columns that hold a code: system, then the key inside the code (None: the code is the text itself).
CODE_COLUMNS = {
    "radlex_id": ("radlex", "id"),
    "radlex_label": ("radlex", "label"),
    "radlex_match": ("radlex", "match"),
    "snomed_id": ("snomed", "id"),
    "snomed_label": ("snomed", "label"),
    "snomed_match": ("snomed", "match"),
    "oifm_id": ("oifm", None),
}
COLUMNS = ("name", "prompts", "negative_prompts", "group", "threshold", *CODE_COLUMNS)

Rows = list[tuple[str, dict[str, Any]]]


def read(path: str | os.PathLike) -> tuple[dict[str, Any], Rows]:
    """Return the fields of a list (`name` and, from JSON, `description` and `source`) and, for each abnormality, where
    it stands ("row 3") and its fields.

    Raises:
        UsageError: the suffix is none of `.json`, `.csv`, `.txt`.
        InputError: the file cannot be read; the message names the file and the row.
    """
    path = Path(path)
    reader = {".json": _read_json, ".csv": _read_csv, ".txt": _read_text}[_format(path)]
    head, rows = reader(_contents(path), path)
    return {"name": path.stem} | head, rows


def write(path: str | os.PathLike, head: Mapping[str, Any], abnormalities: Sequence[Mapping[str, Any]]) -> None:
    """Write a list in the format that the suffix names; `abnormalities` are dicts as the JSON format has them.

    Raises:
        UsageError: another suffix, or a name that plain text cannot hold.
        BrgSAError: the file cannot be written.
    """
    path = Path(path)
    if _format(path) == ".json":
        kept = {key: value for key, value in head.items() if value}
        write_json(path, {"version": VERSION} | kept | {"abnormalities": list(abnormalities)})
    elif _format(path) == ".csv":
        cells = [_to_cells(abnormality) for abnormality in abnormalities]
        columns = [column for column in COLUMNS if column in ("name", "prompts") or any(column in row for row in cells)]
        write_csv(path, columns, ([row.get(column, "") for column in columns] for row in cells))
    else:
        for abnormality in abnormalities:
            if abnormality["name"].startswith("#"):
                raise UsageError(
                    f'the name "{abnormality["name"]}" would be a comment in plain text. Write .csv or .json.'
                )
        with atomic_open(path) as file:
            for abnormality in abnormalities:
                file.write("\t".join([abnormality["name"], *abnormality.get("prompts", [])]) + "\n")


def closest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "…"?)` for the known word most like `word`, or nothing."""
    found = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f' (did you mean "{found[0]}"?)' if found else ""


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path}: an abnormality list ends in {', '.join(FORMATS)}. Rename the file.")
    return suffix


def _contents(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file. Give an abnormality list ({', '.join(FORMATS)}).")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes; an abnormality list has at most {MAX_BYTES:,}."
            )
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Check the path of the abnormality list.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, row {line}: not UTF-8 text. Save the file with the encoding UTF-8.") from error
    if not text.strip():
        raise InputError(f"{path} is empty. Write at least one abnormality.")
    return text


def _read_json(text: str, path: Path) -> tuple[dict[str, Any], Rows]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, row {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON that can be used (numbers too long or lists too deep).") from error
    if not isinstance(content, dict):
        raise InputError(f'{path}: the file must hold an object with "version", "name" and "abnormalities".')
    _refuse_unknown(content, ("version", *HEAD_KEYS, "abnormalities"), f"{path}")
    if "version" not in content:
        raise InputError(f'{path}: "version" is missing. Write "version": {VERSION}.')
    if type(content["version"]) is not int or content["version"] != VERSION:
        raise InputError(f"{path}: version {content['version']!r} is unknown; this program reads version {VERSION}.")
    if "name" not in content:
        raise InputError(f'{path}: "name" is missing. Write a name for the list.')
    abnormalities = content.get("abnormalities")
    if not isinstance(abnormalities, list):
        raise InputError(f'{path}: "abnormalities" must be a list of objects with a "name".')
    rows = []
    for n, values in enumerate(abnormalities, 1):
        place = f"abnormality {n}"
        if not isinstance(values, dict) or "name" not in values:
            raise InputError(f'{path}, {place}: must be an object with a "name", such as {{"name": "Pneumonia"}}.')
        _refuse_unknown(values, ABNORMALITY_KEYS, f"{path}, {place}")
        rows.append((place, values))
    return {key: content[key] for key in HEAD_KEYS if key in content}, rows


def _read_csv(text: str, path: Path) -> tuple[dict[str, Any], Rows]:
    # Spreadsheets write semicolons, and decimal commas, where the comma is the decimal mark.
    first = text.lstrip("\r\n").splitlines()[0]
    delimiter = max(",;\t", key=lambda mark: sum(_column(cell) in COLUMNS for cell in first.split(mark)))
    reader = csv_reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    rows: Rows = []
    row = 0
    try:
        for row, cells in enumerate(reader, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, path)
            else:
                rows.append((f"row {row}", _from_cells(cells, header, delimiter != ",", f"{path}, row {row}")))
    except csv.Error as error:
        raise InputError(f"{path}, row {row + 1}: not CSV ({error}). Check the quotes.") from error
    return {}, rows


def _column(cell: str) -> str:
    return cell.strip().strip('"').strip().lower()


def _header(cells: Sequence[str], path: Path) -> list[str]:
    header = [_column(cell) for cell in cells]
    if "name" not in header:
        raise InputError(f'{path}: no column "name". The first row must name the columns: {", ".join(COLUMNS)}.')
    _refuse_unknown([column for column in header if column], COLUMNS, f"{path}, row 1", "column")
    repeated = [column for column in header if column and header.count(column) > 1]
    if repeated:
        raise InputError(f'{path}, row 1: the column "{repeated[0]}" occurs twice. Delete one.')
    return header


def _from_cells(cells: Sequence[str], header: Sequence[str], decimal_comma: bool, place: str) -> dict[str, Any]:
    extra = [cell for n, cell in enumerate(cells) if cell.strip() and (n >= len(header) or not header[n])]
    if extra:
        raise InputError(f'{place}: "{extra[0][:60]}" is in no named column. Put quotes around cells that hold commas.')
    found = {column: cell.strip() for column, cell in zip(header, cells, strict=False) if column and cell.strip()}
    values: dict[str, Any] = {"name": found.get("name", "")}
    for column in ("prompts", "negative_prompts"):
        if column in found:
            values[column] = [line for line in found[column].splitlines() if line.strip()]
    if "group" in found:
        values["group"] = found["group"]
    if "threshold" in found:
        number = found["threshold"].replace(",", ".") if decimal_comma else found["threshold"]
        try:
            values["threshold"] = float(number)
        except ValueError as error:
            raise InputError(f'{place}: threshold "{shorten(found["threshold"], 40)}" is not a number.') from error
    codes: dict[str, Any] = {}
    for column, (system, key) in CODE_COLUMNS.items():
        if column in found and key is None:
            codes[system] = found[column]
        elif column in found:
            codes.setdefault(system, {})[key] = found[column]
    return values | ({"codes": codes} if codes else {})


def _to_cells(abnormality: Mapping[str, Any]) -> dict[str, Any]:
    cells = {key: abnormality[key] for key in ("name", "group", "threshold") if key in abnormality}
    for column in ("prompts", "negative_prompts"):
        if column in abnormality:
            cells[column] = "\n".join(abnormality[column])
    codes = abnormality.get("codes", {})
    for column, (system, key) in CODE_COLUMNS.items():
        if system in codes and (key is None or key in codes[system]):
            cells[column] = codes[system] if key is None else codes[system][key]
    return cells


def _read_text(text: str, path: Path) -> tuple[dict[str, Any], Rows]:
    rows: Rows = []
    for row, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, *prompts = line.split("\t")
            rows.append((f"row {row}", {"name": name, "prompts": [prompt for prompt in prompts if prompt.strip()]}))
    return {}, rows


def _refuse_unknown(keys: Iterable[str], known: Sequence[str], place: str, what: str = "key") -> None:
    for key in keys:
        if key not in known:
            raise InputError(f'{place}: unknown {what} "{key[:60]}"{closest(key, known)}. Known: {", ".join(known)}.')
