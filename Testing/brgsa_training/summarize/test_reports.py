import json

import pytest

from brgsa.errors import InputError
from brgsa_training.summarize.reports import Columns, read_reports


def test_ct_rates_own_file_gives_one_report_per_scan(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_text(
        "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n"
        'train_1_a_1.nii.gz,,CT,"A nodule, small.","Nodule"\n'
        'train_1_a_2.nii.gz,,CT,"A nodule, small.","Nodule"\n'
        "valid_2_a_1.nii.gz,,CT,Normal.,\n",
        encoding="utf-8-sig",
    )
    first, second = read_reports(path)
    assert (first.id, first.text, first.split) == ("train_1_a", "A nodule, small. Nodule", "train")
    assert first.images == ("train_1_a_1.nii.gz", "train_1_a_2.nii.gz")
    assert (second.id, second.text, second.split, second.place) == ("valid_2_a", "Normal.", "valid", "row 4")


@pytest.mark.parametrize(
    ("header", "row", "text"),
    [
        ("id,findings", "1,A nodule.", "A nodule."),
        ("id,Impressions_EN", "1,A nodule.", "A nodule."),
        ("id,impression,findings", "1,Second.,First.", "First. Second."),
        ("id,findings,report_text", "1,Part.,The whole.", "The whole."),
        ("VolumeName,Findings_EN,Conclusion", "a_1.nii.gz,First.,Second.", "First. Second."),
    ],
)
def test_findings_and_impression_are_found_by_name_and_either_is_enough(tmp_path, header, row, text):
    path = tmp_path / "r.csv"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    assert next(read_reports(path)).text == text


def test_several_files_are_read_in_their_order_and_share_no_identifier(tmp_path):
    for name, rows in (("train.csv", "train_1_a,x\n"), ("valid.csv", "valid_1_a,y\n"), ("again.csv", "train_1_a,z\n")):
        (tmp_path / name).write_text("id,text\n" + rows, encoding="utf-8")
    first, second, again = (tmp_path / name for name in ("train.csv", "valid.csv", "again.csv"))
    reports = list(read_reports([first, second]))
    assert [(report.id, report.split, report.file) for report in reports] == [
        ("train_1_a", "train", str(first)),
        ("valid_1_a", "valid", str(second)),
    ]
    with pytest.raises(InputError, match=r"again.csv, row 2: the identifier 'train_1_a' is used before"):
        list(read_reports([first, again]))


def test_identifiers_choose_reports_by_name_or_by_a_volume(tmp_path):
    path = tmp_path / "r.csv"
    rows = "train_1_a_1.nii.gz,x\ntrain_1_a_2.nii.gz,x\ntrain_2_a_1.nii.gz,y\ntrain_3_a_1.nii.gz,z\n"
    path.write_text("VolumeName,text\n" + rows, encoding="utf-8")
    assert [report.id for report in read_reports(path, ids={"train_1_a_2", "train_3_a"})] == ["train_1_a", "train_3_a"]
    with pytest.raises(InputError, match="none of the identifiers of --ids"):
        list(read_reports(path, ids={"train_9_a"}))


def test_columns_of_any_name_can_be_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"nr": 7, "a": "One.", "b": None, "v": ["x.nii"], "s": "test"}) + "\n", encoding="utf-8")
    (report,) = read_reports(path, Columns("nr", ("a", "b"), "v", "s"))
    assert report[:4] == ("7", "One.", ("x.nii",), "test")


def test_the_shipped_reports_are_read(real_reports):
    reports = list(read_reports(real_reports / "ctrate_valid_60.jsonl"))
    assert len(reports) == 60
    assert {report.split for report in reports} == {"valid"}
    assert all(report.images and report.text for report in reports)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,a\n2,b\n1,c\n", "row 4: the identifier '1' is used before"),
        ("a.csv", "id,text\n1,a\n1,a\n", "row 3: '1' is the same as in row 2"),
        ("a.csv", "id,text\n,a\n", "row 2: the identifier .id. is empty"),
        ("a.csv", "id,text\n1,a,b\n", "row 2: it has another number of fields"),
        ("a.csv", "id,words\n1,a\n", "looks like report text. Name it with --text-columns; it has: id, words"),
        ("a.csv", "nr,text\n1,a\n", "looks like an identifier. Name it with --id-column"),
        ("a.csv", "id,text\n", "holds no report"),
        ("a.csv", "", "holds no report"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": 2\n', "line 2: not valid JSON"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": 2}\n', "line 2: 'text' is missing"),
        ("a.jsonl", '{"id": 1, "text": "a", "images": 5}\n', "line 1: 'images' is neither a text nor a list"),
        ("a.jsonl", "[1]\n", "line 1: not a JSON object"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_row(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        list(read_reports(path))
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("id,text\n1,Bulgular değişmiş\n".encode("iso8859-9"))
    with pytest.raises(InputError, match="is not UTF-8"):
        list(read_reports(path))


def test_a_missing_file_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none.csv"):
        list(read_reports(tmp_path / "none.csv"))
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no column 'x' \(--id-column\). It has: id, text"):
        list(read_reports(path, Columns("x")))


@pytest.mark.parametrize("row", ['{"id": "a", "text": "half \\ud800"}', '{"id": "\\udfff", "text": "x"}'])
def test_half_of_a_character_is_named_with_its_row(tmp_path, row):
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "b", "text": "whole \\ud83d\\ude00"}\n' + row + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: it holds half of a character"):
        list(read_reports(path))


def test_a_row_of_a_hundred_thousand_brackets_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        list(read_reports(path))
