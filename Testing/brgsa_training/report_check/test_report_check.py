"""Report check: every abnormality gets the verdict that its report, score and threshold give, with the sentence."""

import importlib.util
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.scoring import Scorer
from brgsa.weights.folder import locate
from brgsa_training.report_check.reading import findings_by_rules
from brgsa_training.report_check.report_check import Verdict, check_report
from brgsa_training.report_check.table import check_table
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.sentences import split_sentences

REPORT = (
    "There is a nodule in the right lung. No pleural effusion. Emphysema cannot be excluded. Heart size is increased."
)


@pytest.fixture(scope="session")
def llm():
    """The stand-in for an OpenAI-compatible server."""
    path = Path(__file__).resolve().parents[2] / "standins" / "llm_server.py"
    spec = importlib.util.spec_from_file_location("llm_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["llm_server"] = module
    spec.loader.exec_module(module)
    return module


def with_thresholds(abnormalities, value):
    return replace(abnormalities, abnormalities=tuple(replace(row, threshold=value) for row in abnormalities))


def check(scorer, vocabulary, abnormalities, scan, text, **options):
    findings = findings_by_rules(text, vocabulary)
    return check_report(scorer, scorer.embed(scan), findings, abnormalities, vocabulary, **options)


def by_name(result):
    return {row.name: row for row in result.rows}


# --- verdicts


def test_a_model_that_sees_nothing_leaves_all_that_the_reports_affirm(scorer, vocabulary, ct_rate, phantoms):
    for scan, report, phantom in phantoms:
        result = check(scorer, vocabulary, with_thresholds(ct_rate, 1.5), scan, report.read_text("utf-8"))
        named = {row.name for row in result.of(Verdict.REPORT_ONLY)}
        direct = {name for name in phantom.report.positive.values() if name in ct_rate.names}
        assert direct & named and not {name for name in named if by_name(result)[name].report is None}
        assert not result.of(Verdict.MODEL_ONLY) and not result.of(Verdict.BOTH)


def test_a_model_that_sees_everything_adds_all_that_the_report_does_not_affirm(scorer, vocabulary, ct_rate, phantoms):
    for scan, report, _ in phantoms:
        text = report.read_text("utf-8")
        nothing = check(scorer, vocabulary, with_thresholds(ct_rate, 1.5), scan, text)
        everything = check(scorer, vocabulary, with_thresholds(ct_rate, -1.5), scan, text)
        for less, more in (
            (Verdict.REPORT_ONLY, Verdict.BOTH),
            (Verdict.NEITHER, Verdict.MODEL_ONLY),
        ):
            assert {row.name for row in nothing.of(less)} == {row.name for row in everything.of(more)}


def test_the_evidence_is_a_sentence_of_the_report_about_that_abnormality(scorer, vocabulary, ct_rate, phantoms):
    right = wrong = 0
    for scan, report, phantom in phantoms:
        text = report.read_text("utf-8")
        result = check(scorer, vocabulary, ct_rate, scan, text)
        for row in result.rows:
            assert set(row.evidence) <= set(split_sentences(text)) and bool(row.evidence) == (row.report is not None)
            for sentence in row.evidence:
                about = phantom.report.positive.get(sentence)
                right += about == row.name and row.report is not Status.ABSENT
                wrong += about is None and row.report is not Status.ABSENT
    assert right >= 8 and wrong == 0


def test_named_denied_doubted_and_silent_are_told_apart(scorer, vocabulary, phantoms):
    names = AbnormalityList.from_names(
        ["Lung nodule", "Pleural effusion", "Emphysema", "Cardiomegaly", "Bronchiectasis"]
    )
    scan = phantoms[0][0]
    high, low = (by_name(check(scorer, vocabulary, with_thresholds(names, t), scan, REPORT)) for t in (1.5, -1.5))
    assert [high[name].report for name in names.names] == [
        Status.PRESENT,
        Status.ABSENT,
        Status.UNCERTAIN,
        Status.PRESENT,
        None,
    ]
    only, neither = Verdict.REPORT_ONLY, Verdict.NEITHER
    assert [high[name].verdict for name in names.names] == [only, neither, neither, only, neither]
    both, model = Verdict.BOTH, Verdict.MODEL_ONLY
    assert [low[name].verdict for name in names.names] == [both, model, model, both, model]
    assert high["Pleural effusion"].evidence == ("No pleural effusion.",) and high["Bronchiectasis"].evidence == ()


@pytest.mark.parametrize(
    ("uncertain", "above", "below"),
    [("positive", Verdict.BOTH, Verdict.REPORT_ONLY), ("ignore", Verdict.IN_DOUBT, Verdict.IN_DOUBT)],
)
def test_what_a_doubt_counts_as_can_be_chosen(scorer, vocabulary, phantoms, uncertain, above, below):
    names = AbnormalityList.from_names(["Emphysema", "Lung nodule"])
    for threshold, verdict in ((-1.5, above), (1.5, below)):
        listed = with_thresholds(names, threshold)
        result = check(scorer, vocabulary, listed, phantoms[0][0], REPORT, uncertain=uncertain)
        assert by_name(result)["Emphysema"].verdict is verdict
        assert result.to_dict()["uncertain"] == uncertain
        assert ("In doubt, not compared (1)" in check_table(result)) == (uncertain == "ignore")


def test_what_the_report_brings_up_is_scored_too(scorer, vocabulary, phantoms):
    names = with_thresholds(AbnormalityList.from_names(["Emphysema"]), 0.0)
    result = check(scorer, vocabulary, names, phantoms[0][0], "There is a rib fracture. No pneumothorax.")
    row = by_name(result)["Rib fracture"]
    assert not row.listed and row.verdict is Verdict.NOT_CALIBRATED and row.evidence == ("There is a rib fracture.",)
    assert "Pneumothorax" not in by_name(result)
    alone = scorer.score_embedding(scorer.embed(phantoms[0][0]), AbnormalityList.from_names(["Rib fracture"]))
    assert row.score == alone["Rib fracture"].score


def test_an_abnormality_that_another_one_implies_has_that_ones_sentence(scorer, vocabulary, phantoms):
    implying = next(row for row in vocabulary.abnormalities if row.implies and row.name == "Covid 19 pneumonia")
    text = "Findings are consistent with Covid-19 pneumonia."
    result = by_name(check(scorer, vocabulary, AbnormalityList.from_names(["Emphysema"]), phantoms[0][0], text))
    for name in implying.implies:
        assert result[name].report is Status.PRESENT and result[name].evidence == (text,)


def test_names_that_the_vocabulary_lacks_are_not_called_absent(scorer, vocabulary, phantoms):
    names = with_thresholds(AbnormalityList.from_names(["Emphysema", "Sternal wire dehiscence"]), -1.5)
    result = check(scorer, vocabulary, names, phantoms[0][0], REPORT)
    assert by_name(result)["Sternal wire dehiscence"].verdict is Verdict.NOT_READ
    assert "The report was not searched for: Sternal wire dehiscence" in check_table(result)


def test_other_spellings_of_a_list_meet_the_vocabulary(scorer, vocabulary, phantoms):
    names = AbnormalityList.from_names(["Ground-glass opacities", "LUNG NODULES"])
    rows = by_name(check(scorer, vocabulary, names, phantoms[0][0], "A lung nodule is seen."))
    assert rows["LUNG NODULES"].report is Status.PRESENT and rows["Ground-glass opacities"].readable
    assert "Lung nodule" not in rows


# --- thresholds


def test_without_thresholds_nothing_is_said_to_be_seen(scorer, vocabulary, ct_rate, phantoms):
    result = check(scorer, vocabulary, ct_rate, phantoms[0][0], REPORT)
    assert {row.verdict for row in result.rows} == {Verdict.NOT_CALIBRATED} and result.calibration_set is None
    text = check_table(result)
    assert "NOT CALIBRATED" in text and "not seen by the model" not in text
    assert [row.rank for row in sorted(result.rows, key=lambda row: -row.score)] == list(range(1, len(result.rows) + 1))


@pytest.fixture
def calibrated(tmp_path, scorer, phantoms):
    """The weights with a calibration of two abnormalities: threshold halfway between the phantoms' scores."""
    folder = tmp_path / "calibrated"
    shutil.copytree(locate("phantom")[1], folder)
    names = AbnormalityList.from_names(["Lung nodule", "Emphysema"])
    scores = np.array([[row.score for row in scorer.score(scan, names).scores] for scan, _, _ in phantoms])
    thresholds = np.median(scores, axis=0)
    entries = {
        name: {
            "prompt": f"There is {name}",
            "style": "single",
            "score": "final",
            "threshold": float(threshold),
            "platt": {"a": 10.0, "b": -10.0 * float(threshold)},
            "n": 100,
            "positives": 30,
        }
        for name, threshold in zip(names.names, thresholds, strict=True)
    }
    content = {"version": 1, "abnormalities": entries, "provenance": {"fits": [{"set": "ward seven"}]}}
    (folder / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    return folder, names.names, scores, thresholds


def test_calibrated_verdicts_follow_the_weights_thresholds(calibrated, vocabulary, phantoms):
    folder, names, scores, thresholds = calibrated
    scorer = Scorer.from_pretrained(folder, device="cpu", precision="fp32", cache=False)
    seen = set()
    for (scan, _, _), row in zip(phantoms, scores, strict=True):
        listed = AbnormalityList.from_names([*names, "Pleural effusion"])
        result = check(scorer, vocabulary, listed, scan, REPORT, uncertain="positive")
        for name, score, threshold in zip(names, row, thresholds, strict=True):
            found = by_name(result)[name]  # both are named or in doubt in the report
            assert found.verdict is (Verdict.BOTH if score > threshold else Verdict.REPORT_ONLY)
            assert found.threshold_source == "calibration" and found.threshold == threshold
            assert found.probability == pytest.approx(1 / (1 + np.exp(-10 * (score - threshold))), abs=1e-5)
            seen.add(found.verdict)
        assert by_name(result)["Pleural effusion"].verdict is Verdict.NOT_CALIBRATED
        assert "thresholds: 2 fitted on ward seven" in check_table(result)
    assert seen == {Verdict.BOTH, Verdict.REPORT_ONLY}


def test_a_calibration_of_another_prompt_style_is_not_used(calibrated, vocabulary, phantoms):
    scorer = Scorer.from_pretrained(calibrated[0], device="cpu", precision="fp32", cache=False)
    names = AbnormalityList.from_names(calibrated[1])
    result = check(scorer, vocabulary, names, phantoms[0][0], REPORT, prompts="pair")
    assert {row.verdict for row in result.rows} == {Verdict.NOT_CALIBRATED}


def test_a_threshold_of_the_list_wins_and_is_called_so(calibrated, vocabulary, phantoms):
    scorer = Scorer.from_pretrained(calibrated[0], device="cpu", precision="fp32", cache=False)
    names = AbnormalityList("mine", (Abnormality("Lung nodule", threshold=1.5),))
    row = by_name(check(scorer, vocabulary, names, phantoms[0][0], REPORT))["Lung nodule"]
    assert (row.threshold, row.threshold_source, row.verdict) == (1.5, "list", Verdict.REPORT_ONLY)


# --- the command line


def test_the_command_prints_sections_and_json(calibrated, phantoms, run):
    scan, report, _ = phantoms[0]
    code, out, _ = run("check-report", scan, report, "--weights", calibrated[0])
    assert code == 0
    for title in ("Named by the report, not seen", "Seen by the model, not named", "Neither named nor seen", "NOT CAL"):
        assert title in out
    code, text, _ = run("check-report", scan, report, "--weights", calibrated[0], "--json")
    content = json.loads(text)
    assert code == 0 and content["calibration_set"] == "ward seven" and content["backend"] == "rules"
    row = next(row for row in content["abnormalities"] if row["name"] == "Emphysema")
    assert row["verdict"] in ("report only", "model only", "both", "neither")
    assert content["settings"]["weights_checksum"] and str(scan) == content["path"]


def test_a_real_scan_and_a_real_report_are_compared(real_ct, real_reports, tmp_path, run):
    first = json.loads((real_reports / "ctrate_valid_60.jsonl").read_text("utf-8").splitlines()[0])
    report = tmp_path / "report.txt"
    report.write_text(f"{first['findings']}\n{first['impression']}", encoding="utf-8")
    code, text, _ = run("check-report", real_ct / "lungdx_a0002_dicom", report, "--json")
    rows = json.loads(text)["abnormalities"]
    assert code == 0 and {row["name"] for row in rows if row["report"] == "present"} >= {"Hiatal hernia", "Lung nodule"}
    sentences = set(split_sentences(report.read_text("utf-8")))
    assert all(set(row["evidence"]) <= sentences for row in rows)


def test_the_report_may_come_from_standard_input(phantoms, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(REPORT.encode())))
    code, text, _ = run("check-report", phantoms[0][0], "-", "--json")
    rows = {row["name"]: row["report"] for row in json.loads(text)["abnormalities"]}
    assert code == 0 and rows["Lung nodule"] == "present" and rows["Pleural effusion"] == "absent"


def test_a_report_without_any_abnormality_says_so(phantoms, run, tmp_path):
    (tmp_path / "report.txt").write_text("Akciğerler normaldir. Plevral sıvı yoktur.", encoding="utf-8")
    code, out, _ = run("check-report", phantoms[0][0], tmp_path / "report.txt")
    assert code == 0 and "names none of these abnormalities. The rules read English only." in out


def one_line(answer, code, *words):
    assert answer[0] == code, answer
    last = answer[2].strip().splitlines()[-1]
    assert "Traceback" not in answer[2] and last.startswith("brgsa-training: error: ") and answer[1] == ""
    assert all(str(word) in last for word in words), last


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no text"), (b" \n--- 12\n", "holds no text"), (b"\xff\xfe\x00n", "not UTF-8"), (b"a\0b", "no text")],
)
def test_a_report_that_is_no_text_is_refused(phantoms, run, tmp_path, content, words):
    (tmp_path / "report.txt").write_bytes(content)
    one_line(run("check-report", phantoms[0][0], tmp_path / "report.txt"), 3, "report.txt", words)


def test_missing_files_and_folders_are_named(phantoms, run, tmp_path):
    scan, report, _ = phantoms[0]
    one_line(run("check-report", scan, tmp_path / "none.txt"), 3, "none.txt")
    one_line(run("check-report", scan, tmp_path), 3, tmp_path)
    one_line(run("check-report", tmp_path / "none.nii", report), 3, "none.nii")
    one_line(run("check-report", scan.parent, report), 2, "holds 4 scans")
    one_line(run("check-report", scan, report, "--abnormalities", "ct-rate-81"), 2, "ct-rate-81")
    one_line(run("check-report", scan, report, "--weights", tmp_path / "none"), 4, "none")


def test_an_identifier_in_the_report_stops_it(phantoms, run, tmp_path):
    (tmp_path / "report.txt").write_text(f"Patient name: Jane Doe. {REPORT}", encoding="utf-8")
    one_line(run("check-report", phantoms[0][0], tmp_path / "report.txt"), 3, "a name", "--allow-identifiers")
    assert run("check-report", phantoms[0][0], tmp_path / "report.txt", "--allow-identifiers")[0] == 0


# --- a language model


def test_a_language_model_reads_the_report_with_evidence(phantoms, run, tmp_path, llm, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    with llm.Server() as server:
        options = ("--backend", "openai", "--model", "stand-in", "--base-url", server.base_url)
        code, text, _ = run("check-report", phantoms[0][0], tmp_path / "report.txt", "--json", *options)
    content = json.loads(text)
    row = next(row for row in content["abnormalities"] if row["name"] == "Lung nodule")
    assert code == 0 and content["backend"] == "stand-in" and row["report"] == "present"
    assert row["evidence"] == ["There is a nodule in the right lung."] and len(server.asked) == 1


def test_a_name_that_the_vocabulary_lacks_is_listed_as_not_compared(phantoms, run, tmp_path, llm):
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    entry = {"name": "zebra stripe sign", "status": "present", "sentence": 1, "location": ""}
    with llm.Server(lambda request: llm.completion(json.dumps({"abnormalities": [entry]}))) as server:
        options = ("--backend", "openai", "--model", "stand-in", "--base-url", server.base_url)
        code, out, _ = run("check-report", phantoms[0][0], tmp_path / "report.txt", *options)
    assert code == 0 and "not in the vocabulary, so not compared: zebra stripe sign" in out


def test_a_model_that_answers_nonsense_ends_in_one_line(phantoms, run, tmp_path, llm):
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    with llm.Server(lambda request: llm.completion("I cannot help with that")) as server:
        options = ("--backend", "openai", "--model", "stand-in", "--base-url", server.base_url)
        one_line(run("check-report", phantoms[0][0], tmp_path / "report.txt", *options), 1, "no usable answer")
    assert len(server.asked) == 2


def test_the_report_goes_to_no_server_that_was_not_allowed(phantoms, run):
    scan, report, _ = phantoms[0]
    one_line(run("check-report", scan, report, "--backend", "openai"), 2, "--model")
    one_line(run("check-report", scan, report, "--backend", "openai", "--model", "m"), 2, "--base-url")
    remote = ("--backend", "openai", "--model", "m", "--base-url", "https://llm.example.com/v1")
    one_line(run("check-report", scan, report, *remote), 2, "--i-have-deidentified-these-reports")
