"""The gap between image and text embeddings, and how the bank is used."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from brgsa_training.evaluate.pairs import Pairs, unit

COLUMNS = (
    "state", "pairs", "centroid_distance", "separability", "paired_cosine", "unpaired_cosine", "cosine_margin",
)  # fmt: skip
USAGE_COLUMNS = ("modality", "rows", "entropy", "used_rows", "dead_rows")
BEFORE, AFTER = "before the bank (v, t)", "after the bank (v_hat, t_hat)"

_SEPARABILITY_PAIRS = 2000
_FOLDS = 5


@dataclass(frozen=True)
class BankUsage:
    """How many rows of the bank some embeddings use.

    Attributes:
        rows: rows of the bank.
        entropy: mean entropy of an embedding's row weights, in nats.
        used_rows: exp of the entropy of the mean weights.
        dead_rows: rows that no embedding gives a tenth of an equal share.
    """

    rows: int
    entropy: float
    used_rows: float
    dead_rows: int


def measure_gap(
    image: np.ndarray, text: np.ndarray, patients: tuple[str, ...], state: str, seed: int = 0
) -> dict[str, float]:
    """Return one row by COLUMNS for n pairs; image and text (n, d), `patients` (n,).

    Unpaired cosines are those of a scan and the report of another patient; NaN with one patient only.
    """
    image, text = unit(image).astype(np.float64), unit(text).astype(np.float64)
    paired = float(np.einsum("nd,nd->n", image, text).mean())
    groups = np.unique(np.array(patients), return_inverse=True)[1]
    sums = [np.zeros((groups.max() + 1, image.shape[1])) for _ in range(2)]
    for total, vectors in zip(sums, (image, text), strict=True):
        np.add.at(total, groups, vectors)
    # Sums over all pairs of a scan and a report, less those within one patient.
    within = np.einsum("gd,gd->", *sums)
    count = len(image) ** 2 - int((np.bincount(groups) ** 2).sum())
    unpaired = float((image.sum(axis=0) @ text.sum(axis=0) - within) / count) if count else float("nan")
    return {
        "state": state,
        "pairs": len(image),
        "centroid_distance": float(np.linalg.norm(image.mean(axis=0) - text.mean(axis=0))),
        "separability": separability(image, text, groups, seed),
        "paired_cosine": paired,
        "unpaired_cosine": unpaired,
        "cosine_margin": paired - unpaired,
    }


def separability(image: np.ndarray, text: np.ndarray, groups: np.ndarray, seed: int = 0) -> float:
    """Return the accuracy of a linear classifier of modality on patients it was not fitted on; NaN below 5 patients.

    At most 2,000 pairs are used, drawn with `seed`.
    """
    if len(image) > _SEPARABILITY_PAIRS:
        drawn = np.random.default_rng(seed).choice(len(image), _SEPARABILITY_PAIRS, replace=False)
        image, text, groups = image[drawn], text[drawn], groups[drawn]
    if len(np.unique(groups)) < _FOLDS:
        return float("nan")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    vectors = np.concatenate([image, text])
    modality = np.repeat([0, 1], [len(image), len(text)])
    folds = GroupKFold(_FOLDS).split(vectors, modality, np.concatenate([groups, groups]))
    return float(cross_val_score(classifier, vectors, modality, cv=folds).mean())


def bank_usage(weights: np.ndarray) -> BankUsage:
    """Return the usage from row weights (n, K) that sum to 1 in each row."""
    rows = weights.shape[1]
    mean = weights.mean(axis=0)
    return BankUsage(
        rows,
        float(_entropy(weights).mean()),
        float(np.exp(_entropy(mean[None])[0])),
        int((weights.max(axis=0) < 0.1 / rows).sum()),
    )


def thin(pairs: Pairs, most: int, seed: int) -> Pairs:
    """Return at most `most` pairs, drawn with `seed`, for a picture."""
    n = len(pairs.image.cases)
    if n <= most:
        return pairs
    return pairs.select(np.sort(np.random.default_rng(seed).choice(n, most, replace=False)).tolist())


def _entropy(weights: np.ndarray) -> np.ndarray:
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights, dtype=np.float64))
    return -(weights * logs).sum(axis=1)
