"""What a vocabulary catches: whether it finds its own names, and what it finds in a set of reports."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brgsa.files import write_csv
from brgsa.tables import text_table
from brgsa_training.summarize.findings import decide
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.scope import Status, plain
from brgsa_training.summarize.sentences import split_sentences
from brgsa_training.summarize.vocabulary import Vocabulary

_SHOWN = 3  # wordings per abnormality


@dataclass
class Catch:
    """What was found of one abnormality: reports by status, its wordings with their counts, and an example sentence.

    `hidden` are mentions in sentences without any of the rule's hints, which are therefore never looked at.
    """

    name: str
    reports: Counter[Status] = field(default_factory=Counter)
    wordings: Counter[str] = field(default_factory=Counter)
    example: str = ""
    hidden: int = 0


def own_names_missed(vocabulary: Vocabulary, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (abnormality, sentence) for each name and synonym that "There is ..." does not find as present."""
    backend = RulesBackend(vocabulary)
    for abnormality in vocabulary.abnormalities:
        if abnormality.name not in names or not abnormality.rules:
            continue
        for name in (abnormality.name, *abnormality.synonyms):
            sentence = f"There is {name}."
            if decide(backend.findings(sentence), vocabulary).get(abnormality.name) is not Status.PRESENT:
                yield abnormality.name, sentence


def catches(vocabulary: Vocabulary, names: Sequence[str], texts: Iterable[str]) -> tuple[list[Catch], int]:
    """Return what is found of each abnormality in report texts, and the number of reports."""
    backend = RulesBackend(vocabulary)
    found = {name: Catch(name) for name in names}
    rules = [(entry.name, rule) for entry in vocabulary.abnormalities if entry.name in found for rule in entry.rules]
    sentences: set[str] = set()
    count = 0
    for text in texts:
        count += 1
        findings = backend.findings(text)
        for name, status in decide(findings, vocabulary).items():
            if name in found:
                found[name].reports[status] += 1
        for finding in findings:
            if finding.abnormality in found:
                catch = found[finding.abnormality]
                catch.wordings[finding.raw_name.lower()] += 1
                if not catch.example and finding.status is Status.PRESENT:
                    catch.example = finding.evidence
        sentences.update(plain(sentence) for sentence in split_sentences(text))
    for name, rule in rules:
        found[name].hidden += sum(
            1
            for sentence in sentences
            if not any(hint in sentence for hint in rule.hints)
            and rule.find.search(sentence)
            and (rule.required is None or rule.required.search(sentence))
        )
    return list(found.values()), count


def catches_text(found: Sequence[Catch], reports: int) -> str:
    """Return the table for people, most frequent first, and the abnormalities that no report mentions."""
    seen = sorted((catch for catch in found if catch.reports), key=lambda catch: -catch.reports[Status.PRESENT])
    rows = [
        [
            catch.name,
            *(catch.reports[status] for status in Status),
            ", ".join(f"{wording} ({count})" for wording, count in catch.wordings.most_common(_SHOWN)),
        ]
        for catch in seen
    ]
    columns = ["abnormality", *(status.value for status in Status), "wordings"]
    hidden = ", ".join(f"{catch.name} ({catch.hidden})" for catch in found if catch.hidden)
    silent = ", ".join(catch.name for catch in found if not catch.reports) or "none"
    lines = [text_table(columns, rows, right=range(1, 4)), f"{reports} reports; mentioned in none: {silent}"]
    return "\n".join(lines + [f"sentences that match without hint: {hidden}"] * bool(hidden))


def write_catches(path: Path, found: Sequence[Catch]) -> None:
    """Write the table as CSV, with an example sentence for each abnormality."""
    rows = (
        [
            catch.name,
            *(catch.reports[status] for status in Status),
            catch.hidden,
            "; ".join(catch.wordings),
            catch.example,
        ]
        for catch in found
    )
    columns = ["abnormality", *(status.value for status in Status), "without_hint", "wordings", "example"]
    write_csv(path, columns, rows)
