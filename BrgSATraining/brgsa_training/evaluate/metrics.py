"""Metrics of one abnormality, for many resamples at once.

A resample of n cases is a vector of n counts (how often each case was drawn). Everything here takes counts of shape
(n, resamples), so that the scores are sorted once and each resample costs a few additions per case. A point estimate
is a resample in which every count is 1.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse


class RankedScores:
    """AUROC and AUPRC of one abnormality under any counts; scores are sorted here, once.

    Ties count half in AUROC (trapezoid); AUPRC is average precision, with tied scores as one step, both as in
    scikit-learn.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        """Sort `scores` (n,) with `labels` (n,) of 1, 0 and NaN; cases with a NaN label are left out."""
        n = len(scores)
        known = np.flatnonzero(~np.isnan(labels))
        order = known[np.argsort(-scores[known], kind="stable")]
        positive = labels[order] == 1
        ends_group = np.append(np.diff(scores[order]) != 0, True) if len(order) else np.zeros(0, bool)
        group = np.cumsum(ends_group) - ends_group
        has_positive = np.bincount(group[positive], minlength=group[-1] + 1 if len(group) else 0) > 0
        # Only groups of tied scores that hold a positive add to either area; all others are summed up between them.
        steps = int(has_positive.sum())
        step = (np.cumsum(has_positive) - has_positive)[group]
        inside = step < steps
        in_positive_group = has_positive[group]
        self._known = _indicator(np.zeros(len(known), int), known, (1, n))
        self._all = _indicator(step[inside], order[inside], (steps, n))
        self._positive = _indicator(step[positive], order[positive], (steps, n))
        tied = in_positive_group & ~positive
        self._tied_negative = _indicator(step[tied], order[tied], (steps, n)) if tied.any() else None

    def areas(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return AUROC and AUPRC (resamples,) under `counts` (n, resamples); NaN where a class has no case."""
        positive = _by_resample(self._positive, counts)
        true_positive = np.cumsum(positive, axis=1)
        flagged = np.cumsum(_by_resample(self._all, counts), axis=1)
        positives = positive.sum(axis=1)
        negatives = (self._known @ counts)[0] - positives
        below = negatives[:, None] - (flagged - true_positive)
        if self._tied_negative is not None:
            below += 0.5 * _by_resample(self._tied_negative, counts)
        wins = np.einsum("bg,bg->b", positive, below)
        np.maximum(flagged, 1, out=flagged)
        precision_sum = np.einsum("bg,bg->b", positive, true_positive / flagged)
        with np.errstate(invalid="ignore", divide="ignore"):
            return wins / (positives * negatives), precision_sum / positives


class Confusion(NamedTuple):
    """Counts at a fixed threshold, each of shape (abnormalities, resamples) or broadcastable to it."""

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    true_negative: np.ndarray

    @property
    def sensitivity(self) -> np.ndarray:
        """TP / (TP + FN), NaN without positives."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> np.ndarray:
        """TN / (TN + FP), NaN without negatives."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP), NaN where nothing is called positive."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of cases called right."""
        return _ratio(self.true_positive + self.true_negative, sum(self))

    @property
    def f1(self) -> np.ndarray:
        """F1 of the class "present"; 0 where it is undefined, as in scikit-learn."""
        return _f1(self.true_positive, self.false_positive, self.false_negative)

    @property
    def weighted_f1(self) -> np.ndarray:
        """F1 of "present" and of "absent", averaged with their numbers of cases (scikit-learn `average="weighted"`).

        Where an abnormality is rare this is mostly the F1 of its absence.
        """
        positives = self.true_positive + self.false_negative
        negatives = self.true_negative + self.false_positive
        present = _f1(self.true_positive, self.false_positive, self.false_negative)
        absent = _f1(self.true_negative, self.false_negative, self.false_positive)
        return _ratio(positives * present + negatives * absent, positives + negatives)


class ThresholdedScores:
    """Confusion of all abnormalities at fixed thresholds, under any counts."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray):
        """Call score > threshold positive; scores and labels (n, abnormalities), thresholds (abnormalities,)."""
        known = ~np.isnan(labels)
        positive = labels == 1
        called = (scores > thresholds) & known
        self._parts = [
            sparse.csr_matrix(part.T, dtype=np.float64) for part in (positive & called, called, positive, known)
        ]

    def confusion(self, counts: np.ndarray) -> Confusion:
        """Return the confusion under `counts` (n, resamples)."""
        true_positive, called, positive, known = (part @ counts for part in self._parts)
        false_positive = called - true_positive
        return Confusion(
            true_positive, false_positive, positive - true_positive, known - positive - called + true_positive
        )


def all_negative(positives: np.ndarray, n: np.ndarray) -> Confusion:
    """Return the confusion of a model that calls no case positive: the baseline of weighted F1 and accuracy."""
    zero = np.zeros_like(positives)
    return Confusion(zero, zero, positives, n - positives)


def all_positive(positives: np.ndarray, n: np.ndarray) -> Confusion:
    """Return the confusion of a model that calls every case positive: the baseline of F1 of the class "present"."""
    zero = np.zeros_like(positives)
    return Confusion(positives, n - positives, zero, zero)


THRESHOLD_RULES = ("nearest", "grid", "weighted-f1")
_GRID = np.linspace(0, 1, 100)


def released_thresholds(scores: np.ndarray, labels: np.ndarray, rule: str = "nearest") -> np.ndarray:
    """Return a threshold per abnormality (positive: score > threshold), fitted on the very labels it is given.

    On a test set this is an optimistic ("oracle") threshold. Rules, all in use (docs/method.md g):
        nearest: the score whose ROC point is nearest to (0, 1), the largest of equally near ones; the released rule.
        grid: the same over 100 values from 0 to 1, for scores that are probabilities.
        weighted-f1: the score with the highest weighted F1, the smallest of equally good ones.

    scores and labels (n, abnormalities), NaN labels left out; NaN where no label is known.
    """
    return np.array([_threshold(scores[:, c], labels[:, c], rule) for c in range(scores.shape[1])])


def _threshold(scores: np.ndarray, labels: np.ndarray, rule: str) -> float:
    positive, negative = (np.sort(scores[labels == value]) for value in (1, 0))
    if len(positive) + len(negative) == 0:
        return float("nan")
    candidates = _GRID if rule == "grid" else np.unique(np.concatenate([positive, negative]))
    true_positive = len(positive) - np.searchsorted(positive, candidates, side="right")
    false_positive = len(negative) - np.searchsorted(negative, candidates, side="right")
    if rule == "weighted-f1":
        parts = (true_positive, false_positive, len(positive) - true_positive, len(negative) - false_positive)
        return float(candidates[np.argmax(Confusion(*parts).weighted_f1)])
    sensitivity = true_positive / max(len(positive), 1)
    fall_out = false_positive / max(len(negative), 1)
    distance = np.sqrt((1 - sensitivity) ** 2 + fall_out**2)
    return float(candidates[np.flatnonzero(distance == distance.min())[-1]])


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean squared difference of probability and label (0 or 1), both (n,)."""
    return float(np.mean((probabilities - labels) ** 2))


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return rows (mean probability, observed share, cases) of `bins` groups of nearly equal size; inputs (n,)."""
    order = np.argsort(probabilities, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    return np.array([(probabilities[g].mean(), labels[g].mean(), len(g)) for g in groups])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error: mean |probability - observed share| over groups of equal size."""
    rows = calibration_bins(probabilities, labels, bins)
    return float(np.average(np.abs(rows[:, 0] - rows[:, 1]), weights=rows[:, 2]))


def _indicator(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


def _by_resample(indicator: sparse.csr_matrix, counts: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((indicator @ counts).T)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, dtype=np.float64) / denominator


def _f1(true_positive: np.ndarray, false_positive: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
    return np.nan_to_num(_ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative), nan=0.0)
