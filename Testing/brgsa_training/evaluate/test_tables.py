"""Reading label and score tables, and the one line that says what is wrong with one."""

import csv

import numpy as np
import pytest

from brgsa.errors import InputError, UsageError
from brgsa_training.evaluate.table_files import case_name, read_patients, read_row_order
from brgsa_training.evaluate.tables import read_labels, read_scores

WAYS = {"Cardiomegaly": [("Cardiomegaly",)], "Lung nodule": [("Lung nodule",)]}
MERGED = {"Calcification": [("Arterial", "Coronary"), ("Calcification",)]}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refused(function, *args, error=InputError, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_labels_are_nan_and_columns_are_found_by_name(tmp_path):
    path = write(
        tmp_path / "l.csv",
        "VolumeName,lung_nodule,Note,CARDIOMEGALY\na.nii.gz,1,x,0\nb.nii.gz,,y,-1\nc.nii.gz,1.0,,0.0\n",
    )
    table = read_labels(path, WAYS)
    assert table.cases == ("a", "b", "c")
    assert table.columns == ("Cardiomegaly", "Lung nodule")
    np.testing.assert_array_equal(table.values, [[0, 1], [0, np.nan], [0, 1]])


@pytest.mark.parametrize(("uncertain", "value"), [("negative", 0), ("positive", 1), ("ignore", np.nan)])
def test_what_an_uncertain_label_counts_as_can_be_chosen(tmp_path, uncertain, value):
    path = write(tmp_path / "l.csv", "case,lung_nodule,cardiomegaly\na,-1,1\nb,0,-1.0\n")
    values = read_labels(path, WAYS, uncertain=uncertain).values
    np.testing.assert_array_equal(values, [[1, value], [value, 0]])


def test_what_a_report_does_not_mention_counts_as_absent(tmp_path):
    path = write(tmp_path / "l.csv", "report,lung nodule,cardiomegaly\na,,1\nb,-1,\n")
    np.testing.assert_array_equal(read_labels(path, WAYS).values, [[1, 0], [0, 0]])


def test_any_of_several_columns_makes_an_abnormality_present(tmp_path):
    path = write(tmp_path / "l.csv", "id,a,b\nx,1,\ny,0,\nz,0,0\nw,0,True\n")
    table = read_labels(path, {"A": [("a", "b")]})
    np.testing.assert_array_equal(table.values[:, 0], [1, np.nan, 0, 1])


def test_the_larger_of_merged_scores_counts_and_a_merged_column_is_taken_as_it_is(tmp_path):
    table = read_scores(write(tmp_path / "s.csv", "case,Arterial,Coronary\nx,0.1,0.3\n"), MERGED)
    assert table.values[0, 0] == 0.3
    table = read_scores(write(tmp_path / "m.csv", "case,Calcification\nx,0.2\n"), MERGED)
    assert table.values[0, 0] == 0.2


def test_a_long_table_equals_the_wide_one_in_any_order(tmp_path):
    wide = read_scores(write(tmp_path / "w.csv", "case,Cardiomegaly,Lung nodule\nx,0.1,0.2\ny,0.3,0.4\n"), WAYS)
    long = read_scores(
        write(
            tmp_path / "l.csv",
            "case,path,abnormality,score,probability,threshold,positive,flags\n"
            "y,,Lung nodule,0.4,,,,\nx,,Cardiomegaly,0.1,0.7,0.05,1,\ny,,Cardiomegaly,0.3,0.9,0.05,1,\n"
            "x,,Lung nodule,0.2,,,,\nx,,Other,0.9,,,,\n",
        ),
        WAYS,
    )
    assert long.cases == ("y", "x")
    np.testing.assert_array_equal(long.values, wide.values[::-1])
    np.testing.assert_array_equal(long.thresholds, [[0.05, np.nan]] * 2)
    np.testing.assert_array_equal(long.probabilities, [[0.9, np.nan], [0.7, np.nan]])


def test_numbered_columns_are_read_only_with_a_row_order(tmp_path):
    path = write(tmp_path / "s.csv", "0,1\n0.1,0.2\n0.3,0.4\n")
    message = refused(read_scores, path, WAYS, released_columns=("Lung nodule", "Cardiomegaly"), error=UsageError)
    assert "--row-order" in message
    order = read_row_order(write(tmp_path / "order.csv", "Path,TotalSegPath\n/data/v_2.nii.gz,x\n/data/v_1.nii.gz,y\n"))
    table = read_scores(path, WAYS, row_order=order, released_columns=("Lung nodule", "Cardiomegaly"))
    assert table.cases == ("v_2", "v_1")
    np.testing.assert_array_equal(table.values, [[0.2, 0.1], [0.4, 0.3]])
    assert "3" in refused(read_scores, path, WAYS, row_order=("a", "b", "c"), released_columns=tuple(WAYS))
    assert "2 numbered columns" in refused(read_scores, path, WAYS, row_order=order, released_columns=("a",))


def test_an_index_column_before_numbered_columns_is_no_score(tmp_path):
    path = write(tmp_path / "s.csv", ",0,1\n0,0.1,0.2\n1,0.3,0.4\n")
    table = read_scores(path, WAYS, row_order=("a", "b"), released_columns=("Cardiomegaly", "Lung nodule"))
    np.testing.assert_array_equal(table.values, [[0.1, 0.2], [0.3, 0.4]])


def test_numpy_files_are_read_with_their_names_or_with_a_row_order(tmp_path):
    values = np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)
    np.savez(tmp_path / "named.npz", data=values, cases=np.array(["b.nii.gz", "a"]))
    table = read_scores(tmp_path / "named.npz", WAYS, released_columns=tuple(WAYS))
    assert table.cases == ("b", "a")
    np.savez(tmp_path / "bare.npz", data=values)
    assert "--row-order" in refused(
        read_scores, tmp_path / "bare.npz", WAYS, released_columns=tuple(WAYS), error=UsageError
    )
    order = read_row_order(write(tmp_path / "accessions.txt", "b.nii.gz\na.nii.gz\n"))
    assert read_scores(tmp_path / "bare.npz", WAYS, row_order=order, released_columns=tuple(WAYS)).cases == ("b", "a")
    np.savez(tmp_path / "labels.npz", data=np.array([[0, 1], [2, 1]]), cases=np.array(["a", "b"]))
    assert "label 2" in refused(read_labels, tmp_path / "labels.npz", WAYS)
    np.savez(tmp_path / "objects.npz", data=np.array([[None, {}]], dtype=object))
    assert "objects" in refused(read_scores, tmp_path / "objects.npz", WAYS, released_columns=tuple(WAYS))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("case,Cardiomegalie,Lung nodule\nx,0,1\n", ["Cardiomegaly", "Did you mean", "Cardiomegalie"]),
        ("case,Cardiomegaly,Lung nodule\nx,0,1\ny,2,0\n", ["row 3", "Cardiomegaly", "'2'"]),
        ("case,Cardiomegaly,Lung nodule\nx,0,yes\n", ["row 2", "Lung nodule", "'yes'"]),
        ("case,Cardiomegaly,Lung nodule\nx,0,1\ny,0,1\nx.nii.gz,0,1\n", ["'x'", "twice", "rows 2 and 4"]),
        ("case,Cardiomegaly,Lung nodule\n,0,1\n", ["row 2", "no case name"]),
        ("case,Cardiomegaly,Lung nodule\nx,0\n", ["row 2", "2 cells", "3"]),
        ("case,Cardiomegaly,Lung nodule\n", ["no rows"]),
        ("", ["empty"]),
        ("a,Cardiomegaly,Lung nodule\nx,0,1\n", ["case column", "--case-column"]),
        ("case,Cardiomegaly,cardiomegaly,Lung nodule\nx,0,1,1\n", ["Cardiomegaly", "2 times"]),
    ],
)
def test_a_bad_label_table_is_refused_in_one_line_that_says_where(tmp_path, text, parts):
    message = refused(read_labels, write(tmp_path / "labels.csv", text), WAYS)
    assert "labels.csv" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("value", ["nan", "", "inf", "high"])
def test_a_score_that_is_no_number_is_refused_and_never_replaced(tmp_path, value):
    wide = f"case,Cardiomegaly,Lung nodule\nx,0.5,0.1\ny,{value},0.2\n"
    message = refused(read_scores, write(tmp_path / "w.csv", wide), WAYS)
    assert "row 3" in message
    assert "Cardiomegaly" in message
    long = f"case,abnormality,score\nx,Cardiomegaly,{value}\n"
    assert "row 2" in refused(read_scores, write(tmp_path / "l.csv", long), WAYS)


def test_a_long_table_with_a_hole_or_a_double_is_refused(tmp_path):
    hole = "case,abnormality,score\nx,Cardiomegaly,0.1\nx,Lung nodule,0.2\ny,Cardiomegaly,0.1\n"
    message = refused(read_scores, write(tmp_path / "h.csv", hole), WAYS)
    assert "'y' has no score for 'Lung nodule'" in message
    double = "case,abnormality,score\nx,Cardiomegaly,0.1\nx,Cardiomegaly,0.1\nx,Lung nodule,0.2\n"
    assert "2 times" in refused(read_scores, write(tmp_path / "d.csv", double), WAYS)


def test_a_binary_file_and_a_folder_are_refused_in_one_line(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"case,Cardiomegaly\n\xff\xfe,1\n")
    assert "UTF-8" in refused(read_labels, tmp_path / "b.csv", WAYS)
    assert "cannot be read" in refused(read_labels, tmp_path, WAYS)
    assert "cannot be read" in refused(read_labels, tmp_path / "missing.csv", WAYS)


def test_patients_need_a_name_for_every_case(tmp_path):
    found = read_patients(write(tmp_path / "p.csv", "case,patient,study\na_1.nii.gz,P1,S1\nb_1,P2,\n"))
    assert found == {"a_1": ("P1", "S1"), "b_1": ("P2", None)}
    assert "row 3" in refused(read_patients, write(tmp_path / "q.csv", "case,patient\na,P\nb,\n"))
    assert "columns" in refused(read_patients, write(tmp_path / "r.csv", "case,person\na,P\n"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("valid_1_a_1.nii.gz", "valid_1_a_1"),
        ("/data/x/valid_1_a_1.NII.GZ", "valid_1_a_1"),
        ("C:\\scans\\a.mha", "a"),
        (" trn00001.npz ", "trn00001"),
        ("1.2.840.1", "1.2.840.1"),
    ],
)
def test_a_case_is_named_without_folder_and_suffix(text, name):
    assert case_name(text) == name


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "s.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["case", "Cardiomegaly", "Lung nodule"], ["x", 1, 0]])
    np.testing.assert_array_equal(read_labels(path, WAYS).values, [[1, 0]])
