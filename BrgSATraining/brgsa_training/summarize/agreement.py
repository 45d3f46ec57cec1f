"""How well two label tables agree, abnormality by abnormality, with bootstrap intervals."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brgsa.errors import InputError
from brgsa.files import write_csv
from brgsa_training.summarize.labels import NOT_MENTIONED, NOT_REVIEWED, UNCERTAIN, UNCERTAIN_AS, LabelTable

MEASURES = ("precision", "recall", "f1", "kappa")
_CHUNK = 50  # bootstrap samples at a time


class Agreement(NamedTuple):
    """Measures of one abnormality or an average, each (value, low, high); `positives` are those of the reference.

    `f1_all_present` is what calling every abnormality present in every report would get: the baseline of F1.
    `uncertain` is what -1 counted as.
    """

    name: str
    reports: int
    positives: int
    precision: tuple[float, float, float]
    recall: tuple[float, float, float]
    f1: tuple[float, float, float]
    kappa: tuple[float, float, float]
    f1_all_present: float
    uncertain: str


def agree(
    table: LabelTable,
    reference: LabelTable,
    names: Sequence[str] | None = None,
    uncertain: str = UNCERTAIN_AS[0],
    samples: int = 1000,
    seed: int = 0,
) -> list[Agreement]:
    """Compare a table with a reference on what both have; the last two results are macro and micro.

    A cell that is empty counts as 0. `uncertain` says what -1 counts as: "negative", "positive", or "ignore" (the cell
    is left out, in either table). Precision, recall and F1 are those of label 1; kappa is Cohen's. A measure that is
    not defined (no positive anywhere) is NaN and is left out of the macro average. Intervals are 2.5 to 97.5
    percentiles over `samples` draws of reports with replacement.

    Raises:
        InputError: the tables have no report or no abnormality in common.
    """
    shared = [name for name in (names or reference.names) if name in table.names and name in reference.names]
    place = {report: number for number, report in enumerate(table.ids)}
    rows = [(place[report], number) for number, report in enumerate(reference.ids) if report in place]
    if not shared or not rows:
        what = "abnormality" if rows else "report"
        raise InputError(f"the two label tables have no {what} in common. Check their identifiers and column names.")
    machine = table.values[[row for row, _ in rows]][:, [table.names.index(name) for name in shared]]
    truth = reference.values[[row for _, row in rows]][:, [reference.names.index(name) for name in shared]]
    used = (machine != NOT_REVIEWED) & (truth != NOT_REVIEWED)
    if uncertain == "ignore":
        used &= (machine != UNCERTAIN) & (truth != UNCERTAIN)
    positive = {1, UNCERTAIN} if uncertain == "positive" else {1}
    said, true = (np.isin(values, list(positive)) & used for values in (machine, truth))

    # (reports, labels, 4): true positive, false positive, false negative, true negative
    outcome = np.stack([said & true, said & ~true & used, ~said & true, ~said & ~true & used], axis=2).astype(
        np.float64
    )
    point = _measures(outcome.sum(axis=0)[None])[0]
    randomness = np.random.default_rng(seed)
    draws = []
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        weights = randomness.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=size).astype(np.float64)
        draws.append(_measures(np.tensordot(weights, outcome, axes=1)))
    spread = np.concatenate(draws)
    hit, false, missed, rest = np.moveaxis(outcome.sum(axis=0), -1, 0)
    everything = _four(np.stack([hit + missed, false + rest, 0 * hit, 0 * hit], axis=-1))[:, 2]
    measured = ~np.isnan(point[: len(shared), MEASURES.index("f1")])  # as in the macro average of F1 itself
    total = (hit + missed).sum()
    macro = everything[measured].mean() if measured.any() else np.nan
    baselines = [*everything, macro, 2 * total / (total + outcome.sum()) if total else np.nan]
    results = []
    for number, name in enumerate([*shared, "macro", "micro"]):
        values = []
        for measure in range(len(MEASURES)):
            drawn = spread[:, number, measure]
            drawn = drawn[~np.isnan(drawn)]
            low, high = np.percentile(drawn, [2.5, 97.5]) if drawn.size else (np.nan, np.nan)
            values.append((float(point[number, measure]), float(low), float(high)))
        column = slice(number, number + 1) if number < len(shared) else slice(None)
        results.append(
            Agreement(
                name,
                int(used[:, column].any(axis=1).sum()),
                int(true[:, column].sum()),
                *values,
                float(baselines[number]),
                uncertain,
            )
        )
    return results


def _measures(counts: np.ndarray) -> np.ndarray:
    """(samples, labels, 4 outcomes) -> (samples, labels + macro + micro, 4 measures)."""
    micro = counts.sum(axis=1, keepdims=True)
    single = _four(counts)
    defined = ~np.isnan(single)
    number = defined.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        macro = np.where(number > 0, np.where(defined, single, 0).sum(axis=1, keepdims=True) / number, np.nan)
    return np.concatenate([single, macro, _four(micro)], axis=1)


def _four(counts: np.ndarray) -> np.ndarray:
    hit, false, missed, rest = np.moveaxis(counts, -1, 0)
    total = hit + false + missed + rest
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hit / (hit + false)
        recall = hit / (hit + missed)
        f1 = 2 * hit / (2 * hit + false + missed)
        chance = ((hit + false) * (hit + missed) + (missed + rest) * (false + rest)) / total**2
        kappa = ((hit + rest) / total - chance) / (1 - chance)
    return np.stack([precision, recall, f1, kappa], axis=-1)


def compare(
    tables: Mapping[str, LabelTable], reference: tuple[str, LabelTable], *options: Any
) -> dict[tuple[str, str], list[Agreement]]:
    """Compare each of several named tables with a reference, and with each other, on the reports that all have.

    `options` are those of `agree`, from `names` on; the reference is the second of each pair of names.
    """
    reference_name, truth = reference
    shared = set(truth.ids).intersection(*(table.ids for table in tables.values()))
    kept = [number for number, report in enumerate(truth.ids) if report in shared]
    truth = LabelTable(tuple(truth.ids[number] for number in kept), truth.names, truth.values[kept])
    results = {(name, reference_name): agree(table, truth, *options) for name, table in tables.items()}
    for (one, first), (two, second) in itertools.combinations(tables.items(), 2):
        rows = [second.ids.index(report) for report in truth.ids]
        results[one, two] = agree(first, LabelTable(truth.ids, second.names, second.values[rows]), *options)
    return results


def sheet_text(results: Mapping[tuple[str, str], Sequence[Agreement]]) -> str:
    """Return several comparisons side by side, F1 and kappa of each."""
    from brgsa.tables import text_table

    pairs = [{result.name: result for result in compared} for compared in results.values()]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    names.sort(key=("macro", "micro").__contains__)  # last, as in each of them
    rows = []
    for name in names:
        cells = [_f1_and_kappa(pair.get(name)) for pair in pairs]
        first = next(pair[name] for pair in pairs if name in pair)
        rows.append([name, first.positives, *cells])
    letters = {
        table: chr(ord("A") + n) for n, table in enumerate(dict.fromkeys(itertools.chain.from_iterable(results)))
    }
    heads = [f"{letters[one]} : {letters[two]}" for one, two in results]
    table = text_table(["abnormality", "positive", *heads], rows, right=range(1, 2 + len(heads)))
    reports = next(iter(results.values()))[0].reports
    legend = "\n".join(f"{letter}: {name}" for name, letter in letters.items())
    return f"{table}\n{reports} reports; F1 / kappa of the first table of each pair against the second\n{legend}"


def _f1_and_kappa(result: Agreement | None) -> str:
    return "" if result is None or np.isnan(result.f1[0]) else f"{result.f1[0]:.3f} / {result.kappa[0]:.3f}"


def agreement_text(results: Sequence[Agreement]) -> str:
    """Return the measures as a table for people, with intervals for F1 and kappa."""
    width = max(len(result.name) for result in results)
    head = "positive  precision  recall  F1 [95 % interval]    all present  kappa [95 % interval]"
    uncertain = results[0].uncertain
    counts = "is left out" if uncertain == "ignore" else f"counts as {uncertain}"
    lines = [f"uncertain (-1) {counts}", f"{'abnormality':<{width}}  {head}"]
    for result in results:
        f1, kappa = (f"{value:5.3f} [{low:5.3f}, {high:5.3f}]" for value, low, high in (result.f1, result.kappa))
        simple = f"{result.positives:8d}  {result.precision[0]:9.3f}  {result.recall[0]:6.3f}"
        lines.append(f"{result.name:<{width}}  {simple}  {f1}  {result.f1_all_present:11.3f}  {kappa}")
    lines.append(f"{max(result.reports for result in results)} reports; all present: F1 of calling everything present")
    return "\n".join(lines)


def write_agreement(path: str | Path, results: Mapping[tuple[str, str], Sequence[Agreement]]) -> None:
    """Write the measures of pairs of tables (table, reference) as CSV; what is not defined is an empty cell."""
    columns = ["table", "reference", "abnormality", "reports", "positives"]
    columns += [f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")]
    columns += ["f1_all_present", "uncertain"]
    rows = []
    for pair, result in ((pair, result) for pair, compared in results.items() for result in compared):
        values = [*(value for measure in MEASURES for value in getattr(result, measure)), result.f1_all_present]
        cells = ["" if np.isnan(value) else json.dumps(round(value, 6)) for value in values]
        rows.append([*pair, result.name, result.reports, result.positives, *cells, result.uncertain])
    write_csv(path, columns, rows)


def table_of(ids: Sequence[str], names: Sequence[str], labels: Sequence[Sequence[int | None]]) -> LabelTable:
    """Return a label table from lists; None is "not mentioned"."""
    values = [[NOT_MENTIONED if label is None else label for label in row] for row in labels]
    return LabelTable(tuple(ids), tuple(names), np.array(values, dtype=np.int8))
