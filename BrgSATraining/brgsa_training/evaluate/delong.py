"""DeLong's variance of AUROC, for one abnormality and cases that do not depend on each other.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988; midranks after Sun and Xu, IEEE Signal Processing Letters 2014.
Scans of one patient are not independent: there the clustered bootstrap is the right interval.
"""

import numpy as np
from scipy import stats


def delong(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC (k,) and its covariance (k, k) for scores (k, n) of k models with labels (n,) of 1 and 0.

    The covariance is NaN with fewer than two positives or two negatives.
    """
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    p, q = positive.shape[1], negative.shape[1]
    if min(p, q) < 2:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    rank_all = stats.rankdata(np.concatenate([positive, negative], axis=1), axis=1)
    # Share of negatives below each positive, and of positives above each negative; ties count half.
    wins = (rank_all[:, :p] - stats.rankdata(positive, axis=1)) / q
    losses = 1 - (rank_all[:, p:] - stats.rankdata(negative, axis=1)) / p
    return wins.mean(axis=1), np.cov(wins).reshape(len(scores), -1) / p + np.cov(losses).reshape(len(scores), -1) / q


def delong_interval(scores: np.ndarray, labels: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the normal interval of AUROC within [0, 1] for scores (n,)."""
    auroc, covariance = delong(scores[None], labels)
    half = stats.norm.ppf(0.5 + level / 2) * np.sqrt(covariance[0, 0])
    return float(np.maximum(auroc[0] - half, 0.0)), float(np.minimum(auroc[0] + half, 1.0))


def delong_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Return the two-sided p value of equal AUROC for two models on the same cases, scores (n,) each."""
    auroc, covariance = delong(np.stack([first, second]), labels)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance <= 0:
        # Equal rankings have no variance: no difference at all, or one without any doubt.
        return 1.0 if auroc[0] == auroc[1] else 0.0
    return float(2 * stats.norm.sf(abs(auroc[0] - auroc[1]) / np.sqrt(variance)))
