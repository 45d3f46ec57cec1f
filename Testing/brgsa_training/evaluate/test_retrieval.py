"""Retrieval: ranks, ties, both definitions of MAP@K."""

import numpy as np
import pytest

from brgsa_training.evaluate.pairs import Embeddings, Pairs, unit
from brgsa_training.evaluate.retrieval import (
    average_precision_at,
    ct_clip_overlap,
    label_overlap_at,
    mean_intervals,
    nearest,
    pair_ranks,
    recall_hits,
    score_vectors,
)
from brgsa_training.evaluate.retrieval_run import first_of_each


def random_pairs(n, d=16, seed=0):
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(n, d)))
    return unit(rng.normal(size=(n, d)) + 2 * image), image


def ct_clip_loop(vectors, labels, ks):
    """The published script, step by step, with its list that is never emptied."""
    gallery = [i for i in range(len(labels)) if labels[i].sum() != 0]
    external, printed = [], []
    for k in ks:
        for i in range(len(labels)):
            scores = [float(vectors[i] @ vectors[j]) for j in gallery]
            order = sorted(range(len(scores)), key=lambda place: scores[place], reverse=True)[:k]
            ratios = []
            for place in order:
                a, b = labels[i], labels[gallery[place]]
                both, either = ((a == 1) & (b == 1)).sum(), (a != b).sum()
                ratios.append(both / (both + either))
            external.append(np.mean(ratios))
        printed.append(np.mean(external))
    return printed


@pytest.mark.parametrize("n", [7, 251, 600])
def test_ranks_equal_those_of_sorting_in_both_directions(n):
    text, image = random_pairs(n)
    better, ties, better_back, ties_back = pair_ranks(text, image)
    scores = text.astype(np.float64) @ image.T.astype(np.float64)
    for found, tied, table in ((better, ties, scores), (better_back, ties_back, scores.T)):
        expected = np.array([(row > row[i]).sum() for i, row in enumerate(table)])
        assert (found <= expected).all()
        assert (expected <= found + tied).all()
        assert tied.mean() < 0.05


def test_equal_reports_share_their_places():
    text, image = random_pairs(300)
    text[[5, 6, 7]] = text[5]
    _, _, better, ties = pair_ranks(text, image)
    assert set(ties[[5, 6, 7]]) == {2}
    hits = recall_hits(np.array([0, 0, 3]), np.array([0, 2, 2]), [1, 2, 5])
    np.testing.assert_allclose(hits, [[1, 1, 1], [1 / 3, 2 / 3, 1], [0, 0, 2 / 3]])
    assert better.shape == (300,)


def test_recall_of_random_embeddings_is_at_chance():
    rng = np.random.default_rng(1)
    better, ties, _, _ = pair_ranks(unit(rng.normal(size=(2000, 8))), unit(rng.normal(size=(2000, 8))))
    assert recall_hits(better, ties, [100]).mean() == pytest.approx(0.05, abs=0.02)


def test_score_vectors_give_the_score_of_every_kind():
    rng = np.random.default_rng(2)
    v, v_hat, t = (rng.normal(size=(5, 8)) for _ in range(3))
    direct, bank = unit(v) @ unit(t).T, unit(v_hat) @ unit(t).T
    for kind, expected in (("direct", direct), ("bank", bank), ("final", (direct + bank) / 2)):
        np.testing.assert_allclose(score_vectors(v, v_hat, kind) @ unit(t).T, expected, atol=1e-6)


def test_the_query_itself_is_left_out_and_equal_scores_keep_their_order():
    vectors = unit(np.array([[1, 0], [1, 0], [1, 0], [0, 1.0]]))
    np.testing.assert_array_equal(nearest(vectors, vectors, 2, np.arange(4)), [[1, 2], [0, 2], [0, 1], [0, 1]])


def test_average_precision_is_that_of_its_definition():
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=float)
    values = average_precision_at(np.array([[2, 1, 3], [0, 2, 3], [3, 3, 1], [0, 1, 2]]), labels, [1, 3])
    # Query 0: irrelevant, relevant (1/2), irrelevant; query 3 has no label.
    np.testing.assert_allclose(values, [[0, 1 / 6], [1, 2 / 3], [0, 1 / 9], [np.nan, np.nan]])


def test_label_overlap_is_jaccard():
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=float)
    values = label_overlap_at(np.array([[1, 0], [0, 2], [0, 3], [0, 3]]), labels, labels, [1, 2])
    np.testing.assert_allclose(values, [[0.5, 0.75], [0.5, 0.25], [0, 0], [0, 0]])


def test_ct_clip_numbers_are_those_of_the_published_script_with_its_quirks():
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=(40, 6)))
    labels = (rng.random((40, 4)) < 0.25).astype(float)
    assert (labels.sum(axis=1) == 0).any()
    ours = ct_clip_overlap(vectors, labels, [1, 5, 10]).mean(axis=0)
    np.testing.assert_allclose(ours, ct_clip_loop(vectors, labels, [1, 5, 10]))
    honest = label_overlap_at(nearest(vectors, vectors, 10, np.arange(40)), labels, labels, [1, 5, 10]).mean(axis=0)
    assert ours[0] > honest[0] + 0.3


def test_intervals_resample_whole_patients():
    rng = np.random.default_rng(4)
    patient = np.repeat(np.arange(50), 6)
    values = (rng.random(50) < 0.5).astype(float)[patient][:, None]
    _, low, high = mean_intervals(values, patient, 500, 0)
    _, low_volume, high_volume = mean_intervals(values, np.arange(300), 500, 0)
    assert high[0] - low[0] > 2 * (high_volume[0] - low_volume[0])
    mean, _, _ = mean_intervals(np.array([[1.0], [np.nan], [0.0]]), np.arange(3), 50, 0)
    assert mean[0] == 0.5


def test_the_first_of_each_study_and_report_is_kept():
    vectors = np.eye(4, dtype=np.float32)
    texts = vectors[[0, 0, 1, 0]]
    cases = ("a_1", "a_2", "b_1", "c_1")
    pairs = Pairs(
        Embeddings(cases, vectors, None), Embeddings(cases, texts, None), ("a", "a", "b", "c"), ("a", "a", "b", "c")
    )
    assert first_of_each(pairs).image.cases == ("a_1", "b_1")
