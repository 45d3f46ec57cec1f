"""Finding the scans of an index that are most like a scan, or that fit a text best.

    index = ScanIndex.open("index")
    similar_to_text(index, scorer, "There is a pleural effusion", top=5)

An index is a folder that `brgsa.batch.index` writes (docs/similar-cases.md):

    INDEX/index.json              version, weights and their checksum, number of scans, name of the data folder,
                                  cases that were put in although the input checks refuse them
    INDEX/data-00001/scans.csv    case, path, series, fingerprint: one row per scan, in the order of the matrices
    INDEX/data-00001/direct.npy   u = v / |v|, (N, E) float32
    INDEX/data-00001/final.npy    (u + u_hat) / 2, (N, E) float32, u_hat the unit vector of v_hat

With t the unit vector of a text, `final @ t` is its released score (cos(v, t) + cos(v_hat, t)) / 2 (docs/method.md
a.4), and `direct @ u'` the cosine of two scans: one matrix-vector product answers either question.
"""

import csv
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brgsa.ct.cases import Case, absolute
from brgsa.errors import FORCED, InputError, SetupError, UsageError
from brgsa.files import csv_reader
from brgsa.text import clean

if TYPE_CHECKING:
    from brgsa.scoring import Scorer

INDEX = "index.json"
SCANS = "scans.csv"
KINDS = ("direct", "final")
COLUMNS = ("case", "path", "series", "fingerprint")
VERSION = 1
ROWS_AT_A_TIME = 16_384  # 50 MB of the released model's embeddings


@dataclass(frozen=True)
class Hit:
    """One scan of the index.

    Attributes:
        row: its row in the index.
        score: cosine in [-1, 1], computed in float64 from the stored float32 vectors.
        forced: the scan is in the index although the input checks refuse it.
    """

    row: int
    case: Case
    score: float
    forced: bool = False

    @property
    def missing(self) -> bool:
        """The scan is no longer where it was when it was indexed."""
        return not self.case.path.exists()

    def to_dict(self, rank: int) -> dict[str, Any]:
        """What JSON answers say of it; `rank` counts from 1."""
        return {
            "rank": rank,
            "case": self.case.name,
            "path": str(self.case.path),
            "series": self.case.series,
            "score": round(self.score, 6),
            "missing": self.missing,
            "forced": self.forced,
        }


@dataclass(frozen=True)
class ScanIndex:
    """An index opened for reading; its matrices stay on disk, mapped into memory.

    Attributes:
        about: content of index.json.
        scans: (case name, absolute path, series or "", `Case.fingerprint()` when it was embedded) of each.
        matrices: (N, E) float32 by kind, "direct" and "final".
    """

    folder: Path
    about: dict[str, Any]
    scans: Sequence[tuple[str, str, str, str]]
    matrices: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.scans)

    @cached_property
    def forced(self) -> frozenset[str]:
        """Names of the cases that are in the index although the input checks refuse them."""
        return frozenset(map(str, self.about.get("forced", ())))

    def case(self, row: int) -> Case:
        """The scan of a row."""
        name, path, series, _ = self.scans[row]
        return Case(name, Path(path), series or None)

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "ScanIndex":
        """Open the index in a folder.

        Raises:
            InputError: there is none, or it is damaged, empty or of an unknown version.
        """
        folder = Path(folder)
        about = _read_about(folder)
        try:
            size, width = int(about["scans"]), int(about["embedding_size"])
            data = folder / str(about["data"])
            scans = _read_scans(data / SCANS)
            matrices = {kind: np.load(data / f"{kind}.npy", mmap_mode="r", allow_pickle=False) for kind in KINDS}
        except FileNotFoundError as error:
            raise _damaged(folder, f"{error.filename} is missing") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, csv.Error) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise _damaged(folder, reason) from error
        if size < 1:
            raise InputError(f"{folder}: the index holds no scans. Add some: brgsa index SCANS --out {folder}")
        if len(scans) != size:
            raise _damaged(folder, f"{data / SCANS} has {len(scans)} scans, {INDEX} says {size}")
        for kind, matrix in matrices.items():
            if matrix.shape != (size, width) or matrix.dtype != np.float32:
                found = f"{matrix.dtype} {matrix.shape}"
                raise _damaged(folder, f"{data / kind}.npy is {found}, {INDEX} says float32 {(size, width)}")
        return cls(folder, about, scans, matrices)

    def require_weights(self, checksum: str, name: str) -> None:
        """Refuse a query that was embedded with other weights.

        Raises:
            SetupError: the checksums differ.
        """
        if checksum != self.about.get("weights_checksum"):
            raise SetupError(
                f"{self.folder} was made with the weights {self.about.get('weights')} "
                f"({str(self.about.get('weights_checksum'))[:12]}), not with {name} ({checksum[:12]}), and their "
                "vectors cannot be compared. Name those with --weights, or make another index."
            )

    def rows_of(self, case: Case) -> list[int]:
        """The rows that are the very file or folder of `case`."""
        paths = {str(absolute(case.path)), str(case.path.resolve())}
        return [
            row
            for row, (_, path, series, _) in enumerate(self.scans)
            if path in paths and (series == case.series or not (series and case.series))
        ]

    def nearest(self, kind: str, vector: np.ndarray, top: int, leave_out: Collection[int] = ()) -> list[Hit]:
        """The `top` scans with the highest product of their row and the unit vector of `vector`, highest first.

        The search is exact: all rows are compared in float32, those that rounding could bring among the highest again
        in float64. Equal scores are ordered by case name. Fewer hits than `top` come back from a smaller index.

        Args:
            kind: "direct" to compare with an image embedding, "final" with that of a text.
            vector: (E,), not normalised.
            leave_out: rows that are no hits.

        Raises:
            UsageError: `top` is less than 1.
            InputError: the matrix holds values that are no cosines.
        """
        if top < 1:
            raise UsageError(f"--top {top} asks for no scan. Give a number from 1 on.")
        matrix, query = self.matrices[kind], np.asarray(vector, np.float64)
        query = query / max(float(np.linalg.norm(query)), 1e-12)
        scores = _products(matrix, query.astype(np.float32))
        if not np.isfinite(scores).all() or np.abs(scores).max() > 1.01:
            raise _damaged(self.folder, f"{kind}.npy holds vectors that are not of unit length")
        scores[list(leave_out)] = -np.inf
        top = min(top, len(self) - len(set(leave_out)))
        if top == 0:
            return []
        # A float32 product of unit vectors is off by less than E * epsilon / 2, and the rounding of the query by less.
        lowest = np.partition(scores, -top)[-top] - 2 * matrix.shape[1] * np.finfo(np.float32).eps
        rows = np.flatnonzero(scores >= lowest)
        exact = np.concatenate(
            [
                (matrix[part].astype(np.float64) * query).sum(axis=1)
                for part in np.split(rows, range(ROWS_AT_A_TIME, len(rows), ROWS_AT_A_TIME))
            ]
        )
        hits = [
            Hit(int(row), self.case(row), float(score), self.case(row).name in self.forced)
            for row, score in zip(rows, exact, strict=True)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.case.name))[:top]


def similar_to_scan(
    index: ScanIndex, scorer: "Scorer", case: Case, top: int = 5, *, force: bool = False
) -> tuple[list[Hit], list[int]]:
    """The scans most like a scan by cos(v, v'), and the rows left out because they are this very scan.

    Raises:
        SetupError: the scorer has other weights than the index.
        InputError: the scan cannot be read, or the index holds no other one.
        RefusedScanError: its input checks say "error", and `force` is off.
    """
    index.require_weights(scorer.weights.checksum, scorer.weights.name)
    embedding = scorer.embed(case.path, case=case.name, series=case.series, force=force)
    own = index.rows_of(case)
    return similar_to_embedding(index, embedding.image, top, own), own


def similar_to_embedding(index: ScanIndex, image: np.ndarray, top: int = 5, own: Collection[int] = ()) -> list[Hit]:
    """The scans most like an embedded one by cos(v, v').

    Args:
        image: v, (E,), made with the weights, precision and fidelity of the index.
        own: rows that are this very scan, and no hits.

    Raises:
        InputError: the index holds no other scan.
    """
    if len(own) == len(index):
        raise InputError(f"{index.folder}: the index holds no other scan than this one. Add more to compare with.")
    return index.nearest("direct", image, top, own)


def similar_to_text(index: ScanIndex, scorer: "Scorer", text: str, top: int = 5) -> list[Hit]:
    """The scans with the highest score for a text, (cos(v, t) + cos(v_hat, t)) / 2, the score of `brgsa score`.

    Raises:
        SetupError: the scorer has other weights than the index.
        UsageError: the model's text cleaning leaves nothing of the text.
    """
    index.require_weights(scorer.weights.checksum, scorer.weights.name)
    if not clean(text):
        raise UsageError(
            f'the text "{text}" reaches the model as "", because its text cleaning keeps only ASCII letters and '
            'digits and no sentence of one word. Write a phrase such as "There is a pleural effusion".'
        )
    return index.nearest("final", scorer.embed_texts([text])[0], top)


def _products(matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return matrix @ query, (N,) float32, reading a part of the file at a time."""
    scores = np.empty(len(matrix), np.float32)
    for start in range(0, len(matrix), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        np.dot(matrix[part], query, out=scores[part])
    return scores


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} is not an index: it has no {INDEX}. Make one: brgsa index SCANS --out DIR"
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{INDEX} cannot be read ({error})") from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        found = about.get("version") if isinstance(about, dict) else None
        raise InputError(
            f"{path}: version {found!r} is unknown, this program reads version {VERSION}. Make the index again."
        )
    return about


def _read_scans(path: Path) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv_reader(file)) or [[]]
    if tuple(header) != COLUMNS or not all(len(row) == len(COLUMNS) for row in rows):
        raise ValueError(f"{path} has other columns than {', '.join(COLUMNS)}")
    return [tuple(row) for row in rows]


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(f"{folder}: the index is damaged ({reason}). Delete the folder and make it again: brgsa index")


def hits_table(hits: Sequence[Hit]) -> str:
    """The hits as a table for the terminal, best first."""
    from brgsa.tables import text_table

    rows = [
        [number, f"{hit.score:+.4f}", hit.case.name, f"{hit.case.path}{_marks(hit)}"]
        for number, hit in enumerate(hits, 1)
    ]
    return text_table(["", "score", "case", "path"], rows, right=(0, 1))


def _marks(hit: Hit) -> str:
    return (" (missing)" if hit.missing else "") + (f" ({FORCED})" if hit.forced else "")
