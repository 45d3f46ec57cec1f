"""What a report names beside what the model sees in the scan, abnormality by abnormality."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.prompts import shorten
from brgsa.scoring import ScanEmbedding, ScanScores, Scorer
from brgsa.tables import text_table
from brgsa_training.summarize.findings import Finding, decide
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary

VERSION = 1
EVIDENCE_LENGTH = 90
WORDS = {Status.PRESENT: "named", Status.UNCERTAIN: "in doubt", Status.ABSENT: "denied", None: "not named"}


class Verdict(str, Enum):
    """How report and model go together for one abnormality."""

    REPORT_ONLY = "report only"
    MODEL_ONLY = "model only"
    BOTH = "both"
    NEITHER = "neither"
    NOT_CALIBRATED = "not calibrated"
    NOT_READ = "not read"


@dataclass(frozen=True)
class CheckedAbnormality:
    """One abnormality in the report and in the scan.

    Attributes:
        name: as in the list.
        listed: of the list; otherwise the report brought it up.
        readable: the vocabulary knows the abnormality, so that the report could be searched for it.
        report: what the report says, None if it does not say anything.
        evidence: the sentences that say so, as they are written in the report.
        score: cosine, see `brgsa.scoring`.
        rank: of the score among all rows, 1 the highest; an order only, because cosines of different abnormalities have
            no common scale.
        threshold: None where there is none; `threshold_source` is then None, otherwise "list" or "calibration".
        probability: of the calibration, or None.
    """

    name: str
    listed: bool
    readable: bool
    report: Status | None
    evidence: tuple[str, ...]
    score: float
    rank: int
    threshold: float | None
    threshold_source: str | None
    probability: float | None

    @property
    def verdict(self) -> Verdict:
        """A doubt of the report counts as named: it is a question, and the model's answer to it is worth showing."""
        if not self.readable:
            return Verdict.NOT_READ
        if self.threshold is None:
            return Verdict.NOT_CALIBRATED
        named, seen = self.report in (Status.PRESENT, Status.UNCERTAIN), self.score > self.threshold
        if named:
            return Verdict.BOTH if seen else Verdict.REPORT_ONLY
        return Verdict.MODEL_ONLY if seen else Verdict.NEITHER


@dataclass(frozen=True)
class ReportCheck:
    """The result for one scan and its report.

    Attributes:
        scores: what the model gave, with input checks, settings and notice.
        rows: the list's abnormalities in its order, then those that only the report brought up.
        unknown: findings whose name the vocabulary lacks (language model only): not compared.
        backend: "rules", or the name of the language model.
        calibration_set: name of the set that the thresholds were fitted on, None without a calibration.
    """

    scores: ScanScores
    rows: tuple[CheckedAbnormality, ...]
    unknown: tuple[Finding, ...]
    backend: str
    calibration_set: str | None

    def of(self, verdict: Verdict) -> list[CheckedAbnormality]:
        """The rows with a verdict, highest score first."""
        return sorted((row for row in self.rows if row.verdict is verdict), key=lambda row: row.rank)

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON output."""
        return {
            "version": VERSION,
            "case": self.scores.case,
            "path": self.scores.path,
            "notice": self.scores.notice,
            "findings": [vars(finding) for finding in self.scores.findings],
            "messages": list(self.scores.messages),
            "backend": self.backend,
            "calibration_set": self.calibration_set,
            "abnormalities": [{**vars(row), "verdict": row.verdict} for row in self.rows],
            "unknown_names": [
                {"name": row.raw_name, "report": row.status, "evidence": row.evidence} for row in self.unknown
            ],
            "settings": self.scores.settings,
        }


def check_report(
    scorer: Scorer,
    embedding: ScanEmbedding,
    findings: Sequence[Finding],
    abnormalities: AbnormalityList,
    vocabulary: Vocabulary,
    *,
    prompts: str = "single",
    kind: str = "final",
    backend: str = "rules",
) -> ReportCheck:
    """Compare the findings of a report with the scores of a scan.

    Scored are the abnormalities of the list, and with the prompt "There is X" those that the report names or doubts and
    the list lacks. Names of the list are matched to the vocabulary as `summarize` matches free names. Thresholds are
    those of the list, else of the weights' calibration for the very prompt, style and kind; otherwise there is none.

    Args:
        embedding: of `Scorer.embed`.
        findings: of the whole report.
        prompts, kind: as for `Scorer.score`.
        backend: what read the report.
    """
    statuses = decide(findings, vocabulary)
    normaliser = Normaliser(vocabulary)
    known = [normaliser.name(row.name) for row in abnormalities]
    extra = [name for name, status in statuses.items() if status is not Status.ABSENT and name not in known]
    scored = AbnormalityList(abnormalities.name, (*abnormalities, *map(Abnormality, extra)))
    scores = scorer.score_embedding(embedding, scored, prompts=prompts, kind=kind)
    order = sorted(range(len(scored)), key=lambda place: -scores.scores[place].score)
    ranks = {place: rank for rank, place in enumerate(order, 1)}
    rows = []
    for place, (row, name) in enumerate(zip(scores.scores, [*known, *extra], strict=True)):
        source = "list" if scored[place].threshold is not None else "calibration"
        status = statuses.get(name) if name else None
        rows.append(
            CheckedAbnormality(
                name=row.name,
                listed=place < len(abnormalities),
                readable=name is not None,
                report=status,
                evidence=_evidence(name, status, findings, vocabulary) if name and status else (),
                score=row.score,
                rank=ranks[place],
                threshold=row.threshold,
                threshold_source=None if row.threshold is None else source,
                probability=row.probability,
            )
        )
    calibration = scorer.calibration
    return ReportCheck(
        scores=scores,
        rows=tuple(rows),
        unknown=tuple(row for row in findings if row.abnormality is None and row.status is not Status.ABSENT),
        backend=backend,
        calibration_set=str(calibration.provenance.get("set", "unnamed")) if calibration else None,
    )


def _evidence(name: str, status: Status, findings: Iterable[Finding], vocabulary: Vocabulary) -> tuple[str, ...]:
    """The sentences behind a status: about the abnormality itself or, where it is implied, about what implies it."""

    def implied(start: str) -> set[str]:
        found, pending = {start}, [start]
        while pending:
            new = set(vocabulary.implied_by(pending.pop())) - found
            found |= new
            pending += new
        return found

    said = [row for row in findings if row.abnormality is not None]
    if status is Status.ABSENT:
        return tuple(dict.fromkeys(row.evidence for row in said if row.abnormality == name))
    about = [row for row in said if row.status is not Status.ABSENT and name in implied(row.abnormality)]
    strongest = [row for row in about if row.status is status] or about
    return tuple(dict.fromkeys(row.evidence for row in strongest))


def check_table(check: ReportCheck) -> str:
    """The result for the terminal: disagreements first."""
    scores = check.scores
    lines = [f"{scores.case}  ({scores.path})", f"  report read by: {check.backend}"]
    lines += [f"  note: {message}" for message in scores.messages]
    lines += [f"  {finding.severity}: {finding.message}" for finding in scores.findings]
    if not any(row.report for row in check.rows):
        english = " The rules read English only." if check.backend == "rules" else ""
        lines.append(f"  note: the report names none of these abnormalities.{english}")
    calibrated = [row for row in check.rows if row.threshold is not None]
    if calibrated:
        fitted = sum(row.threshold_source == "calibration" for row in calibrated)
        lines.append(
            f"  thresholds: {fitted} fitted on {check.calibration_set}, {len(calibrated) - fitted} of the list"
        )
        sections = (
            (Verdict.REPORT_ONLY, "Named by the report, not seen by the model"),
            (Verdict.MODEL_ONLY, "Seen by the model, not named by the report"),
            (Verdict.BOTH, "Named by the report and seen by the model"),
        )
        for verdict, title in sections:
            lines += _section(title, check.of(verdict))
        neither = ", ".join(row.name for row in check.of(Verdict.NEITHER)) or "none"
        lines += ["", f"Neither named nor seen ({len(check.of(Verdict.NEITHER))}): {neither}"]
    open_rows = check.of(Verdict.NOT_CALIBRATED)
    if open_rows:
        named = [row for row in open_rows if row.report in (Status.PRESENT, Status.UNCERTAIN)]
        lines += [
            "",
            f"NOT CALIBRATED: {len(open_rows)} abnormalities have no threshold, so nobody can say whether the",
        ]
        lines += ["model sees them. The rank orders scores that have no common scale; it is no finding."]
        lines += _section("Not calibrated, named by the report", named)
        lines += _section("Not calibrated, not named", [row for row in open_rows if row not in named])
    not_read = [row.name for row in check.of(Verdict.NOT_READ)]
    if not_read:
        lines += ["", f"The report was not searched for: {', '.join(not_read)} (not in the vocabulary)"]
    if check.unknown:
        names = ", ".join(dict.fromkeys(row.raw_name for row in check.unknown))
        lines += ["", f"Named by the report, but not in the vocabulary, so not compared: {shorten(names, 300)}"]
    return "\n".join([*lines, *(["", scores.notice] if scores.notice else [])])


def _section(title: str, rows: Sequence[CheckedAbnormality]) -> list[str]:
    if not rows:
        return ["", f"{title}: none"]
    thresholds = any(row.threshold is not None for row in rows)
    columns = ["abnormality", "report", "rank", "score"]
    columns += ["threshold", "probability"] if thresholds else []
    cells = []
    for row in rows:
        line = [row.name, WORDS[row.report], row.rank, f"{row.score:+.4f}"]
        if thresholds:
            line += [f"{row.threshold:+.4f}", "" if row.probability is None else f"{row.probability:.1%}"]
        more = f" (and {len(row.evidence) - 1} more)" if len(row.evidence) > 1 else ""
        cells.append([*line, shorten(row.evidence[0], EVIDENCE_LENGTH) + more if row.evidence else ""])
    table = text_table([*columns, "evidence"], cells, right=range(2, len(columns)))
    return ["", f"{title} ({len(rows)})", *(f"  {line}" for line in table.splitlines())]
