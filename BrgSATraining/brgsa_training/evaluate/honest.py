"""Protocol `honest`, the default: what a statistician would accept.

AUROC and AUPRC need no threshold. Sensitivity, specificity, F1 and accuracy are given only at thresholds that were
fixed on other data, beside what calling everything absent, or present, would get. Intervals draw whole patients. The
mean over abnormalities has an interval of its own: that of the mean, not the mean of intervals.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brgsa.errors import InputError
from brgsa_training.evaluate.bootstrap import cluster_counts, percentile_interval
from brgsa_training.evaluate.cohort import Cohort
from brgsa_training.evaluate.delong import delong_interval, delong_test
from brgsa_training.evaluate.metrics import (
    RankedScores,
    ThresholdedScores,
    all_negative,
    all_positive,
    brier,
    calibration_error,
)

ITERATIONS = 2000
MEAN = "Mean over abnormalities"
FEW = 10
NEAR_BASELINE = 0.03

COLUMNS = (
    "abnormality", "cases", "positives", "prevalence",
    "auroc", "auroc_lower", "auroc_upper", "auprc", "auprc_lower", "auprc_upper",
    "threshold", "sensitivity", "sensitivity_lower", "sensitivity_upper",
    "specificity", "specificity_lower", "specificity_upper",
    "f1", "f1_all_positive", "weighted_f1", "weighted_f1_all_negative", "accuracy", "accuracy_all_negative",
    "brier", "brier_prevalence", "calibration_error", "delong_lower", "delong_upper", "warnings",
)  # fmt: skip
DIFFERENCE_COLUMNS = (
    "abnormality", "positives", "auroc", "auroc_other", "difference", "lower", "upper", "p", "p_holm", "p_delong",
)  # fmt: skip

_INTERVALS = ("auroc", "auprc", "sensitivity", "specificity")


@dataclass(frozen=True)
class HonestResult:
    """One row per abnormality and one for their mean, by COLUMNS; values that are not defined are NaN."""

    rows: list[dict]

    @property
    def mean(self) -> dict:
        """The row of the mean over abnormalities."""
        return self.rows[-1]


def evaluate_honest(
    cohort: Cohort,
    iterations: int = ITERATIONS,
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> HonestResult:
    """Evaluate a cohort; `progress` is called with the number of resamples just done.

    Raises:
        InputError: there is only one case.
    """
    _refuse_one_case(cohort)
    ranked, thresholded = _prepare(cohort)
    samples = {key: np.empty((iterations, len(cohort.abnormalities))) for key in _INTERVALS}
    for chunk, counts in cluster_counts(cohort.clusters, iterations, seed):
        for key, values in _resample(ranked, thresholded, counts).items():
            samples[key][chunk.start : chunk.stop] = values.T
        progress(len(chunk))
    point = {key: value[:, 0] for key, value in _resample(ranked, thresholded, _ones(cohort)).items()}
    rows = [_row(cohort, c, point, samples, thresholded) for c in range(len(cohort.abnormalities))]
    return HonestResult([*rows, _mean_row(rows, point, samples)])


def evaluate_difference(
    cohort: Cohort,
    other: np.ndarray,
    iterations: int = ITERATIONS,
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> list[dict]:
    """Return rows by DIFFERENCE_COLUMNS: AUROC of the cohort's scores minus that of `other` (n, m), on equal resamples.

    The p value inverts the percentile interval: twice the smaller share of resampled differences on one side of 0.
    Holm's correction covers the abnormalities; the row of the mean is a single test. DeLong's p is given where every
    case is a patient of its own.
    """
    _refuse_one_case(cohort)
    first = [RankedScores(cohort.scores[:, c], cohort.labels[:, c]) for c in range(cohort.scores.shape[1])]
    second = [RankedScores(other[:, c], cohort.labels[:, c]) for c in range(other.shape[1])]
    samples = np.empty((iterations, len(first)))
    for chunk, counts in cluster_counts(cohort.clusters, iterations, seed):
        pairs = zip(first, second, strict=True)
        differences = [one.areas(counts)[0] - two.areas(counts)[0] for one, two in pairs]
        samples[chunk.start : chunk.stop] = np.array(differences).T
        progress(len(chunk))
    ones = _ones(cohort)
    auroc, auroc_other = (np.array([column.areas(ones)[0][0] for column in side]) for side in (first, second))
    defined = ~np.isnan(auroc)
    lower, upper = percentile_interval(samples)
    p = np.array([_two_sided(column) for column in samples.T])
    adjusted = holm(p)
    rows = []
    for c, name in enumerate(cohort.abnormalities):
        known = ~np.isnan(cohort.labels[:, c])
        independent = len(set(cohort.patients)) == len(cohort.cases) and defined[c]
        labels = cohort.labels[known, c]
        p_delong = delong_test(cohort.scores[known, c], other[known, c], labels) if independent else np.nan
        values = (auroc[c], auroc_other[c], auroc[c] - auroc_other[c], lower[c], upper[c], p[c], adjusted[c], p_delong)
        rows.append(dict(zip(DIFFERENCE_COLUMNS, (name, int((labels == 1).sum()), *values), strict=True)))
    mean = _nan_mean(samples[:, defined])
    low, high = percentile_interval(mean)
    means = (_nan_mean(auroc[defined][None])[0], _nan_mean(auroc_other[defined][None])[0])
    values = (*means, means[0] - means[1], float(low), float(high), _two_sided(mean), np.nan, np.nan)
    total = sum(row["positives"] for row in rows)
    return [*rows, dict(zip(DIFFERENCE_COLUMNS, (MEAN, total, *values), strict=True))]


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p values (m,); NaN stays NaN and is not counted."""
    adjusted = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    highest = 0.0
    for step, i in enumerate(order):
        highest = max(highest, min(1.0, p[i] * (len(order) - step)))
        adjusted[i] = highest
    return adjusted


def _refuse_one_case(cohort: Cohort) -> None:
    if len(cohort.cases) < 2:
        raise InputError(f"only one case ({cohort.cases[0]!r}) has both labels and scores; an evaluation needs more")


def _ones(cohort: Cohort) -> np.ndarray:
    return np.ones((len(cohort.cases), 1))


def _prepare(cohort: Cohort) -> tuple[list[RankedScores], ThresholdedScores]:
    ranked = [RankedScores(cohort.scores[:, c], cohort.labels[:, c]) for c in range(len(cohort.abnormalities))]
    # No score exceeds an infinite threshold; what is computed there is blanked below.
    thresholds = np.where(np.isnan(cohort.thresholds), np.inf, cohort.thresholds)
    return ranked, ThresholdedScores(cohort.scores, cohort.labels, thresholds)


def _resample(ranked: list[RankedScores], thresholded: ThresholdedScores, counts: np.ndarray) -> dict[str, np.ndarray]:
    areas = np.array([column.areas(counts) for column in ranked])
    confusion = thresholded.confusion(counts)
    return {
        "auroc": areas[:, 0],
        "auprc": areas[:, 1],
        "sensitivity": confusion.sensitivity,
        "specificity": confusion.specificity,
    }


def _row(cohort: Cohort, c: int, point: dict[str, np.ndarray], samples: dict, thresholded: ThresholdedScores) -> dict:
    labels = cohort.labels[:, c]
    known = ~np.isnan(labels)
    n, positives = int(known.sum()), int((labels == 1).sum())
    counts = np.array([float(positives)]), np.array([float(n)])
    baseline = all_negative(*counts)
    row = {
        "abnormality": cohort.abnormalities[c],
        "cases": n,
        "positives": positives,
        "prevalence": positives / n if n else np.nan,
        "threshold": cohort.thresholds[c],
        "f1_all_positive": all_positive(*counts).f1[0],
        "weighted_f1_all_negative": baseline.weighted_f1[0],
        "accuracy_all_negative": baseline.accuracy[0],
    }
    has_threshold = not np.isnan(cohort.thresholds[c])
    for key in _INTERVALS:
        blank = not has_threshold and key in ("sensitivity", "specificity")
        lower, upper = percentile_interval(samples[key][:, c])
        values = (np.nan,) * 3 if blank else (point[key][c], float(lower), float(upper))
        row |= dict(zip((key, f"{key}_lower", f"{key}_upper"), values, strict=True))
    confusion = thresholded.confusion(_ones(cohort))
    for key in ("f1", "weighted_f1", "accuracy"):
        row[key] = getattr(confusion, key)[c, 0] if has_threshold else np.nan
    probabilities = cohort.probabilities[known, c]
    calibrated = n > 0 and not np.isnan(probabilities).any()
    row["brier"] = brier(probabilities, labels[known]) if calibrated else np.nan
    row["brier_prevalence"] = row["prevalence"] * (1 - row["prevalence"])
    row["calibration_error"] = calibration_error(probabilities, labels[known]) if calibrated else np.nan
    independent = len(set(cohort.patients)) == len(cohort.cases)
    ends = delong_interval(cohort.scores[known, c], labels[known]) if independent else (np.nan, np.nan)
    row["delong_lower"], row["delong_upper"] = ends
    row["warnings"] = "; ".join(_warnings(row, cohort.scores[known, c], samples["auroc"][:, c]))
    return {key: row[key] for key in COLUMNS}


def _warnings(row: dict, scores: np.ndarray, resampled_auroc: np.ndarray) -> list[str]:
    found = []
    positives, negatives = row["positives"], row["cases"] - row["positives"]
    if positives == 0 or negatives == 0:
        which = "positives" if positives == 0 else "negatives"
        return [f"no {which}: AUROC is not defined, left out of the mean"]
    if positives < FEW:
        found.append(f"only {_counted(positives, 'positive')}: do not read much into this row")
    if negatives < FEW:
        found.append(f"only {_counted(negatives, 'negative')}: do not read much into this row")
    if np.all(scores == scores[0]):
        found.append("all scores are equal: nothing was told apart")
    elif row["auroc_upper"] < 0.5 and positives >= FEW:
        found.append("AUROC is below chance: are the scores turned round?")
    if row["auroc"] in (0.0, 1.0):
        found.append("no positive and negative are out of order: the intervals have no width and say nothing")
    undefined = np.isnan(resampled_auroc).mean()
    if undefined > 0:
        found.append(f"{undefined:.1%} of resamples drew only one class and were left out")
    if row["f1"] <= row["f1_all_positive"] + NEAR_BASELINE:
        found.append("F1 (present) is no better than calling everything present (within 0.03)")
    if row["weighted_f1"] <= row["weighted_f1_all_negative"] + NEAR_BASELINE:
        found.append("weighted F1 is no better than calling everything absent (within 0.03)")
    if row["accuracy"] <= row["accuracy_all_negative"]:
        found.append("accuracy is no better than calling everything absent")
    if row["brier"] >= row["brier_prevalence"]:
        found.append("Brier score is no better than giving every case the prevalence")
    return found


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _mean_row(rows: list[dict], point: dict[str, np.ndarray], samples: dict[str, np.ndarray]) -> dict:
    mean = dict.fromkeys(COLUMNS, np.nan) | {
        "abnormality": MEAN,
        "cases": max(row["cases"] for row in rows),
        "positives": sum(row["positives"] for row in rows),
    }
    for key in COLUMNS[3:-1]:
        if not key.endswith(("_lower", "_upper")) and key != "threshold":
            mean[key] = float(_nan_mean(np.array([[row[key] for row in rows]]))[0])
    for key in _INTERVALS:
        # Averaged over the abnormalities in which it is defined for the whole set.
        used = [c for c, row in enumerate(rows) if not np.isnan(row[key])]
        if used:
            lower, upper = percentile_interval(_nan_mean(samples[key][:, used]))
            mean[f"{key}_lower"], mean[f"{key}_upper"] = float(lower), float(upper)
    left_out = sum(np.isnan(row["auroc"]) for row in rows)
    without = sum(np.isnan(row["threshold"]) for row in rows)
    warnings = [f"{left_out} of {len(rows)} abnormalities have no AUROC"] if left_out else []
    if without:
        warnings.append(
            f"{without} of {len(rows)} abnormalities have no threshold from other data: no sensitivity, specificity, F1"
        )
    return mean | {"warnings": "; ".join(warnings)}


def _two_sided(differences: np.ndarray) -> float:
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return float("nan")
    smaller = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(defined) + 1)))


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    count = (~np.isnan(values)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nansum(values, axis=-1) / np.where(count > 0, count, np.nan)
