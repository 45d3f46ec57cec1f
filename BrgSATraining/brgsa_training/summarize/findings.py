"""What is known about one report after summarization, and the file that keeps it (findings.jsonl)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from brgsa.errors import InputError
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary

LAYOUT = "brgsa-findings/1"
_RANK = {Status.PRESENT: 2, Status.UNCERTAIN: 1, Status.ABSENT: 0}


class Finding(NamedTuple):
    """One statement of a report about one abnormality.

    `abnormality` is the vocabulary's name, or None when the raw name is not in it; `evidence` is the sentence of the
    report that says so, as it is written there; `location` is a part of that sentence or empty. `severity` (minimal,
    mild, moderate, severe) and `size` (whole mm) are empty where the sentence does not tell.
    """

    abnormality: str | None
    raw_name: str
    status: Status
    evidence: str
    location: str = ""
    severity: str = ""
    size: str = ""


class Summary(NamedTuple):
    """One report with its findings.

    `problem` says why there are none ("" if nothing went wrong). `corrections` are a reader's decisions, which win over
    the findings; None means "not mentioned".
    """

    id: str
    split: str
    images: tuple[str, ...]
    text: str
    findings: tuple[Finding, ...]
    problem: str = ""
    corrections: Mapping[str, Status | None] = {}

    def statuses(self, vocabulary: Vocabulary) -> dict[str, Status]:
        """Return one status per mentioned abnormality (see `decide`), corrected by the reader."""
        decided = decide(self.findings, vocabulary)
        for name, status in self.corrections.items():
            if status is None:
                decided.pop(name, None)
            else:
                decided[name] = status
        return decided


def decide(findings: Iterable[Finding], vocabulary: Vocabulary) -> dict[str, Status]:
    """Return one status per mentioned abnormality: present beats uncertain beats absent, as readers take reports.

    An abnormality that is present or uncertain passes this on to what it implies, unless the report denies or doubts
    that itself: "consolidation, not due to pneumonia".
    """
    decided: dict[str, Status] = {}

    def note(name: str, status: Status) -> None:
        if name not in decided or _RANK[status] > _RANK[decided[name]]:
            decided[name] = status

    for finding in findings:
        if finding.abnormality is not None:
            note(finding.abnormality, finding.status)
    said = set(decided)
    pending = [name for name in decided if decided[name] is not Status.ABSENT]
    while pending:
        name = pending.pop()
        for implied in vocabulary.implied_by(name):
            if implied in said:
                continue
            before = decided.get(implied)
            note(implied, decided[name])
            if decided[implied] is not before:
                pending.append(implied)
    return decided


def summary_line(summary: Summary) -> str:
    """Return a summary as one line of findings.jsonl."""
    record = {
        "layout": LAYOUT,
        "id": summary.id,
        "split": summary.split,
        "images": list(summary.images),
        "text": summary.text,
        "findings": [finding._asdict() for finding in summary.findings],
        "problem": summary.problem,
        "corrections": dict(summary.corrections),
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def read_summaries(path: str | Path) -> Iterator[Summary]:
    """Yield the summaries of a findings.jsonl file.

    Raises:
        InputError: the file cannot be read, or a line is not of this layout and version.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _summary(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InputError(f"{path}, line {number}: not a line of {LAYOUT} ({error}).") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Run `brgsa-training summarize` first.") from error


def _summary(record: dict[str, Any]) -> Summary:
    if record["layout"] != LAYOUT:
        raise ValueError(f"its layout is {record['layout']!r}")
    findings = tuple(Finding(**{**finding, "status": Status(finding["status"])}) for finding in record["findings"])
    corrections = {name: status and Status(status) for name, status in record["corrections"].items()}
    images = tuple(record["images"])
    return Summary(record["id"], record["split"], images, record["text"], findings, record["problem"], corrections)
