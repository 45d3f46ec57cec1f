"""Label tables: one row per report, one column per abnormality.

A cell is 1 for present, 0 for absent, -1 for uncertain, and empty for not mentioned.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from brgsa.errors import InputError
from brgsa.files import csv_reader, write_csv
from brgsa_training.summarize.findings import Summary
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np

ID_COLUMN = "report"
VALUES = {Status.PRESENT: "1", Status.ABSENT: "0", Status.UNCERTAIN: "-1"}
UNCERTAIN = -1
NOT_MENTIONED = -2
NOT_REVIEWED = -3  # a cell that no reader has looked at: it counts nowhere
UNCERTAIN_AS = ("negative", "positive", "ignore")  # what an uncertain label counts as; the first is the default


class LabelTable(NamedTuple):
    """`values` is (reports, abnormalities) int8: 1, 0, UNCERTAIN or NOT_MENTIONED."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    values: "np.ndarray"


def add_uncertain_option(parser: Any) -> None:
    """Add `--uncertain`, which is the same and has the same default wherever labels are counted."""
    parser.add_argument(
        "--uncertain",
        choices=UNCERTAIN_AS,
        default=UNCERTAIN_AS[0],
        help="what an uncertain label (-1) counts as; ignore leaves it out (default: %(default)s)",
    )


def write_labels(path: str | Path, summaries: Iterable[Summary], names: Sequence[str], vocabulary: Vocabulary) -> None:
    """Write the label table of summaries; reports that failed have no row."""

    def rows() -> Iterable[list[str]]:
        for summary in summaries:
            if not summary.problem:
                statuses = summary.statuses(vocabulary)
                yield [summary.id, *(VALUES[statuses[name]] if name in statuses else "" for name in names)]

    write_csv(path, [ID_COLUMN, *names], rows())


def read_labels(path: str | Path, id_column: str | None = None) -> LabelTable:
    """Read a label table; the first column is the identifier unless another is named.

    Columns with anything but 1, 0, -1 and empty cells ("1.0" is 1) are not abnormalities and are left out.

    Raises:
        InputError: the table cannot be read, has no label column, or has an identifier twice.
    """
    import numpy as np  # late: writing labels does without it, and starts faster

    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv_reader(file)) or [[]]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a UTF-8 CSV table ({error}).") from error
    if id_column is not None and id_column not in header:
        raise InputError(f"{path} has no column {id_column!r}. It has: {', '.join(header)}.")
    at = header.index(id_column) if id_column else 0
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(f"{path}, row {number}: it has {len(row)} fields, the header line has {len(header)}.")
    ids = tuple(row[at].strip() for row in rows)
    if len(set(ids)) < len(ids):
        twice = next(name for number, name in enumerate(ids) if name in ids[:number])
        raise InputError(f"{path}: {twice!r} has two rows. Keep one row per report.")
    meaning = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": UNCERTAIN, "-1.0": UNCERTAIN, "": NOT_MENTIONED}
    names, columns = [], []
    for column, name in enumerate(header):
        cells = [row[column].strip() for row in rows]
        if column != at and all(cell in meaning for cell in cells):
            names.append(name)
            columns.append([meaning[cell] for cell in cells])
    if not names or not ids:
        raise InputError(f"{path} has no column of labels (1, 0, -1 or empty) or no row.")
    return LabelTable(ids, tuple(names), np.array(columns, dtype=np.int8).T)
