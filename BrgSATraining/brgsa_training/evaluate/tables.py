"""Label tables and score tables, read by case name.

A table is a CSV or TSV file with a header, wide (one row per case, one column per abnormality) or, for scores, long
(one row per case and abnormality, with the columns `abnormality` and `score`, as `brgsa score` writes), or a NumPy file
(.npz, .npy) with one matrix. A case is named without the folder of a path and without the suffix of an image file, so
that `valid_1_a_1.nii.gz` and `valid_1_a_1` are one case. Columns are matched without regard to case, spaces and
underscores.
"""

import math
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brgsa.ct.names import case_name
from brgsa.errors import InputError, UsageError
from brgsa_training.evaluate.table_files import (
    STUDY_COLUMNS,
    case_column_of,
    column_key,
    find_any,
    find_column,
    open_rows,
    patient_column_of,
    pick_columns,
    refuse_doubles,
    some,
)
from brgsa_training.summarize.labels import ID_COLUMN as REPORT_COLUMN
from brgsa_training.summarize.labels import UNCERTAIN, UNCERTAIN_AS

_NAME_ARRAYS = ("case", "cases", "names", "name", "accessions", "accession", "ids", "volumes", "volumename")
_COLUMN_ARRAYS = ("abnormalities", "columns", "labels", "classes", "pathologies")


@dataclass(frozen=True)
class Table:
    """Numbers by case and column.

    Attributes:
        path: the file.
        cases: (n,) distinct case names.
        columns: (m,) distinct column names.
        values: (n, m) float64; NaN where a label is missing.
        ordered: whether `--row-order` named the rows.
        texts: further columns by role, each (n,): "patient" and "study" of a label table where it has them.
        thresholds, probabilities: (n, m) of a long score table that has them, else None.
        notes: what was assumed while reading.
        of_reports: whether a row is a report, which may describe several scans.
    """

    path: Path
    cases: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    ordered: bool = False
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    thresholds: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    of_reports: bool = False


def read_labels(
    path: str | os.PathLike,
    ways: dict[str, list[tuple[str, ...]]],
    case_column: str | None = None,
    patient_column: str | None = None,
    row_order: Sequence[str] | None = None,
    uncertain: str = UNCERTAIN_AS[0],
) -> Table:
    """Read labels; `ways` names, per abnormality, the possible sets of columns, any of which makes it present.

    A label is 1, 0, uncertain (-1) or missing (empty, NaN). `uncertain` says what -1 counts as; "ignore" makes it
    missing. In a table of reports, as `summarize` writes it, an empty cell says that the report does not mention the
    abnormality, and counts as 0. Where no column is 1 and one is missing, the abnormality is missing.

    Raises:
        InputError: a column is missing, a value is something else, a case is doubled or unnamed.
    """
    path = Path(path)
    if path.suffix.lower() in (".npz", ".npy"):
        table = _read_matrix(path, tuple(ways), row_order, _checked_label)
    else:
        table = _read_wide(path, ways, case_column, patient_column, row_order, _label_cell, None)
    counted = {"negative": 0.0, "positive": 1.0, "ignore": math.nan}[uncertain]
    numbers = np.where(table.values == UNCERTAIN, counted, table.values)
    if table.of_reports:
        numbers = np.where(np.isnan(table.values), 0.0, numbers)
    table = replace(table, values=numbers)
    names, values = [], []
    for name, alternatives in ways.items():
        columns = pick_columns(table.path, table.columns, name, alternatives)
        names.append(name)
        values.append(_any_of(table.values[:, columns]))
    return replace(table, columns=tuple(names), values=np.stack(values, axis=1))


def read_scores(
    path: str | os.PathLike,
    ways: dict[str, list[tuple[str, ...]]],
    case_column: str | None = None,
    row_order: Sequence[str] | None = None,
    released_columns: Sequence[str] = (),
) -> Table:
    """Read scores; `ways` names, per abnormality, the possible sets of columns, of which the largest score counts.

    Raises:
        InputError: a column is missing, a score is not a finite number, a case is doubled, unnamed or incomplete.
        UsageError: the rows have no names and no `row_order` was given.
    """
    path = Path(path)
    if path.suffix.lower() in (".npz", ".npy"):
        table = _read_matrix(path, released_columns, row_order, _checked_score)
    else:
        with open_rows(path) as (header, _):
            keys = [column_key(name) for name in header]
        if "abnormality" in keys and "score" in keys:
            table = _read_long(path, ways, case_column)
        else:
            table = _read_wide(path, ways, case_column, None, row_order, _score_cell, released_columns)
    names, values, single = [], [], []
    for name, alternatives in ways.items():
        columns = pick_columns(table.path, table.columns, name, alternatives)
        names.append(name)
        values.append(table.values[:, columns].max(axis=1))
        single.append(columns[0] if len(columns) == 1 else -1)
    extra = {}
    for key in ("thresholds", "probabilities"):
        matrix = getattr(table, key)
        if matrix is not None:
            # A merged score has no threshold or probability of its own.
            blank = np.full(len(matrix), np.nan)
            extra[key] = np.stack([matrix[:, c] if c >= 0 else blank for c in single], axis=1)
    return replace(table, columns=tuple(names), values=np.stack(values, axis=1), **extra)


def _read_wide(
    path: Path,
    ways: dict[str, list[tuple[str, ...]]],
    case_column: str | None,
    patient_column: str | None,
    row_order: Sequence[str] | None,
    parse: Callable[[str], float],
    released_columns: Sequence[str] | None,
) -> Table:
    notes: list[str] = []
    with open_rows(path) as (header, rows):
        header = list(header)
        if released_columns is not None and _is_numbered(header):
            index_column = header[0].strip() == "" or column_key(header[0]).startswith("unnamed")
            names = header[1:] if index_column else header
            if row_order is None:
                raise UsageError(
                    f"{path}: the columns are numbered and the rows have no names; give the list that names the rows "
                    "in order with --row-order FILE"
                )
            if len(names) != len(released_columns):
                raise InputError(
                    f"{path}: {len(names)} numbered columns, but the benchmark names {len(released_columns)}"
                )
            header = [""] * index_column + list(released_columns)
            notes.append(f"the numbered columns of {path.name} were taken in the benchmark's order")
            case = None
        else:
            case = case_column_of(path, header, case_column, required=row_order is None)
        wanted = list(dict.fromkeys(column for sets in ways.values() for way in sets for column in way))
        places = {column: place for column in wanted if (place := find_column(path, header, column)) is not None}
        for name, alternatives in ways.items():
            pick_columns(path, tuple(places), name, alternatives, header)
        roles = {}
        if released_columns is None:
            roles = {
                "patient": patient_column_of(path, header, patient_column),
                "study": find_any(header, STUDY_COLUMNS),
            }
            roles = {role: place for role, place in roles.items() if place not in (None, case)}
        cases: list[str] = []
        values = array("d")
        texts: dict[str, list[str]] = {role: [] for role in roles}
        columns, order = list(places), list(places.values())
        for number, row in rows:
            if case is not None:
                cases.append(case_name(row[case]))
                if not cases[-1]:
                    raise InputError(f"{path}: row {number} has no case name")
            try:
                values.extend([parse(row[place]) for place in order])
            except ValueError:
                raise _cell_error(path, number, header, order, row, parse) from None
            for role, place in roles.items():
                texts[role].append(row[place].strip())
    matrix = (
        np.frombuffer(values, dtype=np.float64).reshape(-1, len(columns)) if values else np.zeros((0, len(columns)))
    )
    if case is None:
        cases = _ordered(path, len(matrix), row_order)
        notes.append(f"the rows of {path.name} were named by --row-order")
    if not cases:
        raise InputError(f"{path}: the table has no rows")
    refuse_doubles(path, cases)
    texts = {role: tuple(values) for role, values in texts.items()}
    of_reports = case is not None and column_key(header[case]) == REPORT_COLUMN
    return Table(
        path, tuple(cases), tuple(columns), matrix, case is None, texts, notes=tuple(notes), of_reports=of_reports
    )


def _read_long(path: Path, ways: dict[str, list[tuple[str, ...]]], case_column: str | None) -> Table:
    wanted = {column_key(column): column for sets in ways.values() for way in sets for column in way}
    case_index: dict[str, int] = {}
    column_index: dict[str, int] = {}
    cases, columns, numbers = array("q"), array("i"), {key: array("d") for key in ("score", "threshold", "probability")}
    with open_rows(path) as (header, rows):
        case = case_column_of(path, header, case_column, required=True)
        abnormality = find_any(header, ["abnormality"])
        places = {key: place for key in numbers if (place := find_any(header, [key])) is not None}
        for number, row in rows:
            column = wanted.get(column_key(row[abnormality]))
            if column is None:
                continue
            name = case_name(row[case])
            if not name:
                raise InputError(f"{path}: row {number} has no case name")
            cases.append(case_index.setdefault(name, len(case_index)))
            columns.append(column_index.setdefault(column, len(column_index)))
            for key, place in places.items():
                try:
                    value = _score_cell(row[place]) if key == "score" or row[place].strip() else math.nan
                except ValueError:
                    raise _cell_error(path, number, header, [place], row, _score_cell) from None
                numbers[key].append(value)
    if not case_index:
        raise InputError(f"{path}: no row has one of the abnormalities {some(list(wanted.values()))}")
    shape = (len(case_index), len(column_index))
    flat = np.frombuffer(cases, dtype=np.int64) * shape[1] + np.frombuffer(columns, dtype=np.int32)
    names, column_names = list(case_index), list(column_index)
    times = np.bincount(flat, minlength=shape[0] * shape[1])
    for wrong, text in ((times > 1, "occurs {} times"), (times == 0, "has no score")):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            what = text.format(times[first])
            raise InputError(
                f"{path}: case {names[first // shape[1]]!r} {what} for {column_names[first % shape[1]]!r}"
                + (f" ({int(wrong.sum())} such pairs)" if wrong.sum() > 1 else "")
            )
    matrices = {}
    for key in places:
        matrix = np.full(shape[0] * shape[1], np.nan)
        matrix[flat] = np.frombuffer(numbers[key], dtype=np.float64)
        matrices[key] = matrix.reshape(shape)
    return Table(
        path,
        tuple(names),
        tuple(column_names),
        matrices["score"],
        thresholds=matrices.get("threshold"),
        probabilities=matrices.get("probability"),
    )


def _read_matrix(
    path: Path, default_columns: Sequence[str], row_order: Sequence[str] | None, check: Callable[[Path, Table], None]
) -> Table:
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"data": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not readable as a NumPy file without objects ({error})") from error
    matrices = [key for key, value in arrays.items() if value.ndim == 2 and value.dtype.kind in "fiub"]
    if len(matrices) != 1:
        raise InputError(f"{path}: needs one matrix of numbers, has {len(matrices)} ({some(list(arrays))})")
    values = arrays[matrices[0]].astype(np.float64)
    texts = {column_key(key): value for key, value in arrays.items() if value.ndim == 1 and value.dtype.kind == "U"}
    names = next((texts[key] for key in _NAME_ARRAYS if key in texts), None)
    columns = next((texts[key] for key in _COLUMN_ARRAYS if key in texts), None)
    notes = []
    if columns is None:
        columns = default_columns
        notes.append(f"the columns of {path.name} were taken in the benchmark's order")
    if len(columns) != values.shape[1]:
        raise InputError(f"{path}: {values.shape[1]} columns, but {len(columns)} names for them")
    if names is None:
        if row_order is None:
            raise UsageError(f"{path}: the rows have no names; give the list that names them with --row-order FILE")
        cases = _ordered(path, len(values), row_order)
        notes.append(f"the rows of {path.name} were named by --row-order")
    else:
        cases = [case_name(str(name)) for name in names]
        if len(cases) != len(values):
            raise InputError(f"{path}: {len(values)} rows, but {len(cases)} names for them")
    if not cases:
        raise InputError(f"{path}: the table has no rows")
    refuse_doubles(path, cases)
    columns = tuple(str(column) for column in columns)
    table = Table(path, tuple(cases), columns, values, names is None, notes=tuple(notes))
    check(path, table)
    return table


def _checked_label(path: Path, table: Table) -> None:
    wrong = ~(np.isnan(table.values) | np.isin(table.values, (0, 1, UNCERTAIN)))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        value = table.values[row, column]
        raise InputError(
            f"{path}: row {row}, column {table.columns[column]!r}: label {value:g} is none of 1, 0, -1 or NaN"
        )


def _checked_score(path: Path, table: Table) -> None:
    if not np.isfinite(table.values).all():
        row, column = np.argwhere(~np.isfinite(table.values))[0]
        raise InputError(
            f"{path}: row {row}, column {table.columns[column]!r}: score {table.values[row, column]} is not a finite "
            "number; score this case again or leave it out"
        )


_LABELS = {"": math.nan, "nan": math.nan, "-1": -1.0, "-1.0": -1.0, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}
_LABELS |= {"false": 0.0, "true": 1.0}


def _label_cell(text: str) -> float:
    try:
        return _LABELS[text]
    except KeyError:
        pass
    text = text.strip().lower()
    if text in _LABELS:
        return _LABELS[text]
    value = float(text)
    if value not in (0.0, 1.0, -1.0):
        raise ValueError(text)
    return value


def _score_cell(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _cell_error(
    path: Path, number: int, header: Sequence[str], places: Iterable[int], row: Sequence[str], parse: Callable
) -> InputError:
    for place in places:
        try:
            parse(row[place])
        except ValueError:
            where = f"{path}: row {number}, column {header[place]!r}"
            if parse is _label_cell:
                return InputError(f"{where}: label {row[place]!r} is none of 1, 0, -1 or empty")
            return InputError(
                f"{where}: score {row[place]!r} is not a finite number; score this case again or leave it out"
            )
    raise AssertionError("every cell of the row can be read")


def _is_numbered(header: Sequence[str]) -> bool:
    names = [name.strip() for name in header]
    if names and (names[0] == "" or column_key(names[0]).startswith("unnamed")):
        names = names[1:]
    return names == [str(i) for i in range(len(names))] and bool(names)


def _ordered(path: Path, rows: int, row_order: Sequence[str] | None) -> list[str]:
    if row_order is None or len(row_order) != rows:
        raise InputError(f"{path}: {rows} rows, but --row-order names {len(row_order or ())}")
    return list(row_order)


def _any_of(values: np.ndarray) -> np.ndarray:
    present = (values == 1).any(axis=1)
    missing = np.isnan(values).any(axis=1)
    return np.where(present, 1.0, np.where(missing, np.nan, 0.0))
