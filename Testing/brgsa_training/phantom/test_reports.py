"""Reports affirm what a phantom shows, deny only what it does not, and vary."""

import re

import pytest

from brgsa.text import clean
from brgsa_training.phantom.abnormalities import ABNORMALITIES
from brgsa_training.phantom.generate import captions_of
from brgsa_training.phantom.phantom import make_report
from brgsa_training.phantom.reports import wording

KINDS = ("named", "paraphrased", "hedged", "absent", "conclusion")


@pytest.fixture(scope="module")
def reports():
    return [make_report(seed) for seed in range(400)]


SLOTS = {
    "side": "(left|right|bilateral)",
    "Side": "(Left|Right|Bilateral)",
    "where": "in [a-z ]+",
    "site": "(upper|middle|lower)",
    "size": "[0-9]+",
    "degree": "(mild|moderate|marked)",
    "Degree": "(Mild|Moderate|Marked)",
}


def pattern_of(template: str) -> re.Pattern:
    """A sentence of the wording table with every value that its slots can take."""
    return re.compile(re.sub(r"\\{(\w+)\\}", lambda slot: SLOTS[slot[1]], re.escape(template)))


def test_every_abnormality_has_wording_of_every_kind():
    assert set(wording()["abnormalities"]) == set(ABNORMALITIES)
    for name, row in wording()["abnormalities"].items():
        assert all(len(row[kind]) >= 1 for kind in KINDS), name
        assert len(row["named"]) + len(row["paraphrased"]) >= 5, name
        assert set(row.get("not_denied_with", ())) <= set(ABNORMALITIES)


def test_named_sentences_name_the_abnormality_and_paraphrases_do_not():
    for name, row in wording()["abnormalities"].items():
        for sentence in row["named"]:
            # A plural ending is allowed.
            assert name.lower() in sentence.lower(), (name, sentence)
        for sentence in row["paraphrased"]:
            assert name.lower() not in sentence.lower(), (name, sentence)


def test_a_sentence_of_one_abnormality_is_not_used_for_another():
    owner = {}
    for name, row in wording()["abnormalities"].items():
        for kind in KINDS:
            for sentence in row[kind]:
                assert owner.setdefault(sentence, name) == name, sentence


def test_positive_sentences_are_about_present_abnormalities_only(reports):
    templates = {
        name: [pattern_of(s) for kind in ("named", "paraphrased", "hedged", "conclusion") for s in row[kind]]
        for name, row in wording()["abnormalities"].items()
    }
    for present, report in reports[:150]:
        affirmed = {
            name
            for name, patterns in templates.items()
            if any(pattern.fullmatch(sentence) for pattern in patterns for sentence in report.sentences)
        }
        assert affirmed == set(present) == set(report.positive.values())


def test_denials_are_about_absent_abnormalities_only(reports):
    for present, report in reports:
        for name in present:
            assert not set(wording()["abnormalities"][name]["absent"]) & set(report.sentences)


def test_every_present_abnormality_is_in_the_findings_and_in_the_summary(reports):
    for present, report in reports:
        in_findings = {report.positive[sentence] for sentence in report.findings if sentence in report.positive}
        assert in_findings == set(present)
        assert report.summary == tuple(f"There is {name}." for name in present)
        assert report.impression


def test_a_fair_share_of_positive_sentences_names_the_abnormality(reports):
    positive = [(sentence, name) for _, report in reports for sentence, name in report.positive.items()]
    named = sum(name.lower() in sentence.lower() for sentence, name in positive) / len(positive)
    assert 0.45 < named < 0.75


def test_no_slot_is_left_open_and_no_sentence_is_lost_in_cleaning(reports):
    for _, report in reports:
        for sentence in (*report.sentences, *report.summary):
            assert "{" not in sentence
            assert sentence.endswith(".")
            assert sentence[0].isupper()
        cleaned = captions_of((*report.sentences, *report.summary))
        long_enough = [s for s in (*report.sentences, *report.summary) if len(clean(s).split()) > 1]
        assert len(cleaned) == len(long_enough)


def test_reports_of_patients_with_the_same_abnormality_differ():
    texts = {make_report(seed)[1].sentences for seed in range(100)}
    assert len(texts) == 100
