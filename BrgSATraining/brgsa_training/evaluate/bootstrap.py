"""Resamples of cases: drawn as released, or by patient; and what is read from them."""

from collections.abc import Iterator

import numpy as np

CHUNK = 128
"""Resamples that are counted together; with 3,039 cases their counts stay within a processor's cache."""

_CHUNK_BYTES = 64e6


def released_indices(n: int, iteration: int, generator: np.random.RandomState | None = None) -> np.ndarray:
    """Return the cases (n,) that the released evaluation draws in one iteration.

    Equals `np.random.seed(iteration); np.random.choice(range(n), n)` without touching numpy's global state.
    """
    generator = generator or np.random.RandomState()
    generator.seed(iteration)
    return generator.randint(0, n, n)


def released_counts(n: int, iterations: int) -> Iterator[tuple[range, np.ndarray]]:
    """Yield ranges of iterations with their counts (n, iterations in the range), drawn as released: case by case."""
    generator = np.random.RandomState()
    for chunk in _chunks(n, iterations):
        counts = np.stack([np.bincount(released_indices(n, i, generator), minlength=n) for i in chunk])
        yield chunk, np.ascontiguousarray(counts.T, dtype=np.float64)


def cluster_counts(clusters: np.ndarray, iterations: int, seed: int = 0) -> Iterator[tuple[range, np.ndarray]]:
    """Yield ranges of iterations with their counts (n, iterations in the range), drawing whole clusters.

    `clusters` (n,) holds the number of the cluster (patient) of each case, 0 to clusters - 1. As many clusters are
    drawn as there are, with replacement, and every case of a drawn cluster comes along (Davison and Hinkley 1997,
    section 3.8: resampling of the highest level only).
    """
    generator = np.random.default_rng(seed)
    n_clusters = int(clusters.max()) + 1
    for chunk in _chunks(len(clusters), iterations):
        drawn = generator.integers(0, n_clusters, (len(chunk), n_clusters))
        counts = np.stack([np.bincount(row, minlength=n_clusters) for row in drawn])
        yield chunk, np.ascontiguousarray(counts.T[clusters], dtype=np.float64)


def percentile_interval(samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the percentile interval over the first axis; undefined (NaN) resamples are left out."""
    low, high = 50 * (1 - level), 50 * (1 + level)
    samples = np.asarray(samples, dtype=np.float64)
    columns = samples.reshape(len(samples), -1)
    ends = np.full((2, columns.shape[1]), np.nan)
    for i, column in enumerate(columns.T):
        defined = column[~np.isnan(column)]
        if len(defined):
            ends[:, i] = np.percentile(defined, [low, high])
    ends = ends.reshape(2, *samples.shape[1:])
    return ends[0], ends[1]


def _chunks(n: int, iterations: int) -> Iterator[range]:
    size = int(max(1, min(CHUNK, _CHUNK_BYTES // (8 * n))))
    for start in range(0, iterations, size):
        yield range(start, min(start + size, iterations))
