import json

import pytest

from brgsa_training.summarize.captions import Variant, caption
from brgsa_training.summarize.findings import Summary


@pytest.mark.parametrize(
    ("sentence", "abnormality", "severity", "size"),
    [
        ("Mild emphysema is seen in both lungs.", "Emphysema", "mild", ""),
        ("Pleural effusion is minimal on the right.", "Pleural effusion", "minimal", ""),
        ("A 4.6 mm nodule is seen in the right lung.", "Lung nodule", "", "5 mm"),
        ("There is a mass of 2,4x1.35 cm in the left lung.", "Lung mass", "", "24 x 14 mm"),
        ("Massive pericardial effusion reaching 3 cm.", "Pericardial effusion", "severe", "30 mm"),
        ("The heart is enlarged; a 5 mm nodule is seen in the left lung.", "Cardiomegaly", "", ""),
    ],
)
def test_severity_and_size_come_from_the_clause(rules, sentence, abnormality, severity, size):
    finding = next(row for row in rules.findings(sentence) if row.abnormality == abnormality)
    assert (finding.severity, finding.size) == (severity, size)


def test_a_caption_states_details_where_they_are_asked_for(rules, vocabulary):
    text = "Mild emphysema is seen in both lungs. A 6 mm nodule is in the right lung. Mediastinal lymph nodes are seen."
    summary = Summary("a", "train", (), text, tuple(rules.findings(text)))
    names = ("Emphysema", "Lung nodule", "Lymphadenopathy")
    plain = caption(summary, names, vocabulary, Variant("summary"))
    assert plain == ["there is emphysema", "there is lung nodule", "there is lymphadenopathy"]
    detailed = caption(summary, names, vocabulary, Variant("summary", details=("severity", "size", "location")))
    assert detailed == [
        "there is mild emphysema in both lungs",
        "there is lung nodule of 6 mm in the right lung",
        "there is mediastinal lymphadenopathy",
    ]
    assert (
        caption(summary, names, vocabulary, Variant("summary", details=("size",)))[1] == "there is lung nodule of 6 mm"
    )


def test_details_are_written_and_the_captions_command_states_them(run, write_reports, tmp_path):
    out = tmp_path / "out"
    assert run("summarize", write_reports("Mild emphysema is seen."), "--out", out)[0] == 0
    record = json.loads((out / "findings.jsonl").read_text("utf-8"))
    assert record["findings"][0]["severity"] == "mild"
    other = tmp_path / "c.json"
    assert run("summarize", "captions", out, "--out", other, "--details", "severity", "size")[0] == 0
    assert "there is mild emphysema" in other.read_text("utf-8")
