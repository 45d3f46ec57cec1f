"""Fitting thresholds and probabilities."""

import json

import numpy as np
import pytest
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import isotonic_regression

from brgsa.calibration import Calibration
from brgsa.errors import InputError
from brgsa_training.evaluate.calibration import fit_calibration, fit_isotonic, fit_platt, merge, with_calibration
from brgsa_training.evaluate.cohort import Cohort

PROMPTS = {"A0": (("There is A0",), ()), "A1": (("There is A1",), ())}


def cohort(seed=0, n=400, slope=40.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.1, 0.05, (n, 2))
    labels = (rng.random((n, 2)) < 1 / (1 + np.exp(-slope * (scores - 0.12)))).astype(float)
    names = tuple(f"c{i}" for i in range(n))
    return Cohort(names, ("A0", "A1"), scores, labels, names, names, True, np.full(2, np.nan), np.full((n, 2), np.nan))


def test_platt_equals_scikit_learns_own_sigmoid_calibration():
    data = cohort()
    a, b = fit_platt(data.scores[:, 0], data.labels[:, 0])
    reference = _SigmoidCalibration().fit(data.scores[:, 0], data.labels[:, 0])
    assert (a, b) == pytest.approx((-reference.a_, -reference.b_), rel=1e-3)


def test_platt_stays_finite_where_scores_separate_the_labels_or_are_constant():
    scores = np.linspace(-1, 1, 40)
    a, b = fit_platt(scores, (scores > 0).astype(float))
    assert 0 < a < 1e4
    a, b = fit_platt(np.full(10, 0.3), np.repeat([1.0, 0.0], [3, 7]))
    assert np.isfinite([a, b]).all()


def test_isotonic_knots_give_the_isotonic_regression_of_the_set():
    data = cohort()
    scores, labels = data.scores[:, 0], data.labels[:, 0]
    x, y = fit_isotonic(scores, labels)
    order = np.argsort(scores)
    np.testing.assert_allclose(np.interp(scores[order], x, y), isotonic_regression(labels[order]), atol=1e-12)


def test_what_is_fitted_is_written_read_and_applied_to_another_set(tmp_path):
    for method in ("platt", "isotonic"):
        entries, warnings = fit_calibration(cohort(), PROMPTS, method)
        assert warnings == []
        content = merge(None, entries, {"set": "dev"}, "abc").to_json()
        (tmp_path / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
        calibration = Calibration.load(tmp_path)
        test = with_calibration(cohort(seed=1), calibration, PROMPTS, "single", "final")
        assert np.isfinite(test.thresholds).all()
        assert np.abs(test.probabilities.mean(axis=0) - test.labels.mean(axis=0)).max() < 0.06
        assert "fitted on dev" in test.notes[-1]
        other = with_calibration(cohort(seed=1), calibration, PROMPTS, "pair", "final")
        assert np.isnan(other.thresholds).all()


def test_a_changed_negative_prompt_is_not_calibrated():
    prompts = {name: ((f"There is {name}",), (f"There is no {name}",)) for name in PROMPTS}
    entries, _ = fit_calibration(cohort(), prompts, style="pair")
    calibration = merge(None, entries, {"set": "dev"}, "abc")
    assert np.isfinite(with_calibration(cohort(seed=1), calibration, prompts, "pair", "final").thresholds).all()
    changed = prompts | {"A1": (prompts["A1"][0], ("Nothing of A1",))}
    test = with_calibration(cohort(seed=1), calibration, changed, "pair", "final")
    assert np.isfinite(test.thresholds[0]) and np.isnan(test.thresholds[1]) and np.isnan(test.probabilities[:, 1]).all()
    assert "no calibration for A1" in test.notes[-1]


def test_a_class_without_positives_is_left_out_with_a_warning():
    data = cohort()
    data.labels[:, 1] = 0
    entries, warnings = fit_calibration(data, PROMPTS)
    assert list(entries) == ["A0"]
    assert warnings == ["A1: no positives, not fitted"]
    data.labels[:, 0] = 0
    with pytest.raises(InputError, match="nothing to fit"):
        fit_calibration(data, PROMPTS)


def test_a_second_set_adds_to_the_calibration_of_the_same_weights_only():
    entries, _ = fit_calibration(cohort(), PROMPTS)
    first = merge(None, {"A0": entries["A0"]}, {"set": "one"}, "abc")
    both = merge(first, {"A1": entries["A1"]}, {"set": "two"}, "abc")
    assert set(both.entries) == {"A0", "A1"}
    assert [fit["set"] for fit in both.provenance["fits"]] == ["one", "two"]
    again = merge(both, {"A0": entries["A0"]}, {"set": "three"}, "abc")
    assert [fit["set"] for fit in again.provenance["fits"]] == ["two", "three"]
    assert set(merge(both, {"A1": entries["A1"]}, {"set": "x"}, "other weights").entries) == {"A1"}
