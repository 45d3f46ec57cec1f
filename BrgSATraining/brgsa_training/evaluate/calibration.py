"""Fitting thresholds and probabilities on a named set, for `calibration.json` of a weights folder."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from brgsa.calibration import Calibration, CalibrationEntry, PromptSets
from brgsa.errors import InputError
from brgsa.files import file_sha256
from brgsa_training.evaluate.cohort import Cohort
from brgsa_training.evaluate.honest import FEW
from brgsa_training.evaluate.metrics import released_thresholds

METHODS = ("platt", "isotonic")


def fit_calibration(
    cohort: Cohort,
    prompts: Mapping[str, PromptSets],
    method: str = "platt",
    style: str = "single",
    score: str = "final",
) -> tuple[dict[str, CalibrationEntry], list[str]]:
    """Fit every abnormality of the cohort that has positives and negatives; return entries and warnings.

    The threshold is the score whose ROC point is nearest to (0, 1), as in the released evaluation, but here it is fixed
    before a test set is seen. `prompts` gives the positive and the negative texts that were scored.

    Raises:
        InputError: no abnormality can be fitted.
    """
    thresholds = released_thresholds(cohort.scores, cohort.labels)
    entries, warnings = {}, []
    for c, name in enumerate(cohort.abnormalities):
        known = ~np.isnan(cohort.labels[:, c])
        scores, labels = cohort.scores[known, c], cohort.labels[known, c]
        positives, negatives = int(labels.sum()), int((labels == 0).sum())
        if min(positives, negatives) == 0:
            warnings.append(f"{name}: {'no positives' if positives == 0 else 'no negatives'}, not fitted")
            continue
        if min(positives, negatives) < FEW:
            warnings.append(f"{name}: {positives} positives and {negatives} negatives are few; the fit is uncertain")
        platt = fit_platt(scores, labels) if method == "platt" else None
        isotonic = fit_isotonic(scores, labels) if method == "isotonic" else None
        if platt is not None and platt[0] <= 0:
            warnings.append(f"{name}: the probability falls as the score rises; the model does not see it in this set")
        entries[name] = CalibrationEntry(
            *map(tuple, prompts[name]), style, score, float(thresholds[c]), platt, isotonic, len(labels), positives
        )
    if not entries:
        raise InputError("no abnormality has both positives and negatives in this set; there is nothing to fit")
    return entries, warnings


def fit_platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return (a, b) of 1 / (1 + exp(-(a * score + b))), with Platt's softened targets (Platt 1999); inputs (n,).

    The softened targets keep the fit finite where the scores separate the labels.
    """
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # Standardised, because cosines vary by hundredths and the solver's tolerance does not know that.
    centre, spread = scores.mean(), scores.std() or 1.0
    standard = ((scores - centre) / spread)[:, None]
    model = LogisticRegression(C=1e10, tol=1e-8, max_iter=1000).fit(
        np.concatenate([standard, standard]),
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    a = float(model.coef_[0, 0]) / spread
    return a, float(model.intercept_[0]) - a * centre


def fit_isotonic(scores: np.ndarray, labels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the knots (x, y) of the rising step-wise fit, straight between knots; inputs (n,)."""
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, labels)
    return tuple(map(float, model.X_thresholds_)), tuple(map(float, model.y_thresholds_))


def with_calibration(
    cohort: Cohort, calibration: Calibration, prompts: Mapping[str, PromptSets], style: str, score: str
) -> Cohort:
    """Return the cohort with the thresholds and probabilities of a calibration that was fitted for these prompts."""
    thresholds, probabilities = cohort.thresholds.copy(), cohort.probabilities.copy()
    without = []
    for c, name in enumerate(cohort.abnormalities):
        entry = calibration.entry(name, prompts[name], style, score)
        if entry is None:
            without.append(name)
            continue
        thresholds[c] = entry.threshold
        values = entry.probability(cohort.scores[:, c])
        if values is not None:
            probabilities[:, c] = values
    note = f"thresholds and probabilities were fitted on {calibration.fitted_on}"
    if without:
        note += f"; no calibration for {', '.join(without)}"
    return replace(cohort, thresholds=thresholds, probabilities=probabilities, notes=(*cohort.notes, note))


def merge(
    old: Calibration | None, entries: Mapping[str, CalibrationEntry], fit: Mapping[str, Any], checksum: str | None
) -> Calibration:
    """Return a calibration with new entries over the old ones; an old one of other weights is dropped."""
    kept, fits = {}, []
    if old is not None and old.provenance.get("weights_checksum") == checksum:
        kept, fits = dict(old.entries), list(old.provenance.get("fits", []))
    fits = [row for row in fits if set(row.get("abnormalities", ())) - set(entries)]
    fits.append({**fit, "abnormalities": list(entries)})
    return Calibration(kept | dict(entries), {"weights_checksum": checksum, "fits": fits})


def provenance(name: str, cohort: Cohort, files: Sequence[Path], method: str) -> dict[str, Any]:
    """Return what a reader needs to judge a fit: the set, its size, and checksums of its files; no case names."""
    return {
        "set": name,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "method": method,
        "threshold": "nearest to (0, 1) on the ROC curve of this set",
        "cases": len(cohort.cases),
        "patients": len(set(cohort.patients)) if cohort.clustered else None,
        "files": [file_sha256(path) for path in files],
    }


def fitted_on_file(calibration: Calibration, path: Path) -> bool:
    """Say whether the calibration was fitted on this file."""
    known = {checksum for fit in calibration.provenance.get("fits", []) for checksum in fit.get("files", [])}
    return file_sha256(path) in known
