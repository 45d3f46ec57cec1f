"""Measures of the gap between modalities and of the bank's use."""

import numpy as np
import pytest

from brgsa_training.evaluate.modality_gap import bank_usage, measure_gap
from brgsa_training.evaluate.pairs import unit


def test_equal_embeddings_have_no_gap_and_a_shift_makes_one():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(200, 16))
    patients = tuple(map(str, range(200)))
    none = measure_gap(image, image, patients, "s")
    assert none["centroid_distance"] == pytest.approx(0, abs=1e-6)
    assert none["paired_cosine"] == pytest.approx(1)
    assert none["separability"] < 0.6
    text = image + 10 * np.eye(16)[0]
    gap = measure_gap(image, text, patients, "s")
    assert gap["centroid_distance"] > 0.8
    assert gap["separability"] > 0.98


def test_unpaired_cosine_is_the_mean_over_pairs_of_different_patients():
    rng = np.random.default_rng(1)
    image, text = rng.normal(size=(2, 30, 8))
    patients = tuple(str(i // 3) for i in range(30))
    row = measure_gap(image, text, patients, "s")
    cosines = unit(image) @ unit(text).T
    different = np.array(patients)[:, None] != np.array(patients)[None]
    assert row["unpaired_cosine"] == pytest.approx(cosines[different].mean(), abs=1e-6)
    assert row["paired_cosine"] == pytest.approx(np.diag(cosines).mean(), abs=1e-6)
    assert row["cosine_margin"] == pytest.approx(row["paired_cosine"] - row["unpaired_cosine"])


def test_one_patient_has_no_unpaired_cosine_and_no_separability():
    row = measure_gap(np.ones((3, 4)), np.ones((3, 4)), ("p",) * 3, "s")
    assert np.isnan(row["unpaired_cosine"])
    assert np.isnan(row["separability"])


def test_bank_usage_of_equal_and_of_single_rows():
    equal = bank_usage(np.full((10, 4), 0.25))
    assert equal.entropy == pytest.approx(np.log(4))
    assert equal.used_rows == pytest.approx(4)
    assert equal.dead_rows == 0
    single = bank_usage(np.tile([1.0, 0, 0, 0], (10, 1)))
    assert (single.entropy, single.used_rows, single.dead_rows) == (0.0, 1.0, 3)
