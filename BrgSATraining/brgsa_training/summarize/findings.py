"""What is known about one report after summarization."""

from collections.abc import Iterable
from typing import NamedTuple

from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary


class Finding(NamedTuple):
    """One statement of a report about one abnormality.

    `abnormality` is the vocabulary's name, or None when the raw name is not in it; `evidence` is the sentence of the
    report that says so, as it is written there; `location` is a part of that sentence or empty.
    """

    abnormality: str | None
    raw_name: str
    status: Status
    evidence: str
    location: str = ""


_RANK = {Status.PRESENT: 2, Status.UNCERTAIN: 1, Status.ABSENT: 0}


def decide(findings: Iterable[Finding], vocabulary: Vocabulary) -> dict[str, Status]:
    """Return one status per mentioned abnormality: present beats uncertain beats absent, as readers take reports.

    An abnormality that is present (or uncertain) passes this on to what it implies.
    """
    decided: dict[str, Status] = {}

    def note(name: str, status: Status) -> None:
        if name not in decided or _RANK[status] > _RANK[decided[name]]:
            decided[name] = status

    for finding in findings:
        if finding.abnormality is not None:
            note(finding.abnormality, finding.status)
    for abnormality in vocabulary.abnormalities:
        status = decided.get(abnormality.name)
        if status in (Status.PRESENT, Status.UNCERTAIN):
            for implied in abnormality.implies:
                note(implied, status)
    return decided
