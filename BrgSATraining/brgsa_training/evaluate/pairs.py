"""Embeddings of scans and of their reports, by case name."""

import csv
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brgsa.ct.names import case_name
from brgsa.errors import InputError, UsageError
from brgsa_training.evaluate.table_files import CASE_COLUMNS, find_any, open_rows, refuse_doubles, some

REPORT_COLUMNS = ("report", "text", "caption")
PART_COLUMNS = (("findings", "findings_en", "findings en"), ("impression", "impressions", "impressions_en"))
_BATCH = 64


@dataclass(frozen=True)
class Embeddings:
    """Embeddings (n, d) float32 of `cases`, and what the bank makes of them (n, d), None where that is not known."""

    cases: tuple[str, ...]
    vectors: np.ndarray
    from_bank: np.ndarray | None

    def select(self, cases: Sequence[str]) -> "Embeddings":
        """Return the embeddings of some cases, in their order."""
        place = {case: row for row, case in enumerate(self.cases)}
        rows = [place[case] for case in cases]
        return Embeddings(tuple(cases), self.vectors[rows], None if self.from_bank is None else self.from_bank[rows])


@dataclass(frozen=True)
class Pairs:
    """Scans with their reports: n embeddings of either, and the patient and the study of each, (n,)."""

    image: Embeddings
    text: Embeddings
    patients: tuple[str, ...]
    studies: tuple[str, ...]

    @property
    def clusters(self) -> np.ndarray:
        """Number of the patient of each pair, 0 to patients - 1."""
        return np.unique(np.array(self.patients), return_inverse=True)[1]

    def select(self, rows: Sequence[int]) -> "Pairs":
        """Return some of the pairs."""
        cases = [self.image.cases[row] for row in rows]
        names = {key: tuple(getattr(self, key)[row] for row in rows) for key in ("patients", "studies")}
        return replace(self, image=self.image.select(cases), text=self.text.select(cases), **names)


def read_embeddings(path: str | os.PathLike) -> Embeddings:
    """Read a folder of `brgsa embed`, or an .npz with `cases`, `embeddings` and perhaps `embeddings_from_bank`.

    Raises:
        InputError: something is missing, damaged, doubled, of another size or not finite.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_npz(path)


def read_reports(path: str | os.PathLike) -> dict[str, str]:
    """Read reports by case: a CSV with a report column, or findings and impression, or a JSON of case -> text.

    Captions as `brgsa-training` writes them (split -> case -> `processed_report`) are read too.

    Raises:
        InputError: no text is found, or a case is doubled.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        return _read_captions(path)
    cases, texts = [], []
    # Reports are longer than the csv module's guard against runaway quotes.
    csv.field_size_limit(10_000_000)
    with open_rows(path) as (header, rows):
        case = find_any(header, CASE_COLUMNS)
        columns = [find_any(header, REPORT_COLUMNS)]
        if columns == [None]:
            columns = [find_any(header, names) for names in PART_COLUMNS]
        columns = [column for column in columns if column is not None]
        if case is None or not columns:
            raise InputError(
                f"{path}: needs a case column and a report, or findings and impression; has {some(header)}"
            )
        for number, row in rows:
            cases.append(case_name(row[case]))
            texts.append(" ".join(row[column].strip() for column in columns).strip())
            if not texts[-1]:
                raise InputError(f"{path}: row {number} (case {cases[-1]!r}) has no text")
    if not cases:
        raise InputError(f"{path}: the table has no rows")
    refuse_doubles(path, cases)
    return dict(zip(cases, texts, strict=True))


def embed_reports(reports: Mapping[str, str], weights: str, device: str) -> Embeddings:
    """Embed reports with a model; equal texts are embedded once. The model reads their first word pieces only.

    Raises:
        SetupError: the weights are missing or damaged.
    """
    import torch

    from brgsa.scoring import Scorer

    scorer = Scorer.from_pretrained(weights, device=device, cache=False)
    texts = list(dict.fromkeys(reports.values()))
    parts = []
    for start in tqdm(range(0, len(texts), _BATCH), desc="reports", delay=2):
        parts.append(scorer.embed_texts(texts[start : start + _BATCH]))
    vectors = np.concatenate(parts)
    with torch.inference_mode():
        from_bank = scorer.model.bank(torch.from_numpy(vectors).to(scorer.device)).float().cpu().numpy()
    place = {text: row for row, text in enumerate(texts)}
    rows = [place[text] for text in reports.values()]
    return Embeddings(tuple(reports), vectors[rows], from_bank[rows])


def pair(image: Embeddings, text: Embeddings, names: Mapping[str, tuple[str, str]]) -> tuple[Pairs, list[str]]:
    """Pair scans with reports by case name; return the pairs and notes on what is left over.

    `names` gives (patient, study) of a case. A report of a study serves every scan of it.

    Raises:
        InputError: nothing fits, or the embeddings differ in size.
    """
    if image.vectors.shape[1] != text.vectors.shape[1]:
        raise InputError(
            f"image embeddings have {image.vectors.shape[1]} numbers, text embeddings {text.vectors.shape[1]}; "
            "embed both with the same weights"
        )
    known = set(text.cases)
    source = {case: case if case in known else names[case][1] for case in image.cases}
    cases = [case for case in image.cases if source[case] in known]
    if not cases:
        raise InputError(
            f"no scan has a report: scans are called {image.cases[0]!r}, reports {text.cases[0]!r}; give both one name"
        )
    notes = []
    if len(cases) < len(image.cases):
        without = next(case for case in image.cases if source[case] not in known)
        notes.append(f"{len(image.cases) - len(cases)} scans have no report, first {without!r}")
    unused = known - {source[case] for case in cases}
    if unused:
        notes.append(f"{len(unused)} reports have no scan, first {min(unused)!r}")
    texts = text.select([source[case] for case in cases])
    patients, studies = zip(*(names[case] for case in cases), strict=True)
    return Pairs(image.select(cases), replace(texts, cases=tuple(cases)), patients, studies), notes


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the rows (n, d) with length 1, float32."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _read_folder(folder: Path) -> Embeddings:
    manifest = folder / "manifest.csv"
    cases, vectors, from_bank = [], [], []
    with open_rows(manifest) as (header, rows):
        place = {name: i for i, name in enumerate(header)}
        if not {"case", "embedding"} <= set(place):
            raise InputError(f"{manifest}: is not a manifest of `brgsa embed` (needs the columns case and embedding)")
        for _, row in tqdm(rows, desc="embeddings", delay=2):
            # A manifest may not point outside its own folder.
            path = (folder / row[place["embedding"]]).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise InputError(f"{manifest}: {row[place['embedding']]} is outside the folder")
            arrays = _arrays(path)
            if not {"image", "image_from_bank"} <= set(arrays):
                raise InputError(f"{path}: has no arrays image and image_from_bank; embed this scan again")
            cases.append(case_name(row[place["case"]]))
            vectors.append(arrays["image"])
            from_bank.append(arrays["image_from_bank"])
    if not cases:
        raise InputError(f"{manifest}: the table has no rows")
    refuse_doubles(manifest, cases)
    if len({vector.shape for vector in (*vectors, *from_bank)}) != 1:
        raise InputError(f"{folder}: the embeddings differ in size; embed all scans with the same weights")
    return _checked(manifest, Embeddings(tuple(cases), np.stack(vectors), np.stack(from_bank)))


def _read_npz(path: Path) -> Embeddings:
    arrays = _arrays(path)
    if not {"cases", "embeddings"} <= set(arrays):
        raise InputError(f"{path}: needs the arrays cases and embeddings, has {some(list(arrays))}")
    cases = [case_name(str(case)) for case in arrays["cases"]]
    vectors, from_bank = arrays["embeddings"], arrays.get("embeddings_from_bank")
    for array in (vectors, from_bank):
        if array is not None and (array.ndim != 2 or len(array) != len(cases) or array.dtype.kind != "f"):
            raise InputError(
                f"{path}: {len(cases)} cases, but embeddings of shape {array.shape} and type {array.dtype}"
            )
    if not cases:
        raise InputError(f"{path}: holds no case")
    refuse_doubles(path, cases)
    return _checked(path, Embeddings(tuple(cases), vectors, from_bank))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as an .npz file without objects") from error


def _checked(path: Path, found: Embeddings) -> Embeddings:
    for vectors in (found.vectors, found.from_bank):
        if vectors is not None and not np.isfinite(vectors).all():
            row = int(np.argwhere(~np.isfinite(vectors))[0, 0])
            raise InputError(f"{path}: the embedding of {found.cases[row]!r} is not finite; embed this scan again")
    return found


def _read_captions(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({str(error).splitlines()[0]})") from error
    texts: dict[str, str] = {}

    def add(case: str, text: str) -> None:
        name = case_name(case)
        if name in texts:
            raise InputError(f"{path}: case {name!r} occurs twice")
        texts[name] = text

    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, str):
            add(key, value)
        elif isinstance(value, dict):
            for case, row in value.items():
                sentences = row.get("processed_report") if isinstance(row, dict) else None
                if sentences:
                    add(case, " ".join(map(str, sentences)))
    if not texts:
        raise UsageError(f"{path}: holds no reports; needs case -> text, or captions with processed_report")
    return texts
