"""The default protocol: clustered intervals, baselines, differences, warnings."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from brgsa.errors import InputError
from brgsa_training.evaluate.bootstrap import cluster_counts, percentile_interval
from brgsa_training.evaluate.cohort import Cohort
from brgsa_training.evaluate.delong import delong, delong_interval, delong_test
from brgsa_training.evaluate.honest import evaluate_difference, evaluate_honest, holm
from brgsa_training.evaluate.metrics import RankedScores


def make(scores, labels, patients=None, thresholds=None, probabilities=None):
    scores, labels = np.asarray(scores, float), np.asarray(labels, float)
    n, m = scores.shape
    cases = tuple(f"c{i}" for i in range(n))
    patients = cases if patients is None else tuple(map(str, patients))
    return Cohort(
        cases,
        tuple(f"A{c}" for c in range(m)),
        scores,
        labels,
        patients,
        cases,
        True,
        np.full(m, np.nan) if thresholds is None else np.asarray(thresholds, float),
        np.full((n, m), np.nan) if probabilities is None else probabilities,
    )


def simulate(rng, patients=150, effect=1.0, within=0.9):
    """Scans of a patient share the label and most of the score; true AUROC is Phi(effect / sqrt 2)."""
    scans = rng.integers(1, 6, patients)
    cluster = np.repeat(np.arange(patients), scans)
    labels = (rng.random(patients) < 0.3).astype(float)[cluster]
    shared = rng.normal(size=patients)[cluster]
    scores = np.sqrt(within) * shared + np.sqrt(1 - within) * rng.normal(size=len(cluster)) + effect * labels
    return scores, labels, cluster


def test_point_values_equal_scikit_learn_and_intervals_hold_them():
    rng = np.random.default_rng(0)
    scores, labels, cluster = simulate(rng)
    row = evaluate_honest(make(scores[:, None], labels[:, None], cluster, [0.5]), iterations=200).rows[0]
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert row["sensitivity"] == pytest.approx(recall_score(labels, scores > 0.5))
    assert row["specificity"] == pytest.approx(recall_score(1 - labels, scores <= 0.5))
    assert row["weighted_f1"] == pytest.approx(f1_score(labels, scores > 0.5, average="weighted"))
    assert row["f1_all_positive"] == pytest.approx(f1_score(labels, np.ones(len(labels))))
    assert row["accuracy_all_negative"] == pytest.approx(1 - labels.mean())
    for key in ("auroc", "auprc", "sensitivity", "specificity"):
        assert row[f"{key}_lower"] < row[key] < row[f"{key}_upper"]


def test_an_interval_without_width_is_not_left_without_a_word():
    scores = np.arange(30.0)
    row = evaluate_honest(make(scores[:, None], (scores[:, None] > 14).astype(float)), iterations=50).rows[0]
    assert (row["auroc"], row["auroc_lower"], row["auroc_upper"]) == (1, 1, 1)
    assert "intervals have no width and say nothing" in row["warnings"]


def test_a_patient_is_drawn_with_all_its_scans():
    cluster = np.array([0, 0, 1, 2, 2, 2])
    for _, counts in cluster_counts(cluster, 50):
        assert (counts[0] == counts[1]).all()
        assert (counts[3] == counts[5]).all()
        np.testing.assert_array_equal(counts[0] + counts[2] + counts[3], 3)


def test_intervals_do_not_depend_on_the_order_of_rows_and_repeat_with_the_seed():
    rng = np.random.default_rng(1)
    scores, labels, cluster = simulate(rng)
    order = rng.permutation(len(scores))
    first = evaluate_honest(make(scores[:, None], labels[:, None], cluster), 100).rows[0]
    again = evaluate_honest(make(scores[order, None], labels[order, None], cluster[order]), 100).rows[0]
    assert (first["auroc_lower"], first["auroc_upper"]) == pytest.approx((again["auroc_lower"], again["auroc_upper"]))
    other = evaluate_honest(make(scores[:, None], labels[:, None], cluster), 100, seed=1).rows[0]
    assert other["auroc_lower"] != first["auroc_lower"]


def test_the_interval_of_the_mean_is_narrower_than_the_mean_of_intervals():
    rng = np.random.default_rng(2)
    labels = (rng.random((300, 8)) < 0.3).astype(float)
    rows = evaluate_honest(make(rng.normal(size=(300, 8)) + labels, labels), 300).rows
    width = [row["auroc_upper"] - row["auroc_lower"] for row in rows]
    assert width[-1] < 0.6 * np.mean(width[:-1])
    assert rows[-1]["auroc"] == pytest.approx(np.mean([row["auroc"] for row in rows[:-1]]))


def test_warnings_say_what_would_be_read_wrongly():
    rng = np.random.default_rng(3)
    labels = np.zeros((100, 5))
    labels[:5, 0] = labels[:20, 2] = labels[:30, 3] = labels[:20, 4] = 1
    scores = rng.normal(size=(100, 5))
    scores[:, 2] = 0.25
    scores[:, 3] -= 3 * labels[:, 3]
    scores[:, 4] += 4 * labels[:, 4]
    rows = evaluate_honest(make(scores, labels, thresholds=[np.nan, np.nan, 0.5, 0.0, 2.0]), 100).rows
    assert "only 5 positives" in rows[0]["warnings"]
    assert "no positives" in rows[1]["warnings"]
    assert np.isnan(rows[1]["auroc"])
    assert "all scores are equal" in rows[2]["warnings"]
    assert rows[2]["auroc"] == 0.5
    assert "weighted F1 is no better" in rows[2]["warnings"]
    assert "below chance" in rows[3]["warnings"]
    assert rows[4]["warnings"] == ""
    assert "1 of 5 abnormalities have no AUROC" in rows[5]["warnings"]
    assert "2 of 5 abnormalities have no threshold" in rows[5]["warnings"]
    assert np.isnan(rows[0]["sensitivity"])


def test_brier_and_calibration_error_need_a_probability_for_every_case():
    rng = np.random.default_rng(4)
    probabilities = rng.random((400, 1))
    labels = (rng.random((400, 1)) < probabilities).astype(float)
    row = evaluate_honest(make(probabilities, labels, probabilities=probabilities), 50).rows[0]
    assert row["brier"] == pytest.approx(np.mean((probabilities - labels) ** 2))
    assert row["calibration_error"] < 0.1
    assert row["brier"] < row["brier_prevalence"]
    holed = probabilities.copy()
    holed[3] = np.nan
    assert np.isnan(evaluate_honest(make(probabilities, labels, probabilities=holed), 50).rows[0]["brier"])


def test_one_case_is_refused_in_one_line():
    with pytest.raises(InputError, match="only one case"):
        evaluate_honest(make([[0.1]], [[1]]))


def test_a_paired_difference_is_tighter_than_unpaired_intervals_and_signed():
    rng = np.random.default_rng(5)
    scores, labels, cluster = simulate(rng)
    worse = scores + rng.normal(size=len(scores)) * 0.5
    rows = evaluate_difference(make(scores[:, None], labels[:, None], cluster), worse[:, None], 400)
    assert rows[0]["difference"] == pytest.approx(roc_auc_score(labels, scores) - roc_auc_score(labels, worse))
    assert rows[0]["lower"] < rows[0]["difference"] < rows[0]["upper"]
    alone = evaluate_honest(make(scores[:, None], labels[:, None], cluster), 400).rows[0]
    assert rows[0]["upper"] - rows[0]["lower"] < alone["auroc_upper"] - alone["auroc_lower"]
    swapped = evaluate_difference(make(worse[:, None], labels[:, None], cluster), scores[:, None], 400)
    assert swapped[0]["lower"] == pytest.approx(-rows[0]["upper"])
    assert swapped[0]["p"] == rows[0]["p"]


def test_equal_models_do_not_differ():
    rng = np.random.default_rng(6)
    labels = (rng.random((80, 2)) < 0.4).astype(float)
    scores = rng.normal(size=(80, 2))
    for row in evaluate_difference(make(scores, labels), scores, 100):
        assert (row["difference"], row["p"]) == (0.0, 1.0)


def test_holm_steps_down_and_skips_undefined_tests():
    # Holm 1979: sorted p times m, m-1, ...; never falling.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, np.nan])), [0.03, 0.06, 0.06, np.nan])
    assert holm(np.array([0.9, 0.8]))[0] == 1.0


def test_delong_equals_its_definition_over_all_pairs_with_ties():
    rng = np.random.default_rng(7)
    labels = (rng.random(60) < 0.4).astype(float)
    scores = np.round(rng.normal(size=(2, 60)) + labels, 1)
    auroc, covariance = delong(scores, labels)
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    wins = (positive[:, :, None] > negative[:, None]) + 0.5 * (positive[:, :, None] == negative[:, None])
    expected = np.cov(wins.mean(2)) / positive.shape[1] + np.cov(wins.mean(1)) / negative.shape[1]
    np.testing.assert_allclose(auroc, wins.mean((1, 2)))
    np.testing.assert_allclose(covariance, expected)
    variance = expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
    z = (auroc[0] - auroc[1]) / np.sqrt(variance)
    assert delong_test(scores[0], scores[1], labels) == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert delong_test(scores[0], scores[0], labels) == 1.0
    low, high = delong_interval(scores[0], labels)
    assert low < auroc[0] < high


def test_delong_is_given_only_where_every_case_is_a_patient():
    rng = np.random.default_rng(8)
    scores, labels, cluster = simulate(rng)
    assert np.isnan(evaluate_honest(make(scores[:, None], labels[:, None], cluster), 20).rows[0]["delong_lower"])
    row = evaluate_honest(make(scores[:, None], labels[:, None]), 400).rows[0]
    assert row["delong_lower"] == pytest.approx(row["auroc_lower"], abs=0.01)


@pytest.mark.slow
def test_the_clustered_interval_covers_95_percent_and_the_volume_interval_does_not():
    truth = stats.norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(9)
    hits = {"patients": 0, "volumes": 0}
    for _ in range(200):
        scores, labels, cluster = simulate(rng)
        ranked = RankedScores(scores, labels)
        for name, groups in (("patients", cluster), ("volumes", np.arange(len(scores)))):
            auroc = np.concatenate([ranked.areas(counts)[0] for _, counts in cluster_counts(groups, 1000)])
            low, high = percentile_interval(auroc)
            hits[name] += low <= truth <= high
    print({name: hit / 200 for name, hit in hits.items()})
    assert 0.92 <= hits["patients"] / 200 <= 0.98
    assert hits["volumes"] / 200 < 0.85
