"""Scores and labels of the same cases, joined by name, with the patient and the study of each."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from brgsa.errors import InputError
from brgsa_training.evaluate.tables import Table

JOINS = ("case", "labels-by-study", "scores-by-study")


@dataclass(frozen=True)
class Cohort:
    """What a protocol evaluates.

    Attributes:
        cases: (n,) names, in the order of the label table; in that of `--row-order` where it named the scores.
        abnormalities: (m,) names.
        scores: (n, m) float64, finite.
        labels: (n, m) 1, 0 or NaN (missing).
        patients, studies: (n,) names; equal to the case where nothing is known.
        clustered: whether patients are known.
        thresholds: (m,) fixed on other data, NaN where there is none.
        probabilities: (n, m), NaN where there is none.
        missing, extra: cases with labels but no score, and with a score but no labels.
        notes: what a reader should know about how this was put together.
    """

    cases: tuple[str, ...]
    abnormalities: tuple[str, ...]
    scores: np.ndarray
    labels: np.ndarray
    patients: tuple[str, ...]
    studies: tuple[str, ...]
    clustered: bool
    thresholds: np.ndarray
    probabilities: np.ndarray
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def clusters(self) -> np.ndarray:
        """Number of the patient of each case (n,), 0 to patients - 1."""
        return np.unique(np.array(self.patients), return_inverse=True)[1]

    def select(self, rows: Sequence[int] | np.ndarray, note: str) -> "Cohort":
        """Return the cohort of some rows, with a note that says which."""
        rows = np.asarray(rows)
        texts = {key: tuple(np.array(getattr(self, key))[rows]) for key in ("cases", "patients", "studies")}
        arrays = {key: getattr(self, key)[rows] for key in ("scores", "labels", "probabilities")}
        return replace(self, **texts, **arrays, notes=(*self.notes, note))

    def one_per_study(self) -> "Cohort":
        """Return the cohort with the first scan of each study, in the natural order of case names."""
        first: dict[str, int] = {}
        for row in sorted(range(len(self.cases)), key=lambda row: _natural(self.cases[row])):
            first.setdefault(self.studies[row], row)
        rows = sorted(first.values())
        return self.select(rows, f"one scan per study: the first by name, {len(rows)} of {len(self.cases)}")


def join(
    labels: Table,
    scores: Table,
    how: str = "case",
    pattern: re.Pattern | None = None,
    patients: Mapping[str, tuple[str, str | None]] | None = None,
) -> Cohort:
    """Join a label table and a score table by case name.

    `how` says what the names name: "case", the same in both; "labels-by-study", labels once per study, given to every
    scored case of it; "scores-by-study", scores once per study, where the cases of a study must agree in their labels.
    The study of a case comes from `pattern`. `patients` (case -> patient, study) goes before the patient column of the
    label table, which goes before `pattern`; without any, every case is its own patient.

    Raises:
        InputError: no case is in both tables, or the patients do not cover all cases.
    """
    if how == "case" and labels.of_reports and not set(labels.cases) & set(scores.cases) and pattern is not None:
        how = "labels-by-study"  # a report is of a study
    study_of = _study_of(pattern) if how != "case" else None
    if how == "labels-by-study":
        label_row = {case: row for row, case in enumerate(labels.cases)}
        pairs = [
            (label_row[study], row)
            for row, case in enumerate(scores.cases)
            if (study := study_of(case, scores.path)) in label_row
        ]
        pairs.sort(key=lambda pair: pair[0])
        cases = tuple(scores.cases[row] for _, row in pairs)
        matched_labels = {labels.cases[row] for row, _ in pairs}
    else:
        if how == "scores-by-study":
            labels = _by_study(labels, study_of)
        score_row = {case: row for row, case in enumerate(scores.cases)}
        pairs = [(row, score_row[case]) for row, case in enumerate(labels.cases) if case in score_row]
        if scores.ordered:
            # The released seeds mean the rows of the released score file.
            pairs.sort(key=lambda pair: pair[1])
        cases = tuple(labels.cases[row] for row, _ in pairs)
        matched_labels = set(cases)
    if not pairs:
        raise InputError(_nothing_joined(labels, scores, how, pattern))
    label_rows, score_rows = (np.array(rows) for rows in zip(*pairs, strict=True))
    matched_scores = set(cases)
    names = _patients(cases, labels, label_rows, pattern, patients)
    blank = np.full((len(cases), len(labels.columns)), np.nan)
    return Cohort(
        cases=cases,
        abnormalities=labels.columns,
        scores=scores.values[score_rows],
        labels=labels.values[label_rows],
        patients=names[0],
        studies=names[1],
        clustered=names[2],
        thresholds=_constant(scores, score_rows),
        probabilities=blank if scores.probabilities is None else scores.probabilities[score_rows],
        missing=tuple(case for case in labels.cases if case not in matched_labels),
        extra=tuple(case for case in scores.cases if case not in matched_scores),
        notes=(*labels.notes, *scores.notes, *names[3]),
    )


def align(cohort: Cohort, other: Table) -> np.ndarray:
    """Return the scores (n, m) that another model gives to the cases of `cohort`, for paired differences.

    Raises:
        InputError: a case has no score in `other`.
    """
    rows = {case: row for row, case in enumerate(other.cases)}
    missing = [case for case in cohort.cases if case not in rows]
    if missing:
        raise InputError(
            f"{other.path}: {len(missing)} of {len(cohort.cases)} cases have no score, first {missing[0]!r}; "
            "a paired difference needs both models on the same cases"
        )
    return other.values[[rows[case] for case in cohort.cases]]


def _patients(
    cases: Sequence[str],
    labels: Table,
    label_rows: np.ndarray,
    pattern: re.Pattern | None,
    given: Mapping[str, tuple[str, str | None]] | None,
) -> tuple[tuple[str, ...], tuple[str, ...], bool, tuple[str, ...]]:
    """Return patients, studies, whether patients are known, and notes."""
    matches = [pattern.fullmatch(case) if pattern is not None else None for case in cases]
    studies = tuple(
        match["study"] if match is not None and "study" in match.re.groupindex else case
        for match, case in zip(matches, cases, strict=True)
    )
    if "study" in labels.texts:
        studies = tuple(labels.texts["study"][row] or studies[i] for i, row in enumerate(label_rows))
    if given is not None:
        without = [case for case in cases if case not in given]
        if without:
            raise InputError(f"--patients: {len(without)} of {len(cases)} cases are not in it, first {without[0]!r}")
        studies = tuple(given[case][1] or study for case, study in zip(cases, studies, strict=True))
        return tuple(given[case][0] for case in cases), studies, True, ()
    if "patient" in labels.texts:
        column = [labels.texts["patient"][row] for row in label_rows]
        empty = [case for case, patient in zip(cases, column, strict=True) if not patient]
        if empty:
            raise InputError(
                f"{labels.path}: {len(empty)} of {len(cases)} cases have no patient, first {empty[0]!r}; "
                "fill the column or give --patients FILE"
            )
        return tuple(column), studies, True, ()
    known = sum(match is not None for match in matches)
    if known == len(cases) and pattern is not None:
        return tuple(match["patient"] for match in matches), studies, True, ()
    if known:
        first = next(case for case, match in zip(cases, matches, strict=True) if match is None)
        raise InputError(
            f"{labels.path}: {len(cases) - known} of {len(cases)} case names do not follow the benchmark's pattern, "
            f"first {first!r}; give --patients FILE with the columns case and patient"
        )
    note = "patients are not known: every case counts as its own patient, so intervals may be too narrow"
    return tuple(cases), studies, False, (note,)


def _study_of(pattern: re.Pattern | None) -> Callable:
    if pattern is None or "study" not in pattern.groupindex:
        raise InputError("this benchmark has no case pattern with a study; join by case")

    def study(case: str, path) -> str:
        match = pattern.fullmatch(case)
        if match is None:
            raise InputError(f"{path}: case {case!r} does not follow the benchmark's pattern, its study is not known")
        return match["study"]

    return study


def _by_study(labels: Table, study_of: Callable) -> Table:
    first: dict[str, int] = {}
    for row, case in enumerate(labels.cases):
        study = study_of(case, labels.path)
        kept = first.setdefault(study, row)
        if not np.array_equal(labels.values[kept], labels.values[row], equal_nan=True):
            raise InputError(
                f"{labels.path}: {labels.cases[kept]!r} and {case!r} are of one study but differ in their labels"
            )
    rows = list(first.values())
    texts = {key: tuple(np.array(values)[rows]) for key, values in labels.texts.items()}
    return replace(labels, cases=tuple(first), values=labels.values[rows], texts=texts)


def _constant(scores: Table, rows: np.ndarray) -> np.ndarray:
    """Return the threshold of each column of a long score table, NaN without one."""
    if scores.thresholds is None:
        return np.full(len(scores.columns), np.nan)
    first = scores.thresholds[rows[0]]
    for column, name in enumerate(scores.columns):
        if not np.array_equal(scores.thresholds[rows, column], np.full(len(rows), first[column]), equal_nan=True):
            raise InputError(f"{scores.path}: the threshold of {name!r} differs between cases")
    return first


def _nothing_joined(labels: Table, scores: Table, how: str, pattern: re.Pattern | None) -> str:
    text = (
        f"no case is in both tables: labels name {labels.cases[0]!r} ({labels.path}), "
        f"scores name {scores.cases[0]!r} ({scores.path})"
    )
    for hint, whole, parts in (("labels-by-study", labels, scores), ("scores-by-study", scores, labels)):
        if how == "case" and pattern is not None and "study" in pattern.groupindex:
            match = pattern.fullmatch(parts.cases[0])
            if match is not None and match["study"] in whole.cases:
                return f"{text}; one names studies, use --join {hint}"
    return f"{text}; look at --case-column"


def _natural(text: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
