"""Retrieval between reports and scans, and among scans.

Pool, duplicates and definition move these numbers by multiples, so each comes with all three. Ranks are counted, never
sorted: the place of the right item is one more than the number of better ones. Items that tie with it (within 2e-6,
the rounding of float32 products: equal reports, copies of a scan) share their places: the hit is the chance that a
random order of the tied items puts the right one among the K best.
"""

from collections.abc import Callable, Sequence

import numpy as np

RECALL_KS = (1, 5, 10, 50, 100)
MAP_KS = (1, 5, 10, 50)
TIE = 2e-6
# At most 255, so that a column of hits fits a byte.
_ROWS = 250


def pair_ranks(
    first: np.ndarray, second: np.ndarray, progress: Callable[[int], object] = lambda done: None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank row i of `second` for row i of `first`, and the other way round; both (n, d), scores are dot products.

    Returns:
        better, ties (n,) of the search with `first` over `second`, then better, ties (n,) of the search with `second`
        over `first`. Ties do not count the right item itself.
    """
    first, second = (np.ascontiguousarray(side, dtype=np.float32) for side in (first, second))
    own = np.einsum("nd,nd->n", first, second)
    above, below = own + np.float32(TIE), own - np.float32(TIE)
    n = len(first)
    counts = np.zeros((4, n), dtype=np.int64)
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        scores = first[rows] @ second.T
        counts[0, rows] = np.count_nonzero(scores > above[rows, None], axis=1)
        counts[1, rows] = np.count_nonzero(scores >= below[rows, None], axis=1)
        counts[2] += (scores > above).view(np.uint8).sum(axis=0, dtype=np.uint8)
        counts[3] += (scores >= below).view(np.uint8).sum(axis=0, dtype=np.uint8)
        progress(rows.stop - rows.start)
    better, not_worse, better_back, not_worse_back = counts
    return better, _ties(better, not_worse), better_back, _ties(better_back, not_worse_back)


def recall_hits(better: np.ndarray, ties: np.ndarray, ks: Sequence[int] = RECALL_KS) -> np.ndarray:
    """Return the chance (n, len(ks)) that the right item is among the K best, tied items in random order."""
    return np.clip((np.array(ks) - better[:, None]) / (ties[:, None] + 1), 0.0, 1.0)


def score_vectors(vectors: np.ndarray, from_bank: np.ndarray | None, kind: str) -> np.ndarray:
    """Return (n, d) whose dot product with a unit text embedding is the score of this kind (docs/method.md a.4)."""
    from brgsa_training.evaluate.pairs import unit

    if kind == "direct":
        return unit(vectors)
    return unit(from_bank) if kind == "bank" else (unit(vectors) + unit(from_bank)) / 2


def nearest(vectors: np.ndarray, gallery: np.ndarray, k: int, skip_self: np.ndarray | None = None) -> np.ndarray:
    """Return the places (n, k) of the k rows of `gallery` with the highest dot products, best first.

    `skip_self` (n,) names the gallery row that is the query itself and is left out. Equal scores keep gallery order.
    """
    vectors, gallery = (np.ascontiguousarray(side, dtype=np.float32) for side in (vectors, gallery))
    found = np.empty((len(vectors), k), dtype=np.int64)
    for start in range(0, len(vectors), _ROWS):
        scores = vectors[start : start + _ROWS] @ gallery.T
        if skip_self is not None:
            scores[np.arange(len(scores)), skip_self[start : start + len(scores)]] = -np.inf
        kth = np.partition(scores, len(gallery) - k, axis=1)[:, len(gallery) - k]
        for i, row in enumerate(scores):
            candidates = np.flatnonzero(row >= kth[i])
            found[start + i] = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
    return found


def average_precision_at(neighbours: np.ndarray, labels: np.ndarray, ks: Sequence[int] = MAP_KS) -> np.ndarray:
    """Return average precision at each K, (n, len(ks)); a neighbour is relevant if it shares a positive label.

    The sum of precisions at the relevant places is divided by K (as RadFinder does). A query without a positive label
    has nothing relevant and is NaN. labels (n, m) of 0 and 1.
    """
    relevant = np.einsum("nkm,nm->nk", labels[neighbours], labels) > 0
    places = np.arange(1, neighbours.shape[1] + 1)
    gains = np.cumsum(relevant * np.cumsum(relevant, axis=1) / places, axis=1)
    values = gains[:, np.array(ks) - 1] / np.array(ks)
    values[labels.sum(axis=1) == 0] = np.nan
    return values


def label_overlap_at(
    neighbours: np.ndarray, labels: np.ndarray, gallery_labels: np.ndarray, ks: Sequence[int] = MAP_KS
) -> np.ndarray:
    """Return the mean Jaccard overlap of label sets among the K nearest, (n, len(ks)); 0 where both sets are empty."""
    shared = np.einsum("nkm,nm->nk", gallery_labels[neighbours], labels)
    union = gallery_labels.sum(axis=1)[neighbours] + labels.sum(axis=1)[:, None] - shared
    overlap = shared / np.maximum(union, 1)
    return np.stack([overlap[:, :k].mean(axis=1) for k in ks], axis=1)


def ct_clip_overlap(vectors: np.ndarray, labels: np.ndarray, ks: Sequence[int] = MAP_KS) -> np.ndarray:
    """Return what CT-CLIP's `volume_to_volume_new.py` averages under the name MAP@K, (n, len(ks)).

    The gallery is every volume with a label, the query itself among them; values are label overlaps; and the number
    printed for a K is the mean over that K and all smaller ones, because its list is never emptied.
    """
    gallery = np.flatnonzero(labels.sum(axis=1) > 0)
    neighbours = nearest(vectors, vectors[gallery], max(ks))
    values = label_overlap_at(neighbours, labels, labels[gallery], ks)
    return np.cumsum(values, axis=1) / np.arange(1, len(ks) + 1)


def mean_intervals(
    values: np.ndarray, clusters: np.ndarray, iterations: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lower and upper end (m,) of per-query values (n, m), NaN left out, resampling whole clusters.

    The pool stays as it is: the interval speaks of other queries to the same pool.
    """
    from brgsa_training.evaluate.bootstrap import cluster_counts, percentile_interval

    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    sums = []
    for _, counts in cluster_counts(clusters, iterations, seed):
        with np.errstate(invalid="ignore"):
            sums.append((counts.T @ filled) / (counts.T @ known))
    lower, upper = percentile_interval(np.concatenate(sums))
    with np.errstate(invalid="ignore"):
        return filled.sum(axis=0) / known.sum(axis=0), lower, upper


def _ties(better: np.ndarray, not_worse: np.ndarray) -> np.ndarray:
    return np.maximum(not_worse - better - 1, 0)
