"""Scans of a plain folder, of single files, or of a CSV table."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from brgsa.ct.cases import find_cases
from brgsa.errors import InputError
from brgsa.files import csv_dicts
from brgsa_training.data.scan import Scan


def list_folder(inputs: Sequence[str | os.PathLike], studies: str | os.PathLike | None = None) -> list[Scan]:
    """List the scans that `brgsa score` would find in the same inputs.

    Args:
        inputs: image files, DICOM folders, folder trees, or CSV tables with a `path` column.
        studies: CSV with the columns `case`, `study` and optionally `patient`; without it, or for a case it does not
            name, every case is a study and a patient of its own.

    Raises:
        InputError: see `brgsa.ct.cases.find_cases`; or the table of studies cannot be used.
    """
    known = read_studies(studies) if studies else {}
    scans = []
    for case in find_cases(inputs):
        study, patient = known.get(case.name, (case.name, case.name))
        scans.append(Scan(case.name, study, patient, case.path, case.series))
    return scans


def read_studies(path: str | os.PathLike) -> dict[str, tuple[str, str]]:
    """Read case -> (study, patient)."""
    rows = read_table(path, ("case", "study"))
    return {row["case"]: (row["study"], row.get("patient") or row["study"]) for row in rows}


def read_table(path: str | os.PathLike, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV table that has at least these columns.

    Raises:
        InputError: no file, no table, no rows, a column is missing, or a row has more or fewer cells than the header.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_dicts(file)
            names, rows = reader.fieldnames or [], list(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the name.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 CSV table; save it as CSV UTF-8.") from error
    if missing := [name for name in columns if name not in names]:
        raise InputError(
            f"{path}: has no column named {', '.join(missing)} (its columns: {', '.join(names) or 'none'})."
        )
    if not rows:
        raise InputError(f"{path}: has no rows below its first line.")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"{path}: row {number} has another number of cells than the first line; repair it.")
    return rows
