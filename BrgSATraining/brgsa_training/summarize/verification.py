"""Findings from the answer of a language model, and which of them the report itself denies."""

from collections.abc import Sequence
from typing import NamedTuple

from brgsa_training.summarize.findings import Finding, decide
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.prompt import parse_answer
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary


def model_findings(answer: str, sentences: Sequence[str], normaliser: Normaliser) -> list[Finding]:
    """Return the findings of an answer about a report of these sentences.

    Raises:
        AnswerError: the answer cannot be used.
    """
    return [
        Finding(normaliser.name(name), name, status, sentences[sentence - 1], location)
        for name, status, sentence, location in parse_answer(answer, sentences)
    ]


class Contradiction(NamedTuple):
    """An abnormality that the model calls present and that the rules find denied, with the sentence of each."""

    abnormality: str
    model: str
    rules: str


class Verifier:
    """Reads reports by the rules and drops what a model calls present and the report only denies."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._rules = RulesBackend(vocabulary)

    def verified(self, text: str, findings: Sequence[Finding]) -> tuple[list[Finding], list[Contradiction]]:
        """Return the findings that may stand, and the others.

        What the rules do not mention, or find present or uncertain in any sentence, stands.
        """
        read = self._rules.findings(text)
        decided = decide(read, self._vocabulary)
        denied = {
            finding.abnormality: finding.evidence
            for finding in read
            if finding.abnormality is not None and decided[finding.abnormality] is Status.ABSENT
        }
        kept, dropped = [], []
        for finding in findings:
            if finding.status is Status.PRESENT and finding.abnormality in denied:
                dropped.append(Contradiction(finding.abnormality, finding.evidence, denied[finding.abnormality]))
            else:
                kept.append(finding)
        return kept, dropped
