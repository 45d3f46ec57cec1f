"""The scores of one scan, as tables, reports and `scores.json` have them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from brgsa.ct.checks import Finding, errors_of
from brgsa.errors import FORCED
from brgsa.tables import bar, text_table

SCORES_VERSION = 1


def flags_of(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Codes of the input checks that are more than information; "forced" before them where one of them is an error."""
    codes = dict.fromkeys(finding.code for finding in findings if finding.severity != "info")
    return (*([FORCED] if errors_of(findings) else []), *codes)


@dataclass(frozen=True)
class AbnormalityScore:
    """One row of the result.

    Attributes:
        score: cosine in [-1, 1] (a difference of cosines in [-2, 2] with prompts "pair"); comparable across scans
            within one abnormality, not across abnormalities.
        probability: only where the weights have a calibration for exactly these prompts, else None.
        threshold: of the calibration or of the abnormality list, else None.
        positive: score > threshold, None without a threshold.
    """

    name: str
    score: float
    probability: float | None = None
    threshold: float | None = None
    positive: bool | None = None


@dataclass(frozen=True)
class ScanScores:
    """The scores of one scan and what they were made with.

    Attributes:
        scores: one row per abnormality, in the order of the list.
        findings: what the input checks say of the scan.
        notice: what must be said beside these scores, or None.
        messages: what was decided on the way (which series, which prompt was cut).
        settings: weights, checksum, calibration, list, prompts, kind, fidelity, device, precision.
        seconds: time of each stage.
    """

    case: str
    path: str
    scores: tuple[AbnormalityScore, ...]
    findings: tuple[Finding, ...]
    notice: str | None
    messages: tuple[str, ...]
    settings: dict[str, Any]
    seconds: dict[str, float]

    def __getitem__(self, name: str) -> AbnormalityScore:
        for row in self.scores:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of `flags_of`, and "untrained" or "demonstration"."""
        return (*flags_of(self.findings), *([self.notice.split(":")[0]] if self.notice else []))

    @property
    def forced(self) -> str | None:
        """What must be said beside scores that the input checks refuse, or None."""
        codes = ", ".join(dict.fromkeys(finding.code for finding in errors_of(self.findings)))
        return f"{FORCED}: these scores mean nothing, the scan fails the input checks ({codes})" if codes else None

    def to_dict(self) -> dict[str, Any]:
        """The content of `scores.json`."""
        return {
            "version": SCORES_VERSION,
            "case": self.case,
            "path": self.path,
            "notice": self.notice,
            "scores": [vars(row) for row in self.scores],
            "findings": [vars(finding) for finding in self.findings],
            "flags": list(self.flags),
            "messages": list(self.messages),
            "settings": self.settings,
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "ScanScores":
        """Read what `to_dict` made."""
        return cls(
            case=content["case"],
            path=content["path"],
            scores=tuple(AbnormalityScore(**row) for row in content["scores"]),
            findings=tuple(Finding(**row) for row in content["findings"]),
            notice=content["notice"],
            messages=tuple(content["messages"]),
            settings=content["settings"],
            seconds=content["seconds"],
        )

    def __str__(self) -> str:
        return scores_table(self)


def scores_table(scores: ScanScores) -> str:
    """The scores of one scan, highest first, with what has to be known about them."""
    rows = sorted(scores.scores, key=lambda row: -row.score)
    calibrated = any(row.probability is not None for row in rows)
    thresholds = any(row.threshold is not None for row in rows)
    lowest, highest = rows[-1].score, rows[0].score
    columns = ["abnormality", "score", ""]
    columns += ["probability"] if calibrated else []
    columns += ["threshold", "positive"] if thresholds else []
    cells = []
    for row in rows:
        line = [row.name, f"{row.score:+.4f}", bar(row.score, lowest, highest)]
        if calibrated:
            line.append("" if row.probability is None else f"{row.probability:.1%}")
        if thresholds:
            line += ["", ""] if row.threshold is None else [f"{row.threshold:+.4f}", "yes" if row.positive else "no"]
        cells.append(line)
    head = [f"{scores.case}  ({scores.path})"]
    head += [f"  note: {message}" for message in scores.messages]
    head += [f"  {finding.severity}: {finding.message}" for finding in scores.findings]
    if scores.settings["precision"] != "fp32":
        head.append(f"  note: computed in {scores.settings['precision']}, which changes scores in the third decimal")
    foot = [text for text in (scores.forced, scores.notice) if text]
    return "\n".join([*head, text_table(columns, cells, right=(1, 3, 4)), *foot])


def cases_table(results: Sequence[ScanScores], top: int = 3) -> str:
    """One line per case: its highest scores and its flags."""
    rows = [
        [
            result.case,
            ", ".join(f"{row.name} {row.score:+.3f}" for row in sorted(result.scores, key=lambda r: -r.score)[:top]),
            " ".join(result.flags),
        ]
        for result in results
    ]
    return text_table(["case", f"highest {top} scores", "flags"], rows)
