"""The released evaluation, number by number."""

import json

import numpy as np
import pytest

from brgsa_training.evaluate.bootstrap import CHUNK, released_counts, released_indices
from brgsa_training.evaluate.metrics import released_thresholds
from brgsa_training.evaluate.paper import CASE_METRICS, CaseRanking, case_metrics, evaluate_paper

TOLERANCE = 1e-9
CASES = ("main", "ties", "rare_nan")


@pytest.fixture(scope="module")
def arrays(parity):
    return np.load(parity / "metrics.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def numbers(parity):
    return json.loads((parity / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(arrays, numbers):
    return {
        case: evaluate_paper(
            arrays[f"{case}__scores"], arrays[f"{case}__labels"], iterations=numbers[case]["bootstrap"]["n"]
        )
        for case in CASES
    }


@pytest.mark.parametrize("case", CASES)
def test_the_drawn_cases_are_the_released_ones(arrays, case):
    n = len(arrays[f"{case}__labels"])
    for iteration in range(5):
        np.testing.assert_array_equal(released_indices(n, iteration), arrays[f"{case}__boot_indices_{iteration}"])


def test_drawing_leaves_the_global_random_state_alone():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    released_indices(100, 3)
    assert np.random.random() == expected


def test_counts_are_those_of_the_indices_across_chunks():
    n, iterations = 30, CHUNK + 3
    for chunk, counts in released_counts(n, iterations):
        for column, iteration in enumerate(chunk):
            np.testing.assert_array_equal(counts[:, column], np.bincount(released_indices(n, iteration), minlength=n))


@pytest.mark.parametrize("case", CASES)
def test_thresholds_and_point_values_are_the_released_ones(results, numbers, case):
    result, point = results[case], numbers[case]["point"]
    np.testing.assert_array_equal(result.thresholds, point["thresholds_roc_distance"])
    names = {"AUROC": "auroc_per_class", "AUPRC": "auprc", "F1": "weighted_f1"}
    for metric in ("AUROC", "AUPRC", "F1", "Accuracy", "Precision", "Recall"):
        expected = point[names.get(metric, metric.lower())]
        np.testing.assert_allclose(result.point[metric], expected, rtol=0, atol=TOLERANCE)
    assert result.point["Recall@1"] == pytest.approx(point["recall_at_1_zscore"], abs=TOLERANCE)
    assert result.point["Precision@3"] == pytest.approx(point["precision_at_3_zscore"], abs=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_other_averages_and_threshold_rules_are_the_released_ones(results, arrays, numbers, case):
    point, averages = numbers[case]["point"], results[case].averages
    for kind in ("macro", "micro", "weighted"):
        assert averages[f"AUROC {kind}"] == pytest.approx(point[f"auroc_{kind}"], abs=TOLERANCE)
    assert averages["Recall@1 raw"] == pytest.approx(point["recall_at_1_raw"], abs=TOLERANCE)
    assert averages["Precision@3 raw"] == pytest.approx(point["precision_at_3_raw"], abs=TOLERANCE)
    scores, labels = (arrays[f"{case}__{key}"].astype(float) for key in ("scores", "labels"))
    for rule, name in (("grid", "linspace01_legacy"), ("weighted-f1", "best_weighted_f1")):
        found = released_thresholds(scores, labels, rule)
        np.testing.assert_allclose(found, point[f"thresholds_{name}"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_the_first_50_iterations_are_the_released_ones(results, arrays, case):
    samples = results[case].samples
    for metric, name in (("AUROC", "auroc"), ("AUPRC", "auprc"), ("F1", "f1")):
        np.testing.assert_allclose(samples[metric][:50], arrays[f"{case}__first50_{name}"], rtol=0, atol=TOLERANCE)
    by_case = np.stack([samples[metric][:50] for metric in CASE_METRICS], axis=1)
    np.testing.assert_allclose(by_case, arrays[f"{case}__first50_recall1_precision3"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_summaries_are_the_released_ones_with_their_nan_rules(results, numbers, case):
    result, bootstrap = results[case], numbers[case]["bootstrap"]
    for row in bootstrap["per_class"]:
        summary = result.summary(row["metric"])
        column = int(row["pathology"].removeprefix("c"))
        assert_same({key: summary[key][column] for key in summary}, row)
    for row in bootstrap["overall"]:
        assert_same(result.overall(row["metric"]), row)


def assert_same(values, row):
    for key in ("mean", "std", "ci_lower", "ci_upper"):
        expected = np.nan if row[key] is None else row[key]
        assert values[key] == pytest.approx(expected, abs=TOLERANCE, nan_ok=True), (
            row["metric"],
            row["pathology"],
            key,
        )


@pytest.mark.parametrize("abnormalities", [1, 2, 3, 5])
@pytest.mark.parametrize("rounded", [False, True])
def test_case_metrics_of_many_resamples_equal_the_step_by_step_ones(abnormalities, rounded):
    rng = np.random.default_rng(abnormalities)
    scores = rng.normal(size=(60, abnormalities))
    if rounded:
        # A column twice: every case ties with itself, and the order of numpy's partition decides.
        scores = np.round(scores, 1)
        scores[:, -1] = scores[:, 0]
    labels = (rng.random((60, abnormalities)) < 0.2).astype(float)
    ranking = CaseRanking(scores, labels)
    for chunk, counts in released_counts(60, 20):
        recall, precision = ranking.resampled(counts, chunk)
        for column, iteration in enumerate(chunk):
            drawn = released_indices(60, iteration)
            expected = case_metrics(scores[drawn], labels[drawn])
            assert (recall[column], precision[column]) == pytest.approx(expected, abs=TOLERANCE, nan_ok=True)


def test_a_class_without_positives_leaves_the_mean_defined_and_the_interval_undefined():
    rng = np.random.default_rng(1)
    labels = (rng.random((40, 2)) < [0.4, 0.0]).astype(float)
    overall = evaluate_paper(rng.normal(size=(40, 2)), labels, iterations=20).overall("AUROC")
    assert np.isfinite(overall["mean"])
    assert np.isnan(overall["ci_lower"])
