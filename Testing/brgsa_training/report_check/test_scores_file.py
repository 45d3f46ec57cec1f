"""A report against scores that were made before: the same verdicts as with the scan, and no model in memory."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from waiting import LONGEST_WAIT

from brgsa.abnormalities import AbnormalityList
from brgsa.files import write_json

REPORT = "There is a nodule in the lung. No pleural effusion. A pneumothorax is seen. Emphysema cannot be excluded."


@pytest.fixture
def material(tmp_path, scorer, ct_rate, phantoms):
    """The list with thresholds for two of three, the scores of the first phantom as a file, the report as a file."""
    rows = [row if n % 3 == 0 else replace(row, threshold=1.5 if n % 3 == 1 else -1.5) for n, row in enumerate(ct_rate)]
    listed = AbnormalityList("mine", tuple(rows))
    listed.write(tmp_path / "mine.json")
    write_json(tmp_path / "scores.json", scorer.score(phantoms[0][0], listed).to_dict())
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    return tmp_path, listed


def rows_of(answer):
    code, out, err = answer
    assert code == 0, err
    return {row["name"]: row for row in json.loads(out)["abnormalities"]}


def test_scores_give_the_verdicts_of_the_scan(material, scorer, phantoms, run):
    folder, listed = material
    options = ("--abnormalities", folder / "mine.json", "--json")
    options = (*options, "--uncertain", "positive")
    direct = rows_of(run("check-report", phantoms[0][0], folder / "report.txt", *options, "--device", "cpu"))
    lacking = rows_of(run("check-report", folder / "scores.json", folder / "report.txt", *options))
    assert {name for name, row in lacking.items() if row["verdict"] == "not scored"} == {"Pneumothorax"}
    assert lacking["Pneumothorax"]["evidence"] == ["A pneumothorax is seen."] and not lacking["Pneumothorax"]["listed"]

    more = AbnormalityList("more", (*listed, *AbnormalityList.from_names(["Pneumothorax", "Zebra stripe sign"])))
    write_json(folder / "scores.json", scorer.score(phantoms[0][0], more).to_dict())
    again = rows_of(run("check-report", folder / "scores.json", folder / "report.txt", *options))
    assert {row["verdict"] for row in direct.values()} >= {"report only", "model only", "not calibrated"}
    for name, row in direct.items():
        assert again[name].pop("score") == pytest.approx(row.pop("score"), abs=1e-4)
    assert again == direct


def test_without_the_list_everything_that_was_scored_is_compared(material, run):
    folder, listed = material
    rows = rows_of(run("check-report", folder / "scores.json", folder / "report.txt", "--json"))
    assert set(rows) == {*listed.names, "Pneumothorax"}
    assert {row["threshold_source"] for row in rows.values()} == {"scores", None}
    out = run("check-report", folder / "scores.json", folder / "report.txt")[1]
    assert "thresholds: 12 as the scores have them" in out and "without a score: Pneumothorax" in out


def test_neither_torch_nor_numpy_is_imported(material):
    folder, _ = material
    code = (
        "import sys; from brgsa_training.cli import main\n"
        "assert main(['check-report', *sys.argv[1:]]) == 0\n"
        "print({'torch', 'numpy', 'nibabel', 'SimpleITK', 'transformers', 'tqdm'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, folder / "scores.json", "-"]
    done = subprocess.run(command, input=REPORT, capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert done.stderr.strip() == "set()" and "Lung nodule" in done.stdout


def test_it_can_be_started_as_a_module(material):
    folder, _ = material
    command = [sys.executable, "-m", "brgsa_training", "check-report", folder / "scores.json", "-", "--json"]
    done = subprocess.run(command, input=REPORT, capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert json.loads(done.stdout)["backend"] == "rules", done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: "{", "no JSON"),
        (lambda content: "[" * 100_000, "no JSON"),
        (lambda content: [content], "holds no scores"),
        (lambda content: {**content, "settings": None}, "holds no scores"),
        (lambda content: {**content, "version": 2}, "version 2"),
        (lambda content: {**content, "scores": []}, "holds no scores"),
        (lambda content: {**content, "scores": [{"name": "Emphysema", "score": "high"}]}, "a row that is none"),
        (lambda content: {**content, "scores": content["scores"][1:]}, "no 'Medical material'"),
    ],
)
def test_a_file_without_scores_is_refused_in_one_line(material, run, change, words):
    folder, _ = material
    path = folder / "scores.json"
    content = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    listed = ("--abnormalities", folder / "mine.json")
    code, out, err = run("check-report", path, folder / "report.txt", *listed)
    assert code == 3 and out == "" and words in err and len(err.strip().splitlines()) == 1


def test_heat_maps_need_the_scan(material, run):
    folder, _ = material
    code, _, err = run("check-report", folder / "scores.json", folder / "report.txt", "--out", folder / "out")
    assert code == 2 and "need the scan" in err and not (folder / "out").exists()
    assert run("check-report", folder / "none.json", folder / "report.txt")[0] == 3


def test_the_refusal_of_an_identifier_names_the_source(material, run, monkeypatch):
    import io

    folder, _ = material
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Patient name: Jane Doe. A nodule.")))
    code, _, err = run("check-report", folder / "scores.json", "-")
    assert code == 3 and "the report (standard input) seems to hold a name" in err


def test_the_version_is_that_of_the_scores_that_are_written_now():
    from brgsa.scores import SCORES_VERSION
    from brgsa_training.report_check.scores_file import VERSION

    assert VERSION == SCORES_VERSION
