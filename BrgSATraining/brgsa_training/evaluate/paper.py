"""Protocol `paper`: the evaluation as it was released with BrgSA, fast and with the same numbers.

Thresholds are fitted on the test labels, resampling ignores that scans of one patient belong together, and "Overall" is
the mean over abnormalities of each abnormality's mean, standard deviation and interval ends. These choices make the
numbers optimistic; they are kept because the literature reports them. Reference: docs/method.md g and j.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brgsa_training.evaluate.bootstrap import released_counts, released_indices
from brgsa_training.evaluate.metrics import Confusion, RankedScores, ThresholdedScores, released_thresholds

ITERATIONS = 5000
METRICS = ("AUROC", "AUPRC", "F1", "Accuracy", "Precision", "Recall")
CASE_METRICS = ("Recall@1", "Precision@3")

_EPSILON = 1e-8
_NEAR_TIE = 1e-8
_TILE = 32768


@dataclass(frozen=True)
class PaperResult:
    """What the released evaluation computes.

    Attributes:
        thresholds: (abnormalities,), fitted on the test labels.
        point: per metric of METRICS the values (abnormalities,) on the whole set; per metric of CASE_METRICS a float.
        averages: what the release prints besides: AUROC on the whole set as macro, micro and weighted (by positives)
            average, and Recall@1 and Precision@3 of scores that were not standardised.
        samples: per metric the bootstrap values, (iterations, abnormalities) or (iterations,).
    """

    thresholds: np.ndarray
    point: dict[str, np.ndarray]
    averages: dict[str, float]
    samples: dict[str, np.ndarray]

    def summary(self, metric: str) -> dict[str, np.ndarray]:
        """Return mean, std (ddof 1), ci_lower and ci_upper per abnormality, as released.

        Mean and standard deviation skip undefined (NaN) resamples. The interval of an abnormality with one is NaN;
        Recall@1 and Precision@3 drop them first.
        """
        samples = self.samples[metric]
        if metric in CASE_METRICS:
            samples = samples[~np.isnan(samples)]
        with np.errstate(invalid="ignore"):
            lower, upper = np.percentile(samples, [2.5, 97.5], axis=0) if len(samples) else (np.nan, np.nan)
        return {"mean": _nan_mean(samples), "std": _nan_std(samples), "ci_lower": lower, "ci_upper": upper}

    def overall(self, metric: str) -> dict[str, float]:
        """Return the released "Overall": each number of `summary`, averaged over the abnormalities."""
        summary = self.summary(metric)
        if metric in CASE_METRICS:
            return {key: float(value) for key, value in summary.items()}
        return {
            key: float(_nan_mean(value) if key in ("mean", "std") else np.mean(value)) for key, value in summary.items()
        }


def evaluate_paper(
    scores: np.ndarray,
    labels: np.ndarray,
    iterations: int = ITERATIONS,
    progress: Callable[[int], object] = lambda done: None,
    rule: str = "nearest",
) -> PaperResult:
    """Run the released evaluation on scores and labels (n, abnormalities); labels are 1, 0 or NaN (left out).

    The released code knows no missing labels: they are left out of an abnormality's own metrics and count as absent in
    Recall@1 and Precision@3. `progress` is called with the number of iterations just done. `rule` finds the thresholds
    (see `released_thresholds`).
    """
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    n, abnormalities = scores.shape
    thresholds = released_thresholds(scores, labels, rule)
    ranked = [RankedScores(scores[:, c], labels[:, c]) for c in range(abnormalities)]
    thresholded = ThresholdedScores(scores, labels, thresholds)
    ranking = CaseRanking(scores, labels)
    samples = {metric: np.empty((iterations, abnormalities)) for metric in METRICS}
    samples |= {metric: np.empty(iterations) for metric in CASE_METRICS}
    for chunk, counts in released_counts(n, iterations):
        rows = slice(chunk.start, chunk.stop)
        for metric, values in _classwise(ranked, thresholded, counts).items():
            samples[metric][rows] = values.T
        for metric, values in zip(CASE_METRICS, ranking.resampled(counts, chunk), strict=True):
            samples[metric][rows] = values
        progress(len(chunk))
    point = {key: value[:, 0] for key, value in _classwise(ranked, thresholded, np.ones((n, 1))).items()}
    point |= {key: np.float64(value) for key, value in zip(CASE_METRICS, case_metrics(scores, labels), strict=True)}
    return PaperResult(thresholds, point, _averages(scores, labels, point["AUROC"]), samples)


def case_metrics(scores: np.ndarray, labels: np.ndarray, standardise: bool = True) -> tuple[float, float]:
    """Return Recall@1 and Precision@3 of one sample, step by step as released; inputs (n, abnormalities).

    Each abnormality's scores are standardised within the sample. Recall@1: is the highest abnormality of a case
    present, divided by its number of present ones, averaged over cases that have any. Precision@3: share of present
    ones among the three highest, averaged over all cases, those without any included.
    """
    standard = scores
    if standardise:
        standard = (scores - scores.mean(axis=0, keepdims=True)) / (scores.std(axis=0, keepdims=True) + _EPSILON)
    present = labels == 1
    k = min(3, scores.shape[1])
    top1 = np.argpartition(standard, -1, axis=1)[:, -1:]
    top3 = np.argpartition(standard, -k, axis=1)[:, -k:]
    positives = present.sum(axis=1)
    any_present = positives > 0
    if not any_present.any():
        return float("nan"), 0.0
    hit = np.take_along_axis(present, top1, axis=1)[any_present, 0] / positives[any_present]
    return float(hit.mean()), float((np.take_along_axis(present, top3, axis=1).sum(axis=1) / k).mean())


def _averages(scores: np.ndarray, labels: np.ndarray, auroc: np.ndarray) -> dict[str, float]:
    defined = ~np.isnan(auroc)
    positives = (labels == 1).sum(axis=0)[defined]
    micro = RankedScores(scores.ravel(), labels.ravel()).areas(np.ones((scores.size, 1)))[0][0]
    recall, precision = case_metrics(scores, labels, standardise=False)
    return {
        "AUROC macro": float(_nan_mean(auroc)),
        "AUROC micro": float(micro),
        "AUROC weighted": float(np.average(auroc[defined], weights=positives)) if defined.any() else float("nan"),
        "Recall@1 raw": recall,
        "Precision@3 raw": precision,
    }


class CaseRanking:
    """Recall@1 and Precision@3 of many resamples.

    A case that is drawn twice ranks its abnormalities twice in the same way, so each is ranked once per resample. Where
    two abnormalities nearly tie at the boundary, rounding decides; such resamples are computed by `case_metrics`.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        """Prepare scores and labels (n, abnormalities)."""
        self._scores, self._labels = scores, labels
        # Centred, so that the variance below is not a difference of large numbers.
        self._centred = scores - scores.mean(axis=0)
        self._present = labels == 1
        self._rows = np.flatnonzero(self._present.any(axis=1))
        self._k = min(3, scores.shape[1])

    def resampled(self, counts: np.ndarray, iterations: range) -> tuple[np.ndarray, np.ndarray]:
        """Return Recall@1 and Precision@3 (resamples,) under the released counts (n, resamples) of `iterations`."""
        n, resamples = counts.shape
        mean = self._centred.T @ counts / n
        variance = (self._centred**2).T @ counts / n - mean**2
        scale = 1.0 / (np.sqrt(np.maximum(variance, 0.0)) + _EPSILON)
        shift = -mean * scale
        first = np.zeros(resamples)
        top = np.zeros(resamples)
        near_tie = np.zeros(resamples, dtype=bool)
        size = max(1, _TILE // resamples)
        for start in range(0, len(self._rows), size):
            rows = self._rows[start : start + size]
            hit1, hits, close = self._tile(rows, scale, shift)
            weights = counts[rows]
            positives = self._present[rows].sum(axis=1)
            first += np.einsum("rb,rb->b", weights, hit1 / positives[:, None])
            top += np.einsum("rb,rb->b", weights, hits)
            near_tie |= (close & (weights > 0)).any(axis=0)
        with np.errstate(invalid="ignore"):
            recall, precision = first / counts[self._rows].sum(axis=0), top / (n * self._k)
        for b in np.flatnonzero(near_tie):
            drawn = released_indices(n, iterations[b])
            recall[b], precision[b] = case_metrics(self._scores[drawn], self._labels[drawn])
        return recall, precision

    def _tile(self, rows: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return, per row and resample: is the highest one present; present ones among the top k; is it a near tie."""
        values = self._centred[rows]
        present = self._present[rows]
        shape = (len(rows), scale.shape[1])
        highest = [np.full(shape, -np.inf) for _ in range(self._k + 1)]
        z, rest = np.empty(shape), np.empty(shape)
        for c in range(values.shape[1]):
            np.multiply(values[:, c, None], scale[c], out=z)
            np.add(z, shift[c], out=z)
            for level in highest:
                np.minimum(level, z, out=rest)
                np.maximum(level, z, out=level)
                z, rest = rest, z
        hit1, hits = np.zeros(shape), np.zeros(shape)
        for c in range(values.shape[1]):
            chosen = np.flatnonzero(present[:, c])
            z = values[chosen, c, None] * scale[c] + shift[c]
            hit1[chosen] += z >= highest[0][chosen]
            hits[chosen] += z >= highest[self._k - 1][chosen]
        # Levels that no abnormality fills stay at -inf, whose difference is not a tie.
        close = highest[0] - highest[1] < _NEAR_TIE
        close |= highest[self._k - 1] - highest[self._k] < _NEAR_TIE
        return hit1, hits, close


def _classwise(ranked: list[RankedScores], thresholded: ThresholdedScores, counts: np.ndarray) -> dict[str, np.ndarray]:
    areas = np.array([column.areas(counts) for column in ranked])
    confusion: Confusion = thresholded.confusion(counts)
    return {
        "AUROC": areas[:, 0],
        # Undefined values follow scikit-learn: average precision, precision and recall without cases are 0.
        "AUPRC": np.nan_to_num(areas[:, 1], nan=0.0),
        "F1": confusion.weighted_f1,
        "Accuracy": confusion.accuracy,
        "Precision": np.nan_to_num(confusion.precision, nan=0.0),
        "Recall": np.nan_to_num(confusion.sensitivity, nan=0.0),
    }


def _nan_mean(values: np.ndarray) -> np.ndarray:
    count = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nansum(values, axis=0) / np.where(count > 0, count, np.nan)


def _nan_std(values: np.ndarray) -> np.ndarray:
    count = (~np.isnan(values)).sum(axis=0)
    deviation = values - _nan_mean(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.nansum(deviation**2, axis=0) / np.where(count > 1, count - 1, np.nan))
