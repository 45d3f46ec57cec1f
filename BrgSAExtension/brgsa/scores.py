"""The scores of one scan, as tables, reports and `scores.json` have them."""

from dataclasses import dataclass
from typing import Any

from brgsa.ct.checks import Finding

SCORES_VERSION = 1


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
        """Codes of the input checks that are no mere information, and "untrained" or "demonstration"."""
        codes = [finding.code for finding in self.findings if finding.severity != "info"]
        if self.notice:
            codes.append(self.notice.split(":")[0])
        return tuple(dict.fromkeys(codes))

    def to_dict(self) -> dict[str, Any]:
        """The content of `scores.json`."""
        return {
            "version": SCORES_VERSION,
            "case": self.case,
            "path": self.path,
            "notice": self.notice,
            "scores": [vars(row) for row in self.scores],
            "findings": [vars(finding) for finding in self.findings],
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
        from brgsa.tables import scores_table

        return scores_table(self)
