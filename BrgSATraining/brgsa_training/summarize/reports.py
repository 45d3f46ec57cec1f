"""Reading reports from CSV or JSONL, one at a time, whatever their columns are called."""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from brgsa.ct.names import case_name
from brgsa.errors import InputError
from brgsa.files import csv_dicts

# Tried in this order, without regard to case, when the user names no columns. The first are CT-RATE's own.
ID_COLUMNS = ("VolumeName", "id", "report_id", "case", "study_id", "AccessionNumber", "StudyInstanceUID")
FINDINGS_COLUMNS = ("Findings_EN", "findings", "finding", "findings_text")
IMPRESSION_COLUMNS = ("Impressions_EN", "impressions", "impression", "conclusion", "conclusions", "impression_text")
TEXT_COLUMNS = ("report_text", "report", "text")
IMAGE_COLUMNS = ("VolumeName", "volume_names", "images", "image", "path")
DEFAULT_SPLIT = "train"

_VOLUME = re.compile(r"^(?P<scan>.+?)(?:_\d+)?\.nii(?:\.gz)?$")
_SPLIT_OF_ID = re.compile(r"^(train|valid|test)_")
_LONGEST_FIELD = 10_000_000
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can write these, UTF-8 cannot


class Report(NamedTuple):
    """One report.

    `images` are the volumes that it describes (all reconstructions of a scan); `place` is where it stands in `file`.
    """

    id: str
    text: str
    images: tuple[str, ...] = ()
    split: str = DEFAULT_SPLIT
    place: str = ""
    file: str = ""

    @property
    def hash(self) -> str:
        """The sha256 of the text, which names the report in the ledger."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Columns(NamedTuple):
    """The columns to read; None or empty means: find them by their usual names."""

    id: str | None = None
    text: tuple[str, ...] = ()
    images: str | None = None
    split: str | None = None


USUAL_COLUMNS = Columns()


def read_reports(
    paths: str | Path | Sequence[str | Path],
    columns: Columns = USUAL_COLUMNS,
    checked: bool = False,
    ids: Collection[str] | None = None,
) -> Iterator[Report]:
    """Yield the reports of CSV files (with a header line) or JSONL files, in order.

    Text columns are joined by a blank; without names they are the findings and the impression, or the one of them that
    is there, or a column of the whole report. An identifier that is a volume file name, as in CT-RATE's own files,
    stands for the scan: neighbouring rows of one scan with the same text are one report with several images. The split
    is that of its column, else the "train_" or "valid_" that the identifier begins with, else "train". `checked` says
    that an earlier pass found no identifier twice, so that this one need not remember them.

    `ids` chooses reports by their identifier or by one of their volumes, without the suffix of a file.

    Raises:
        InputError: names the row of what cannot be read: a missing column, a broken line, an identifier that is missing
            or used twice; or no report has one of `ids`.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    seen: set[bytes] = set()
    found = False
    for path in files:
        for report in _reports_of(path, columns, None if checked else seen):
            if ids is None or report.id in ids or any(case_name(image) in ids for image in report.images):
                found = True
                yield report
    if not found:
        raise InputError(f"none of the identifiers of --ids is in {', '.join(map(str, files))}.")


def _reports_of(path: Path, columns: Columns, seen: set[bytes] | None) -> Iterator[Report]:
    rows = _json_rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(path)
    pending: Report | None = None
    build: Callable[[Mapping[str, Any], str], Report] | None = None
    for place, row in rows:
        build = build or _builder(path, row, columns)
        report = build(row, place)
        if pending and report.id == pending.id and report.text == pending.text:
            images = tuple(dict.fromkeys(pending.images + report.images))
            if images == pending.images:
                raise InputError(
                    f"{path}, {place}: {report.id!r} is the same as in {pending.place}. Remove one of them."
                )
            pending = pending._replace(images=images)
            continue
        if pending:
            yield pending
        if seen is not None:
            key = hashlib.blake2b(report.id.encode(), digest_size=8).digest()
            if key in seen:
                raise InputError(
                    f"{path}, {place}: the identifier {report.id!r} is used before. "
                    "Give every report its own identifier, and put rows of one report next to each other."
                )
            seen.add(key)
        pending = report
    if pending is None:
        raise InputError(f"{path} holds no report. Give a CSV file with a header line, or one JSON object per line.")
    yield pending


def _builder(path: Path, row: Mapping[str, Any], columns: Columns) -> Callable[[Mapping[str, Any], str], Report]:
    names = {name.lower(): name for name in reversed(list(row))}

    def named(column: str, option: str) -> str:
        if column not in row:
            raise InputError(f"{path} has no column {column!r} ({option}). It has: {', '.join(row)}.")
        return column

    def usual(candidates: tuple[str, ...]) -> str | None:
        return next((names[name.lower()] for name in candidates if name.lower() in names), None)

    identifier = named(columns.id, "--id-column") if columns.id else usual(ID_COLUMNS)
    if columns.text:
        text = tuple(named(column, "--text-columns") for column in columns.text)
    else:
        parts = tuple(column for column in (usual(FINDINGS_COLUMNS), usual(IMPRESSION_COLUMNS)) if column)
        whole = usual(TEXT_COLUMNS)
        text = (whole,) if whole and len(parts) < 2 else parts
    if identifier is None or not text:
        what, option = ("an identifier", "--id-column") if identifier is None else ("report text", "--text-columns")
        raise InputError(
            f"{path} has no column that looks like {what}. Name it with {option}; it has: {', '.join(row)}."
        )
    images = named(columns.images, "--image-column") if columns.images else usual(IMAGE_COLUMNS)
    split = named(columns.split, "--split-column") if columns.split else None

    def build(row: Mapping[str, Any], place: str) -> Report:
        try:
            name = str(row[identifier] if row[identifier] is not None else "").strip()
            parts = [str(row[column] or "").strip() for column in text]
            volumes = row.get(images) if images else None
            group = str(row[split]).strip() if split else ""
        except KeyError as error:
            raise InputError(f"{path}, {place}: {error.args[0]!r} is missing.") from error
        if not name:
            raise InputError(f"{path}, {place}: the identifier ({identifier}) is empty.")
        volume = _VOLUME.match(name)
        if volume:
            name = volume["scan"]
        if isinstance(volumes, str):
            volumes = [volumes.strip()] if volumes.strip() else []
        elif not isinstance(volumes, list | None):
            raise InputError(f"{path}, {place}: {images!r} is neither a text nor a list.")
        prefix = _SPLIT_OF_ID.match(name)
        group = group or (prefix[1] if prefix else DEFAULT_SPLIT)
        joined = " ".join(part for part in parts if part)
        if _HALF_CHARACTER.search(name + joined):
            raise InputError(f"{path}, {place}: it holds half of a character (\\ud800 to \\udfff). Write the row anew.")
        return Report(name, joined, tuple(str(item) for item in volumes or ()), group, place, str(path))

    return build


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_dicts(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            if reader.fieldnames is not None and len(set(reader.fieldnames)) < len(reader.fieldnames):
                raise InputError(f"{path} has two columns of the same name. Rename one of them.")
            for number, row in enumerate(reader, 2):
                if None in row or None in row.values():
                    raise InputError(f"{path}, row {number}: it has another number of fields than the header line.")
                yield f"row {number}", row
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: not valid JSON ({error}).") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {number}: not a JSON object.")
                yield f"line {number}", row
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
