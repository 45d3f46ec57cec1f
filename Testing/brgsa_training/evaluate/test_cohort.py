"""Joining labels and scores by name."""

from pathlib import Path

import numpy as np
import pytest

from brgsa.errors import InputError
from brgsa_training.evaluate.benchmark import Benchmark
from brgsa_training.evaluate.cohort import align, join
from brgsa_training.evaluate.tables import Table

PATTERN = Benchmark.load("ct-rate-18").case_pattern
VOLUMES = ("valid_2_a_1", "valid_1_a_2", "valid_1_a_10", "valid_1_b_1")


def table(cases, values=None, name="t.csv", **extra):
    values = np.arange(len(cases), dtype=float)[:, None] if values is None else np.array(values, dtype=float)[:, None]
    return Table(Path(name), tuple(cases), ("A",), values, **extra)


def test_rows_are_matched_by_name_in_the_order_of_the_labels():
    cohort = join(table(VOLUMES, [0, 1, 0, 1]), table(VOLUMES[::-1], [4, 3, 2, 1]), pattern=PATTERN)
    assert cohort.cases == VOLUMES
    np.testing.assert_array_equal(cohort.scores[:, 0], [1, 2, 3, 4])
    assert cohort.patients == ("valid_2", "valid_1", "valid_1", "valid_1")
    assert cohort.studies == ("valid_2_a", "valid_1_a", "valid_1_a", "valid_1_b")
    np.testing.assert_array_equal(cohort.clusters, [1, 0, 0, 0])


def test_a_row_order_decides_the_order_of_rows():
    cohort = join(table(("a", "b"), [0, 1]), table(("b", "a"), [0.2, 0.1], ordered=True))
    assert cohort.cases == ("b", "a")
    np.testing.assert_array_equal(cohort.labels[:, 0], [1, 0])


def test_missing_and_extra_cases_are_listed():
    cohort = join(table(("a", "b", "c")), table(("b", "d")))
    assert (cohort.cases, cohort.missing, cohort.extra) == (("b",), ("a", "c"), ("d",))


def test_no_common_case_shows_one_name_of_each_side_and_the_way_out():
    with pytest.raises(InputError, match=r"'x'.*'y'"):
        join(table(("x",)), table(("y",)))
    with pytest.raises(InputError, match="--join labels-by-study"):
        join(table(("valid_1_a",)), table(("valid_1_a_1",)), pattern=PATTERN)
    with pytest.raises(InputError, match="--join scores-by-study"):
        join(table(("valid_1_a_1",)), table(("valid_1_a",)), pattern=PATTERN)


def test_labels_of_a_study_are_given_to_each_of_its_scans():
    labels = table(("valid_1_a", "valid_2_a", "valid_3_a"), [1, 0, 1])
    cohort = join(labels, table(VOLUMES[:3]), how="labels-by-study", pattern=PATTERN)
    assert cohort.cases == ("valid_1_a_2", "valid_1_a_10", "valid_2_a_1")
    np.testing.assert_array_equal(cohort.labels[:, 0], [1, 1, 0])
    assert cohort.missing == ("valid_3_a",)


def test_scores_of_a_study_need_scans_that_agree_in_their_labels():
    scores = table(("valid_1_a", "valid_2_a"), [0.7, 0.2])
    cohort = join(table(VOLUMES[:3], [0, 1, 1]), scores, how="scores-by-study", pattern=PATTERN)
    assert cohort.cases == ("valid_2_a", "valid_1_a")
    np.testing.assert_array_equal(cohort.scores[:, 0], [0.2, 0.7])
    with pytest.raises(InputError, match="differ in their labels"):
        join(table(VOLUMES[:3], [0, 1, 0]), scores, how="scores-by-study", pattern=PATTERN)


def test_patients_come_from_the_file_then_the_column_then_the_pattern():
    with_column = table(VOLUMES, texts={"patient": ("p", "q", "q", "q")})
    given = dict.fromkeys(VOLUMES, ("z", None))
    assert set(join(with_column, table(VOLUMES), pattern=PATTERN, patients=given).patients) == {"z"}
    assert join(with_column, table(VOLUMES), pattern=PATTERN).patients == ("p", "q", "q", "q")
    unknown = join(table(("a", "b")), table(("a", "b")), pattern=PATTERN)
    assert not unknown.clustered
    assert any("own patient" in note for note in unknown.notes)


def test_patients_that_do_not_cover_all_cases_are_refused():
    with pytest.raises(InputError, match="1 of 2 cases have no patient, first 'b'"):
        join(table(("a", "b"), texts={"patient": ("p", "")}), table(("a", "b")))
    with pytest.raises(InputError, match="not in it, first 'b'"):
        join(table(("a", "b")), table(("a", "b")), patients={"a": ("p", None)})
    with pytest.raises(InputError, match="first 'odd'"):
        join(table(("valid_1_a_1", "odd")), table(("valid_1_a_1", "odd")), pattern=PATTERN)


def test_one_per_study_takes_the_first_scan_by_natural_name():
    cohort = join(table(VOLUMES), table(VOLUMES), pattern=PATTERN).one_per_study()
    assert cohort.cases == ("valid_2_a_1", "valid_1_a_2", "valid_1_b_1")
    np.testing.assert_array_equal(cohort.scores[:, 0], [0, 1, 3])


def test_a_second_model_must_score_every_case():
    cohort = join(table(VOLUMES), table(VOLUMES))
    np.testing.assert_array_equal(align(cohort, table(VOLUMES[::-1]))[:, 0], [3, 2, 1, 0])
    with pytest.raises(InputError, match="1 of 4 cases have no score"):
        align(cohort, table(VOLUMES[1:]))
