"""Outputs of a run: CSV, Markdown, LaTeX, a page without script, run.json."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from brgsa_training.evaluate import honest, modality_gap, retrieval_run
from brgsa_training.evaluate.cohort import Cohort
from brgsa_training.evaluate.evaluation import PAPER_COLUMNS
from brgsa_training.evaluate.plots import confusion, curves, forest, reliability
from brgsa_training.evaluate.reference import COLUMNS as REFERENCE_COLUMNS
from brgsa_training.evaluate.reference import reference_rows, reference_table
from brgsa_training.evaluate.report import ReportTable, column_meaning, column_title, write_outputs

HOSTILE = '<script>alert("x")</script> & 50 % of $x_1$ | {a}'
DOCS = Path(__file__).parents[3] / "docs"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


@pytest.fixture
def written(tmp_path):
    rows = [
        {"abnormality": HOSTILE, "cases": 10, "positives": 3, "auroc": 0.75, "auroc_lower": 0.5, "auroc_upper": 0.9},
        {"abnormality": "Mean", "cases": 10, "positives": np.int64(3), "auroc": np.nan, "warnings": HOSTILE},
    ]
    columns = ("abnormality", "cases", "positives", "auroc", "auprc", "warnings")
    tables = [ReportTable("table", "A table", columns, rows, mean_row=True), reference_table("rad-chestct-16")]
    pictures = [forest([HOSTILE, "Mean"], [0.75, 0.7], [0.5, np.nan], [0.9, np.nan])]
    write_outputs(tmp_path, HOSTILE, "note", [("fact", HOSTILE)], tables, pictures, {"nan": np.nan, "n": np.int64(3)})
    return tmp_path


def test_the_page_is_self_contained_escaped_and_without_script(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    assert "<script" not in page
    assert tags.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in tags.links)
    assert "&lt;script&gt;" in page


def test_the_csv_has_every_number_and_blanks_for_undefined_ones(written):
    with (written / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["abnormality"] == HOSTILE
    assert (rows[0]["auroc"], rows[0]["auroc_lower"]) == ("0.75", "0.5")
    assert rows[1]["auroc"] == ""
    assert (written / "reference.csv").exists()


def test_markdown_and_latex_escape_their_own_signs_and_drop_empty_columns(written):
    markdown = (written / "table.md").read_text(encoding="utf-8")
    assert "0.750 (0.500 to 0.900)" in markdown
    assert "\\|" in markdown
    assert "AUPRC" not in markdown
    latex = (written / "table.tex").read_text(encoding="utf-8")
    assert r"\& 50 \% of \$x\_1\$" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1


def test_run_json_is_strict_json(written):
    run = json.loads((written / "run.json").read_text(encoding="utf-8"))
    assert (run["nan"], run["n"]) == (None, 3)
    assert run["versions"]["numpy"] == np.__version__


def test_pictures_draw_one_class_missing_labels_and_constant_scores():
    rng = np.random.default_rng(0)
    labels = (rng.random((50, 4)) < 0.4).astype(float)
    labels[:, 1] = 0
    labels[:10, 2] = np.nan
    scores = rng.normal(size=(50, 4))
    scores[:, 3] = 1
    names = tuple(f"c{i}" for i in range(50))
    probabilities = np.where([True, True, True, False], rng.random((50, 4)), np.nan)
    cohort = Cohort(
        names, ("A $", "B", "C", "D"), scores, labels, names, names, True, np.array([0, 0, 0, np.nan]), probabilities
    )
    pictures = [*curves(cohort), reliability(cohort), confusion(cohort, cohort.thresholds)]
    assert all(b"<svg" in picture.svg[:800] for picture in pictures)
    blank = np.full((50, 4), np.nan)
    assert confusion(cohort, blank[0]) is None
    assert curves(cohort)[0].svg == pictures[0].svg


def test_every_column_has_a_meaning_and_stands_in_the_documentation():
    text = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    used = {c for c in honest.COLUMNS if not c.endswith(("_lower", "_upper"))} | {"delong"}
    used |= set(PAPER_COLUMNS) | set(REFERENCE_COLUMNS) | set(modality_gap.COLUMNS) | set(modality_gap.USAGE_COLUMNS)
    used |= set(retrieval_run.COLUMNS) | {c for c in honest.DIFFERENCE_COLUMNS if c not in ("lower", "upper")}
    for column in used:
        assert column_meaning(column)
        assert f"`{column}`" in text, column
        assert column_title(column) in text, column


def test_reference_rows_carry_source_protocol_and_only_read_marks():
    for row in reference_rows():
        assert row["mark"] in ("R", "A")
        assert row["source"]
        assert row["protocol"]
        assert all(0 < value < 1 for value in row["metrics"].values())
    assert reference_table("inspect-pe") is None


def test_published_f1_and_accuracy_stand_beside_what_a_constant_answer_gets():
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, np.nan]])
    caption = reference_table("ct-rate-18", labels).caption
    assert "everything absent gets weighted F1 0.588 and accuracy 0.708" in caption
    assert "everything present gets F1 (present) 0.450" in caption
    assert "constant" not in reference_table("ct-rate-retrieval").caption
    assert "everything" not in reference_table("ct-rate-retrieval", labels).caption
