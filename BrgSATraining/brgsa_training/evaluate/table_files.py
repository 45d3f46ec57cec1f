"""Files with a header and one row per case: rows, case names and the columns that hold them."""

import csv
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from brgsa.ct.names import case_name
from brgsa.errors import InputError
from brgsa.files import csv_reader

CASE_COLUMNS = (
    "case", "case_id", "volumename", "volume", "accessionname", "accession", "accessionnumber", "accno", "noteacc_deid",
    "image_id", "impression_id", "scan", "scan_id", "study", "study_id", "filename", "file", "name", "id", "path",
    "report",
)  # fmt: skip
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject", "subject_id", "subjectid", "person_id")
STUDY_COLUMNS = ("study", "study_id")

_PROGRESS_FROM_BYTES = 20_000_000


def read_row_order(path: str | os.PathLike) -> tuple[str, ...]:
    """Read the case names of a list without numbers: a CSV with a case or path column, or a text with one per line.

    Raises:
        InputError: the file cannot be read or names a case twice.
    """
    path = Path(path)
    with open_rows(path) as (header, rows):
        column = find_any(header, CASE_COLUMNS)
        if column is None and len(header) > 1:
            raise InputError(f"{path}: no case or path column among {some(header)}")
        cases = [case_name(row[column or 0]) for _, row in rows]
    if column is None:
        # A plain list has no header: its first line is a case.
        cases.insert(0, case_name(header[0]))
    refuse_doubles(path, cases)
    return tuple(cases)


def read_patients(path: str | os.PathLike) -> dict[str, tuple[str, str | None]]:
    """Read a CSV with the columns `case`, `patient` and perhaps `study` into case -> (patient, study).

    Raises:
        InputError: a column is missing, a patient is empty, or a case is doubled.
    """
    path = Path(path)
    found = {}
    with open_rows(path) as (header, rows):
        # A `study` column names the study here, not the case.
        case = find_any(header, [name for name in CASE_COLUMNS if name not in STUDY_COLUMNS])
        patient, study = find_any(header, PATIENT_COLUMNS), find_any(header, STUDY_COLUMNS)
        if case is None or patient is None:
            raise InputError(f"{path}: needs the columns `case` and `patient`, has {some(header)}")
        for number, row in rows:
            name = case_name(row[case])
            if name in found:
                raise InputError(f"{path}: case {name!r} occurs twice, the second time in row {number}")
            if not row[patient].strip():
                raise InputError(f"{path}: row {number} (case {name!r}) has no patient")
            found[name] = (row[patient].strip(), row[study].strip() or None if study is not None else None)
    return found


@contextmanager
def open_rows(path: Path) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV or TSV file; give its header and its numbered rows (the header is row 1), all of one length."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        try:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count) if path.suffix.lower() != ".tsv" else "\t"
            reader = csv_reader(file, delimiter=delimiter)
            header = next(reader, None)
            if not header or not first.strip():
                raise InputError(f"{path}: the file is empty")
            yield header, _numbered(path, reader, len(header))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})") from error
        except csv.Error as error:
            raise InputError(f"{path}: not readable as CSV ({error})") from error


def _numbered(path: Path, reader: Iterator[list[str]], width: int) -> Iterator[tuple[int, list[str]]]:
    from tqdm import tqdm  # late: names of cases and columns do without it

    show = path.stat().st_size > _PROGRESS_FROM_BYTES
    for number, row in enumerate(tqdm(reader, desc=path.name, unit=" rows", disable=not show), start=2):
        if not row:
            continue
        if len(row) != width:
            raise InputError(f"{path}: row {number} has {len(row)} cells, the header has {width}")
        yield number, row


def case_column_of(path: Path, header: Sequence[str], chosen: str | None, required: bool) -> int | None:
    if chosen is not None:
        place = find_column(path, header, chosen)
        if place is not None:
            return place
    place = find_any(header, CASE_COLUMNS)
    if place is None and required:
        raise InputError(f"{path}: no case column among {some(header)}; name it with --case-column")
    return place


def patient_column_of(path: Path, header: Sequence[str], chosen: str | None) -> int | None:
    if chosen is None:
        return find_any(header, PATIENT_COLUMNS)
    place = find_column(path, header, chosen)
    if place is None:
        raise InputError(f"{path}: no patient column {chosen!r} among {some(header)}")
    return place


def pick_columns(
    path: Path,
    columns: Sequence[str],
    name: str,
    alternatives: list[tuple[str, ...]],
    header: Sequence[str] | None = None,
) -> list[int]:
    keys = {column_key(column): i for i, column in enumerate(columns)}
    for way in alternatives:
        if all(column_key(column) in keys for column in way):
            return [keys[column_key(column)] for column in way]
    needed = alternatives[0]
    missing = [column for column in needed if column_key(column) not in keys]
    header = columns if header is None else header
    near = difflib.get_close_matches(missing[0], header, n=1, cutoff=0.75)
    hint = f" Did you mean its column {near[0]!r}?" if near else f" Its columns: {some(header)}."
    of = "" if missing[0] == name else f" (for {name!r})"
    raise InputError(f"{path}: no column {missing[0]!r}{of}.{hint} Without it: --leave-out {name!r}.")


def find_column(path: Path, header: Sequence[str], column: str) -> int | None:
    places = [i for i, name in enumerate(header) if column_key(name) == column_key(column)]
    if len(places) > 1:
        raise InputError(f"{path}: the column {column!r} occurs {len(places)} times")
    return places[0] if places else None


def find_any(header: Sequence[str], names: Sequence[str]) -> int | None:
    keys = [column_key(name) for name in header]
    return next((keys.index(column_key(name)) for name in names if column_key(name) in keys), None)


def column_key(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name).strip().casefold()


def refuse_doubles(path: Path, cases: Sequence[str]) -> None:
    if len(set(cases)) == len(cases):
        return
    seen: dict[str, int] = {}
    for row, case in enumerate(cases):
        if case in seen:
            raise InputError(
                f"{path}: case {case!r} occurs twice, in rows {seen[case] + 2} and {row + 2}; every case needs one row"
            )
        seen[case] = row


def some(names: Sequence[str], limit: int = 6) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
