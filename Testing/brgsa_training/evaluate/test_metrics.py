"""Metrics under counts against scikit-learn on the drawn cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from brgsa_training.evaluate.metrics import (
    RankedScores,
    ThresholdedScores,
    all_negative,
    brier,
    calibration_bins,
    calibration_error,
    released_thresholds,
)


@st.composite
def tied_samples(draw):
    n = draw(st.integers(4, 40))
    scores = np.array(draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), dtype=float)
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=float)
    drawn = np.array(draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))
    return scores, labels, drawn


@settings(max_examples=150, deadline=None)
@given(tied_samples())
def test_areas_under_counts_equal_scikit_learn_on_the_drawn_cases(sample):
    scores, labels, drawn = sample
    counts = np.bincount(drawn, minlength=len(scores))[:, None].astype(float)
    auroc, auprc = RankedScores(scores, labels).areas(counts)
    y, s = labels[drawn], scores[drawn]
    if 0 < y.sum() < len(y):
        assert auroc[0] == pytest.approx(sk.roc_auc_score(y, s), abs=1e-12)
    else:
        assert np.isnan(auroc[0])
    if y.sum() > 0:
        assert auprc[0] == pytest.approx(sk.average_precision_score(y, s), abs=1e-12)
    else:
        assert np.isnan(auprc[0])


@settings(max_examples=100, deadline=None)
@given(tied_samples(), st.integers(-4, 3))
def test_confusion_metrics_equal_scikit_learn(sample, threshold):
    scores, labels, drawn = sample
    counts = np.bincount(drawn, minlength=len(scores))[:, None].astype(float)
    confusion = ThresholdedScores(scores[:, None], labels[:, None], np.array([threshold])).confusion(counts)
    y, called = labels[drawn].astype(int), (scores[drawn] > threshold).astype(int)
    assert confusion.accuracy[0, 0] == pytest.approx(sk.accuracy_score(y, called))
    assert confusion.weighted_f1[0, 0] == pytest.approx(sk.f1_score(y, called, average="weighted", zero_division=0))
    assert confusion.f1[0, 0] == pytest.approx(sk.f1_score(y, called, zero_division=0))
    if y.sum():
        assert confusion.sensitivity[0, 0] == pytest.approx(sk.recall_score(y, called))
    if called.sum():
        assert confusion.precision[0, 0] == pytest.approx(sk.precision_score(y, called, zero_division=0))
    if y.sum() < len(y):
        assert confusion.specificity[0, 0] == pytest.approx(sk.recall_score(1 - y, 1 - called))


def test_missing_labels_are_left_out():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=50), rng.integers(0, 2, 50).astype(float)
    labels[rng.choice(50, 20, replace=False)] = np.nan
    known = ~np.isnan(labels)
    auroc, auprc = RankedScores(scores, labels).areas(np.ones((50, 1)))
    assert auroc[0] == pytest.approx(sk.roc_auc_score(labels[known], scores[known]))
    assert auprc[0] == pytest.approx(sk.average_precision_score(labels[known], scores[known]))
    confusion = ThresholdedScores(scores[:, None], labels[:, None], np.zeros(1)).confusion(np.ones((50, 1)))
    assert sum(part[0, 0] for part in confusion) == known.sum()


def test_the_released_threshold_is_the_largest_of_equally_near_candidates():
    # Candidates 0.1 and 0.3 have the ROC points (0.5, 1) and (0, 0.5), both 0.5 away from (0, 1).
    scores, labels = np.array([[0.1], [0.2], [0.3], [0.4]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    assert released_thresholds(scores, labels)[0] == 0.3


def test_a_class_without_positives_gets_the_largest_score_as_threshold():
    assert released_thresholds(np.array([[0.1], [0.5], [0.3]]), np.zeros((3, 1)))[0] == 0.5


def test_the_all_negative_baseline_at_19_percent_prevalence_looks_better_than_it_is():
    baseline = all_negative(np.array([19.0]), np.array([100.0]))
    assert baseline.accuracy[0] == pytest.approx(0.81)
    y = np.repeat([1, 0], [19, 81])
    assert baseline.weighted_f1[0] == pytest.approx(sk.f1_score(y, np.zeros(100), average="weighted", zero_division=0))


def test_calibration_error_of_a_perfect_and_of_a_shifted_forecast():
    labels = np.tile(np.repeat([1.0, 0.0], [3, 7]), 10)
    assert calibration_error(np.full(100, 0.3), labels, bins=1) == pytest.approx(0.0)
    assert calibration_error(np.full(100, 0.5), labels, bins=1) == pytest.approx(0.2)
    assert brier(np.full(100, 0.3), labels) == pytest.approx(sk.brier_score_loss(labels, np.full(100, 0.3)))
    assert calibration_bins(np.linspace(0, 1, 100), labels)[:, 2].sum() == 100
