import csv
import html
import re

import pytest

from brgsa.errors import InputError
from brgsa_training.summarize.findings import Finding, Summary, read_summaries, summary_line
from brgsa_training.summarize.review import (
    corrected,
    disputed,
    most_disputed,
    read_review,
    review_rows,
    sample,
    write_review_csv,
    write_review_html,
)
from brgsa_training.summarize.scope import Status

NAMES = ("Cardiomegaly", "Consolidation", "Pneumonia", "Lung nodule")


def _summary(number: int = 1) -> Summary:
    text = f"<script>alert({number})</script> A nodule is seen. Consolidation is seen."
    findings = (
        Finding("Lung nodule", "nodule", Status.PRESENT, f"<script>alert({number})</script> A nodule is seen."),
        Finding("Consolidation", "Consolidation", Status.PRESENT, "Consolidation is seen."),
    )
    return Summary(f"case_{number}", "train", (), text, findings)


def test_a_sample_is_drawn_with_equal_chance_and_kept_in_order():
    summaries = [_summary(number) for number in range(20)]
    counts = dict.fromkeys((summary.id for summary in summaries), 0)
    for seed in range(600):
        drawn = sample(iter(summaries), 5, seed)
        assert [summary.id for summary in drawn] == [s.id for s in summaries if s in drawn]
        for summary in drawn:
            counts[summary.id] += 1
    assert min(counts.values()) > 100
    assert max(counts.values()) < 200
    assert sample(summaries, 5, 1) == sample(summaries, 5, 1)


def test_what_two_results_disagree_on_comes_first_in_reports_and_rows(vocabulary):
    summaries = [_summary(number) for number in range(1, 5)]
    other = [
        summaries[0],
        summaries[1]._replace(findings=summaries[1].findings[:1]),  # no consolidation, so no pneumonia either
        summaries[2]._replace(
            findings=(summaries[2].findings[0]._replace(status=Status.ABSENT), *summaries[2].findings[1:])
        ),
        summaries[3]._replace(problem="no answer"),
    ]
    differences = disputed(summaries, other, NAMES, vocabulary)
    assert differences == {"case_2": ["Consolidation", "Pneumonia"], "case_3": ["Lung nodule"]}
    chosen = most_disputed(summaries, differences, 3)
    assert [summary.id for summary in chosen] == ["case_2", "case_3", "case_1"]
    rows = review_rows(chosen[1], NAMES, vocabulary, differences["case_3"])
    assert [row.abnormality for row in rows] == ["Lung nodule", "Consolidation", "Pneumonia", "Cardiomegaly"]


def test_the_page_escapes_the_report_and_marks_the_evidence(tmp_path, vocabulary):
    write_review_html(tmp_path / "r.html", [_summary()], NAMES, vocabulary)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert re.search(r'<mark title="Consolidation: present">Consolidation is seen.</mark>', page)
    assert page.count("<tr class=") == len(NAMES)


def test_corrections_win_over_findings_and_what_they_imply(tmp_path, vocabulary):
    write_review_csv(tmp_path / "r.csv", [_summary()], NAMES, vocabulary)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["abnormality"]: row["machine"] for row in rows} == {
        "Lung nodule": "present",
        "Consolidation": "present",
        "Pneumonia": "present",  # implied by the consolidation
        "Cardiomegaly": "not mentioned",
    }
    changes = {"Pneumonia": "absent", "Cardiomegaly": "Present", "Lung nodule": "not mentioned"}
    with (tmp_path / "c.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"reader": changes.get(row["abnormality"], "")} for row in rows)
    read = read_review(tmp_path / "c.csv", vocabulary)
    (result,) = corrected([_summary()], read)
    statuses = result.statuses(vocabulary)
    assert statuses == {
        "Consolidation": Status.PRESENT,
        "Pneumonia": Status.ABSENT,
        "Cardiomegaly": Status.PRESENT,
    }
    (tmp_path / "f.jsonl").write_text(summary_line(result), encoding="utf-8")
    assert next(read_summaries(tmp_path / "f.jsonl")) == result
    assert [row.machine for row in review_rows(result, ["Pneumonia"], vocabulary)] == ["absent"]


def test_a_row_that_nobody_reviewed_counts_nowhere(run, tmp_path, vocabulary):
    out = tmp_path / "out"
    (tmp_path / "r.csv").write_text("id,text\na,A nodule is seen in the lung. Cardiomegaly.\nb,No nodule.\n", "utf-8")
    assert run("summarize", tmp_path / "r.csv", "--out", out, "--labels", "ct-rate-18")[0] == 0
    sheet = tmp_path / "sheet.csv"
    assert run("summarize", "review", out, "--out", sheet, "--labels", "ct-rate-18")[0] == 0
    apply = ("summarize", "apply-corrections", sheet, "--results", out, "--out", tmp_path / "corrected")
    code, _, err = run(*apply)
    assert code == 3 and "no row was reviewed" in err and not (tmp_path / "corrected").exists()

    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    answers = {("a", "Lung nodule"): "present", ("b", "Lung nodule"): "absent", ("a", "Cardiomegaly"): "absent"}
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"reader": answers.get((row["report"], row["abnormality"]), "")} for row in rows)
    code, text, err = run(*apply)
    assert code == 0, err
    assert "1 of 3 reviewed lines corrected" in text and "uncertain (-1) counts as negative" in text
    with (tmp_path / "corrected" / "agreement.csv").open(newline="") as file:
        measured = {row["abnormality"]: row for row in csv.DictReader(file)}
    assert set(measured) == {"Lung nodule", "Cardiomegaly", "macro", "micro"}
    assert (measured["Lung nodule"]["reports"], measured["Lung nodule"]["f1"]) == ("2", "1.0")
    assert (measured["Cardiomegaly"]["reports"], measured["Cardiomegaly"]["precision"]) == ("1", "0.0")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("case_1,Nothing,present,absent,,", "row 2: 'Nothing' is not in the vocabulary"),
        ("case_1,Pneumonia,present,maybe,,", "row 2: 'maybe' is none of present"),
    ],
)
def test_a_broken_review_table_is_named(tmp_path, vocabulary, line, message):
    path = tmp_path / "c.csv"
    path.write_text(f"report,abnormality,machine,reader,evidence,location\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_review(path, vocabulary)


def test_a_report_that_is_not_there_is_named(tmp_path, vocabulary):
    path = tmp_path / "c.csv"
    path.write_text("report,abnormality,machine,reader\nother,Pneumonia,present,absent\n")
    with pytest.raises(InputError, match="names the report 'other'"):
        list(corrected([_summary()], read_review(path, vocabulary)))


def test_findings_of_another_version_are_refused(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(summary_line(_summary()).replace("brgsa-findings/1", "brgsa-findings/2"))
    with pytest.raises(InputError, match="line 1: not a line of brgsa-findings/1"):
        list(read_summaries(path))


def test_the_escaped_text_is_the_text(tmp_path, vocabulary):
    summary = _summary()._replace(text='Size < 5 mm & "stable" > before.', findings=())
    write_review_html(tmp_path / "r.html", [summary], NAMES, vocabulary)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    paragraph = re.search(r"<p>(.*?)</p>", page).group(1)
    assert html.unescape(paragraph) == "Size < 5 mm & stable > before."
