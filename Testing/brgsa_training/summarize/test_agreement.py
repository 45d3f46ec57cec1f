import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score

from brgsa.errors import InputError
from brgsa_training.summarize.agreement import (
    agree,
    agreement_text,
    compare,
    sheet_text,
    table_of,
    write_agreement,
)
from brgsa_training.summarize.labels import NOT_MENTIONED, read_labels

NAMES = ("A", "B", "C")


@pytest.fixture
def tables():
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, (200, 3))
    said = np.where(random.random((200, 3)) < 0.2, 1 - truth, truth)
    ids = [str(number) for number in range(200)]
    return table_of(ids, NAMES, said.tolist()), table_of(ids, NAMES, truth.tolist())


def test_measures_are_those_of_scikit_learn(tables):
    said, truth = tables
    results = {result.name: result for result in agree(said, truth, samples=50)}
    for column, name in enumerate(NAMES):
        x, y = said.values[:, column], truth.values[:, column]
        assert results[name].precision[0] == pytest.approx(precision_score(y, x))
        assert results[name].recall[0] == pytest.approx(recall_score(y, x))
        assert results[name].f1[0] == pytest.approx(f1_score(y, x))
        assert results[name].kappa[0] == pytest.approx(cohen_kappa_score(y, x))
        assert results[name].f1_all_present == pytest.approx(f1_score(y, np.ones(200)))
    everything = np.ones((200, 3))
    assert results["macro"].f1_all_present == pytest.approx(f1_score(truth.values, everything, average="macro"))
    assert results["micro"].f1_all_present == pytest.approx(f1_score(truth.values, everything, average="micro"))
    assert results["macro"].f1[0] == pytest.approx(f1_score(truth.values, said.values, average="macro"))
    assert results["micro"].f1[0] == pytest.approx(f1_score(truth.values, said.values, average="micro"))


def test_intervals_are_those_of_a_plain_bootstrap(tables):
    said, truth = tables
    result = agree(said, truth, samples=2000)[0]
    random = np.random.default_rng(9)
    draws = []
    for _ in range(2000):
        rows = random.integers(0, 200, 200)
        x, y = said.values[rows, 0] == 1, truth.values[rows, 0] == 1
        draws.append(2 * (x & y).sum() / (x.sum() + y.sum()))
    assert result.f1[1:] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.012)


def test_tables_are_joined_on_identifiers_and_names_whatever_their_order(tables):
    said, truth = tables
    order = list(reversed(range(200)))
    columns = [2, 0, 1]
    turned = table_of(
        [truth.ids[row] for row in order], [NAMES[c] for c in columns], truth.values[order][:, columns].tolist()
    )
    plain = {result.name: result.kappa[0] for result in agree(said, truth, samples=1)}
    assert {result.name: result.kappa[0] for result in agree(said, turned, samples=1)} == pytest.approx(plain)


@pytest.mark.parametrize(
    ("uncertain", "recall", "positives"), [("positive", 1.0, 2), ("negative", 1.0, 1), ("ignore", 1.0, 1)]
)
def test_uncertain_cells_count_as_the_user_says(uncertain, recall, positives):
    said = table_of("abc", ["A"], [[1], [-1], [None]])
    truth = table_of("abc", ["A"], [[1], [-1], [0]])
    result = agree(said, truth, uncertain=uncertain, samples=1)[0]
    assert (result.recall[0], result.positives) == (recall, positives)


def test_what_is_not_defined_is_empty_and_out_of_the_macro_average(tmp_path):
    said = table_of("ab", ["A", "B"], [[1, 0], [0, 0]])
    results = agree(said, said, samples=10)
    assert np.isnan(results[1].f1[0])
    assert results[2].f1[0] == 1
    write_agreement(tmp_path / "a.csv", {("said", "truth"): results})
    assert (tmp_path / "a.csv").read_text().splitlines()[2].startswith("said,truth,B,2,0,,,")
    assert "2 reports" in agreement_text(results)


def test_several_tables_are_compared_with_the_reference_and_each_other_on_what_all_have(tables):
    said, truth = tables
    half = table_of(truth.ids[:100], NAMES, truth.values[:100].tolist())
    results = compare({"rules": said, "model": half}, ("reader", truth), None, "negative", 10)
    assert list(results) == [("rules", "reader"), ("model", "reader"), ("rules", "model")]
    alone = agree(said, half, None, "negative", 10)
    assert results["rules", "reader"] == results["rules", "model"] == alone
    assert alone[0].reports == 100
    assert all(result.f1[0] == 1 for result in results["model", "reader"])
    sheet = sheet_text(results).splitlines()
    assert sheet[0].split() == ["abnormality", "positive", "A", ":", "B", "C", ":", "B", "A", ":", "C"]
    macro = next(line for line in sheet if line.startswith("macro"))
    assert f"{alone[-2].f1[0]:.3f} / {alone[-2].kappa[0]:.3f}" in macro and "1.000 / 1.000" in macro
    assert sheet[-3:] == ["A: rules", "B: reader", "C: model"]


def test_tables_with_nothing_in_common_are_refused():
    with pytest.raises(InputError, match="no report in common"):
        agree(table_of("a", ["A"], [[1]]), table_of("b", ["A"], [[1]]))
    with pytest.raises(InputError, match="no abnormality in common"):
        agree(table_of("a", ["A"], [[1]]), table_of("a", ["B"], [[1]]))


def test_a_label_table_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("VolumeName,A,B,Sex\nx,1,,F\ny,0.0,-1,M\n")
    table = read_labels(path)
    assert (table.ids, table.names) == (("x", "y"), ("A", "B"))
    assert table.values.tolist() == [[1, NOT_MENTIONED], [0, -1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,A\nx,1\nx,0\n", "'x' has two rows"),
        ("id,A\nx\n", "row 2: it has 1 fields"),
        ("id,A\nx,maybe\n", "no column of labels"),
        ("id,A\n", "no column of labels"),
        ("", "no column of labels"),
    ],
)
def test_a_broken_label_table_is_named(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_labels(path)
