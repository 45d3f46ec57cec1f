"""What a model calls present and the report denies is dropped; everything else stands."""

import pytest

from brgsa_training.summarize.findings import Finding
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.verification import Contradiction, Verifier, model_findings

TEXT = "There is a nodule in the right lung. No pleural effusion was detected. Pericardial effusion cannot be excluded."


@pytest.fixture(scope="module")
def verifier(vocabulary):
    return Verifier(vocabulary)


def test_a_finding_that_the_report_denies_is_dropped_with_both_sentences(verifier):
    wrong = Finding("Pleural effusion", "effusion", Status.PRESENT, "There is a nodule in the right lung.")
    right = Finding("Lung nodule", "nodule", Status.PRESENT, "There is a nodule in the right lung.")
    kept, dropped = verifier.verified(TEXT, [wrong, right])
    assert kept == [right]
    assert dropped == [Contradiction("Pleural effusion", wrong.evidence, "No pleural effusion was detected.")]


@pytest.mark.parametrize(
    "finding",
    [
        Finding("Pleural effusion", "effusion", Status.ABSENT, ""),
        Finding("Pleural effusion", "effusion", Status.UNCERTAIN, ""),
        Finding("Pericardial effusion", "effusion", Status.PRESENT, ""),
        Finding("Emphysema", "emphysema", Status.PRESENT, ""),
        Finding(None, "thymic remnant", Status.PRESENT, ""),
    ],
)
def test_what_the_report_does_not_plainly_deny_stands(verifier, finding):
    assert verifier.verified(TEXT, [finding]) == ([finding], [])


def test_an_abnormality_that_another_sentence_states_stands(verifier):
    text = "No effusion on the right. No pleural effusion was detected before. Left pleural effusion is observed."
    finding = Finding("Pleural effusion", "effusion", Status.PRESENT, "")
    assert verifier.verified(text, [finding]) == ([finding], [])


def test_an_answer_becomes_findings_with_the_names_of_the_vocabulary(vocabulary):
    answer = '{"abnormalities": [{"name": "nodules", "status": "present", "sentence": 2, "location": "left"}]}'
    assert model_findings(answer, ["One.", "Two."], Normaliser(vocabulary)) == [
        Finding("Lung nodule", "nodules", Status.PRESENT, "Two.", "left")
    ]
