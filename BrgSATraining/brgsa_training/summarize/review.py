"""The correction loop: a sample of reports for a reader, and the reader's corrections back into the results.

Layout of a review table (CSV): report, abnormality, machine, reader, evidence, location. `machine` and `reader` are
present, absent, uncertain or not mentioned; an empty reader cell says that the row was not reviewed, and counts
nowhere. The HTML page saves such a table.
"""

import csv
import hashlib
import heapq
import html
import itertools
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from brgsa.errors import InputError
from brgsa.files import atomic_open, csv_dicts, write_csv
from brgsa_training.summarize.findings import Finding, Summary
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.sentences import split_sentences
from brgsa_training.summarize.vocabulary import Vocabulary

COLUMNS = ("report", "abnormality", "machine", "reader", "evidence", "location")
NOT_MENTIONED = "not mentioned"
NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})
CHOICES = (*(status.value for status in Status), NOT_MENTIONED)


def label_of(word: str) -> int | None:
    """Return the label of a word of a review table: 1, 0, -1, or None for "not mentioned"."""
    return {"present": 1, "absent": 0, "uncertain": -1}.get(word)


class Row(NamedTuple):
    """One line of a review table."""

    report: str
    abnormality: str
    machine: str
    reader: str
    evidence: str
    location: str


def sample(summaries: Iterable[Summary], size: int, seed: int = 0) -> list[Summary]:
    """Return `size` reports drawn with equal chance (all if there are fewer), in their order, without failed ones."""
    randomness = random.Random(seed)  # noqa: S311
    kept: list[tuple[int, Summary]] = []
    number = 0
    for summary in summaries:
        if summary.problem or not summary.text:
            continue
        if len(kept) < size:
            kept.append((number, summary))
        elif (place := randomness.randrange(number + 1)) < size:
            kept[place] = (number, summary)
        number += 1
    return [summary for _, summary in sorted(kept, key=lambda pair: pair[0])]


def disputed(
    summaries: Iterable[Summary], others: Iterable[Summary], names: Sequence[str], vocabulary: Vocabulary
) -> dict[str, list[str]]:
    """Return, for each report that both results have, the abnormalities of which they do not say the same."""
    said = {other.id: other.statuses(vocabulary) for other in others if not other.problem}
    differences = {}
    for summary in summaries:
        if summary.problem or summary.id not in said:
            continue
        statuses, other = summary.statuses(vocabulary), said[summary.id]
        differ = [name for name in names if statuses.get(name) != other.get(name)]
        if differ:
            differences[summary.id] = differ
    return differences


def most_disputed(summaries: Iterable[Summary], differences: Mapping[str, Sequence[str]], size: int) -> list[Summary]:
    """Return the `size` reports with the most differences, those first, and as many others as there is room for."""
    readable = (summary for summary in summaries if not summary.problem and summary.text)
    return heapq.nlargest(size, readable, key=lambda summary: len(differences.get(summary.id, ())))


def review_rows(
    summary: Summary, names: Sequence[str], vocabulary: Vocabulary, first: Collection[str] = ()
) -> list[Row]:
    """Return one line per abnormality of `names`: those of `first`, then what the machine says."""
    statuses = summary.statuses(vocabulary)
    rows = []
    for name in names:
        status = statuses.get(name)
        named = [finding for finding in summary.findings if finding.abnormality == name]
        # A status that is implied has no finding of its own: then the first one is the evidence.
        found = [finding for finding in named if finding.status == status] or named
        evidence, location = (found[0].evidence, found[0].location) if found else ("", "")
        rows.append(Row(summary.id, name, status.value if status else NOT_MENTIONED, "", evidence, location))
    return sorted(rows, key=lambda row: (row.abnormality not in first, CHOICES.index(row.machine)))


def write_review_csv(
    path: Path,
    summaries: Sequence[Summary],
    names: Sequence[str],
    vocabulary: Vocabulary,
    first: Mapping[str, Sequence[str]] = NOTHING,
) -> None:
    """Write the review table of a sample; `first` names abnormalities whose rows come first, by report."""
    rows = (review_rows(summary, names, vocabulary, first.get(summary.id, ())) for summary in summaries)
    write_csv(path, COLUMNS, itertools.chain.from_iterable(rows))


def write_review_html(
    path: Path,
    summaries: Sequence[Summary],
    names: Sequence[str],
    vocabulary: Vocabulary,
    first: Mapping[str, Sequence[str]] = NOTHING,
) -> None:
    """Write the review page of a sample; it needs no network and saves the reader's table as CSV.

    `first` names abnormalities whose rows come first, by report.
    """
    template = (Path(__file__).parent / "data" / "review.html").read_text(encoding="utf-8")
    before, after = template.split("<!-- reports -->")
    rows = [review_rows(summary, names, vocabulary, first.get(summary.id, ())) for summary in summaries]
    # The browser keeps the answers under this name, so that a page that is opened again goes on.
    name = hashlib.sha256(repr([row[:3] for row in itertools.chain.from_iterable(rows)]).encode()).hexdigest()[:16]
    with atomic_open(path) as file:
        file.write(before.replace("<body>", f'<body data-review="{name}">'))
        for summary, lines in zip(summaries, rows, strict=True):
            file.write(_section(summary, lines, names, first.get(summary.id, ())))
        file.write(after)


def _section(summary: Summary, rows: Sequence[Row], names: Sequence[str], first: Collection[str]) -> str:
    evidence: dict[str, list[str]] = {}
    for finding in summary.findings:
        evidence.setdefault(finding.evidence, []).append(
            f"{finding.abnormality or finding.raw_name}: {finding.status.value}"
        )
    text = []
    for sentence in split_sentences(summary.text):
        escaped = html.escape(sentence)
        if sentence in evidence:
            escaped = f'<mark title="{html.escape("; ".join(dict.fromkeys(evidence[sentence])))}">{escaped}</mark>'
        text.append(escaped)
    lines = []
    for rank, row in enumerate(rows):
        said = row.machine.replace(" ", "-")
        lines.append(
            f'<tr class="row" data-report="{html.escape(row.report)}" '
            f'data-abnormality="{html.escape(row.abnormality)}" data-machine="{row.machine}" '
            f'data-rank="{rank}" data-place="{names.index(row.abnormality)}" '
            f'data-first="{int(row.abnormality in first)}"><td>{html.escape(row.abnormality)}</td>'
            f'<td class="machine"><span class="{said}">{row.machine}</span></td><td class="reader"></td>'
            f'<td class="evidence"><span>{html.escape(row.evidence)}</span></td></tr>'
        )
    return (
        f"<section><h2>{html.escape(summary.id)}</h2><p>{' '.join(text)}</p>"
        f"<table><thead><tr><th>abnormality</th><th>machine</th><th>reader</th><th>evidence</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></section>\n"
    )


def read_review(path: str | Path, vocabulary: Vocabulary) -> list[Row]:
    """Read the reviewed rows of a review table: those with a word in the reader's column.

    Raises:
        InputError: names the row with an unknown abnormality or status; or no row was reviewed.
    """
    path = Path(path)
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_dicts(file)
            missing = {"report", "abnormality", "machine", "reader"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(
                    f"{path} has no column {sorted(missing)[0]!r}. Give the table that `summarize review` made."
                )
            for number, record in enumerate(reader, 2):
                row = Row(*((record.get(column) or "").strip() for column in COLUMNS))
                row = row._replace(machine=row.machine.lower(), reader=row.reader.lower())
                if row.abnormality not in vocabulary.names:
                    raise InputError(f"{path}, row {number}: {row.abnormality!r} is not in the vocabulary.")
                for said in (row.machine, row.reader or row.machine):
                    if said not in CHOICES:
                        raise InputError(f"{path}, row {number}: {said!r} is none of {', '.join(CHOICES)}.")
                if row.reader:
                    rows.append(row)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a UTF-8 CSV table ({error}).") from error
    if not rows:
        raise InputError(f"{path}: no row was reviewed. Fill the column 'reader' of every row that was read.")
    return rows


def corrected(summaries: Iterable[Summary], rows: Sequence[Row]) -> Iterator[Summary]:
    """Yield the summaries with the reader's decisions wherever they differ from the machine's.

    Raises:
        InputError: at the end, if the table names a report that is not among the summaries.
    """
    decisions: dict[str, dict[str, Status | None]] = {}
    for row in rows:
        changes = decisions.setdefault(row.report, {})
        if row.reader != row.machine:
            changes[row.abnormality] = None if row.reader == NOT_MENTIONED else Status(row.reader)
    for summary in summaries:
        changes = decisions.pop(summary.id, {})
        if changes:
            findings = list(summary.findings)
            stated = {finding.abnormality for finding in findings}
            findings += [
                Finding(name, "added by the reader", status, "")
                for name, status in changes.items()
                if status is not None and name not in stated
            ]
            summary = summary._replace(findings=tuple(findings), corrections={**summary.corrections, **changes})
        yield summary
    if decisions:
        raise InputError(
            f"the review table names the report {next(iter(decisions))!r}, which is not among the findings."
        )
