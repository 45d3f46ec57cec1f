"""What a report names beside what the model sees in the scan, abnormality by abnormality."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.errors import InputError
from brgsa_training.summarize.findings import Finding, decide
from brgsa_training.summarize.labels import UNCERTAIN_AS
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from brgsa.scoring import ScanEmbedding, Scorer

VERSION = 1
NAMED = (Status.PRESENT, Status.UNCERTAIN)
WORDS = {Status.PRESENT: "named", Status.UNCERTAIN: "in doubt", Status.ABSENT: "denied", None: "not named"}


class Verdict(str, Enum):
    """How report and model go together for one abnormality."""

    REPORT_ONLY = "report only"
    MODEL_ONLY = "model only"
    BOTH = "both"
    NEITHER = "neither"
    NOT_CALIBRATED = "not calibrated"
    NOT_READ = "not read"
    NOT_SCORED = "not scored"
    IN_DOUBT = "in doubt"


@dataclass(frozen=True)
class CheckedAbnormality:
    """One abnormality in the report and in the scan.

    Attributes:
        name: as in the list.
        listed: of the list; otherwise the report brought it up.
        readable: the vocabulary knows the abnormality, so that the report could be searched for it.
        report: what the report says, None if it does not say anything.
        named: whether that counts as naming it; None for a doubt that is left out.
        evidence: the sentences that say so, as they are written in the report.
        score: cosine, see `brgsa.scoring`; None where the given scores lack an abnormality that the report names.
        rank: of the score among all rows, 1 the highest; an order only, because cosines of different abnormalities have
            no common scale.
        threshold: None where there is none; `threshold_source` is then None, otherwise "list" or "calibration", or
            "scores" where the list is not at hand.
        probability: of the calibration, or None.
        heatmap: file name of the heat map, None where none was made.
        maximum_lps: its strongest point, LPS mm.
    """

    name: str
    listed: bool
    readable: bool
    report: Status | None
    named: bool | None
    evidence: tuple[str, ...]
    score: float | None
    rank: int | None
    threshold: float | None
    threshold_source: str | None
    probability: float | None
    heatmap: str | None = None
    maximum_lps: tuple[float, float, float] | None = None

    @property
    def verdict(self) -> Verdict:
        """How report and model go together."""
        if not self.readable:
            return Verdict.NOT_READ
        if self.score is None:
            return Verdict.NOT_SCORED
        if self.named is None:
            return Verdict.IN_DOUBT
        if self.threshold is None:
            return Verdict.NOT_CALIBRATED
        seen = self.score > self.threshold
        if self.named:
            return Verdict.BOTH if seen else Verdict.REPORT_ONLY
        return Verdict.MODEL_ONLY if seen else Verdict.NEITHER


@dataclass(frozen=True)
class ReportCheck:
    """The result for one scan and its report.

    Attributes:
        record: what the model gave, with input checks, settings and notice: the content of `scores.json`.
        rows: the list's abnormalities in its order, then those that only the report brought up.
        unknown: findings whose name the vocabulary lacks (language model only): not compared.
        backend: "rules", or the name of the language model.
        calibration_set: name of the set that the thresholds were fitted on, None without a calibration.
        uncertain: what a doubt of the report counts as, of `labels.UNCERTAIN_AS`.
    """

    record: Mapping[str, Any]
    rows: tuple[CheckedAbnormality, ...]
    unknown: tuple[Finding, ...]
    backend: str
    calibration_set: str | None
    uncertain: str = UNCERTAIN_AS[0]

    def of(self, verdict: Verdict) -> list[CheckedAbnormality]:
        """The rows with a verdict, highest score first."""
        return sorted((row for row in self.rows if row.verdict is verdict), key=lambda row: row.rank or 0)

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON output."""
        return {
            "version": VERSION,
            **{key: self.record[key] for key in ("case", "path", "notice", "findings", "flags", "messages")},
            "backend": self.backend,
            "calibration_set": self.calibration_set,
            "uncertain": self.uncertain,
            "abnormalities": [{**vars(row), "verdict": row.verdict} for row in self.rows],
            "unknown_names": [
                {"name": row.raw_name, "report": row.status, "evidence": row.evidence} for row in self.unknown
            ],
            "settings": self.record["settings"],
        }


def check_report(
    scorer: "Scorer",
    embedding: "ScanEmbedding",
    findings: Sequence[Finding],
    abnormalities: AbnormalityList,
    vocabulary: Vocabulary,
    *,
    prompts: str = "single",
    kind: str = "final",
    backend: str = "rules",
    uncertain: str = UNCERTAIN_AS[0],
) -> ReportCheck:
    """Score a scan for the list and for what its report names besides, and compare both.

    Thresholds are those of the list, else of the weights' calibration for the very prompt, style and kind; otherwise
    there is none.

    Args:
        embedding: of `Scorer.embed`.
        findings: of the whole report.
        prompts, kind: as for `Scorer.score`.
        backend: what read the report.
        uncertain: what a doubt counts as.
    """
    scored = with_named(abnormalities, findings, vocabulary)
    record = scorer.score_embedding(embedding, scored, prompts=prompts, kind=kind).to_dict()
    calibration = scorer.calibration
    fitted_on = calibration.fitted_on if calibration else None
    return compare(
        record, findings, vocabulary, abnormalities, backend=backend, calibration_set=fitted_on, uncertain=uncertain
    )


def with_named(abnormalities: AbnormalityList, findings: Iterable[Finding], vocabulary: Vocabulary) -> AbnormalityList:
    """The list, and with the prompt "There is X" what the report names or doubts and the list lacks.

    Names of the list are matched to the vocabulary as `summarize` matches free names.
    """
    normaliser = Normaliser(vocabulary)
    known = {normaliser.name(row.name) for row in abnormalities}
    named = [name for name, status in decide(findings, vocabulary).items() if status in NAMED and name not in known]
    return AbnormalityList(abnormalities.name, (*abnormalities, *map(Abnormality, named)))


def compare(
    record: Mapping[str, Any],
    findings: Sequence[Finding],
    vocabulary: Vocabulary,
    abnormalities: AbnormalityList | None = None,
    *,
    backend: str = "rules",
    calibration_set: str | None = None,
    uncertain: str = UNCERTAIN_AS[0],
) -> ReportCheck:
    """Compare the findings of a report with scores, which need no model any more.

    Args:
        record: the content of `scores.json`.
        abnormalities: the list that was scored; other scores count only where the report names them. None: the list is
            what the record holds.

    Raises:
        InputError: the record has no score for an abnormality of the list.
    """
    scores = {row["name"]: row for row in record["scores"]}
    chosen = abnormalities or AbnormalityList.from_names(scores, str(record["settings"].get("abnormalities", "scores")))
    if missing := [name for name in chosen.names if name not in scores]:
        raise InputError(
            f"the scores have no {missing[0]!r}, which is in the list {chosen.name}. Give the list that was scored "
            "with --abnormalities."
        )
    statuses, normaliser = decide(findings, vocabulary), Normaliser(vocabulary)
    wanted = with_named(chosen, findings, vocabulary)
    order = sorted((name for name in wanted.names if name in scores), key=lambda name: -scores[name]["score"])
    ranks = {name: rank for rank, name in enumerate(order, 1)}
    nothing = dict.fromkeys(("score", "threshold", "probability"))
    doubt = {"negative": False, "positive": True, "ignore": None}[uncertain]
    rows = []
    for place, abnormality in enumerate(wanted):
        name, row = normaliser.name(abnormality.name), scores.get(abnormality.name, nothing)
        status = statuses.get(name) if name else None
        source = "scores" if abnormalities is None else "list" if abnormality.threshold is not None else "calibration"
        rows.append(
            CheckedAbnormality(
                name=abnormality.name,
                listed=place < len(chosen),
                readable=name is not None,
                report=status,
                named=doubt if status is Status.UNCERTAIN else status is Status.PRESENT,
                evidence=_evidence(name, status, findings, vocabulary) if name and status else (),
                score=row["score"],
                rank=ranks.get(abnormality.name),
                threshold=row["threshold"],
                threshold_source=None if row["threshold"] is None else source,
                probability=row["probability"],
            )
        )
    unknown = tuple(row for row in findings if row.abnormality is None and row.status is not Status.ABSENT)
    return ReportCheck(record, tuple(rows), unknown, backend, calibration_set, uncertain)


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
