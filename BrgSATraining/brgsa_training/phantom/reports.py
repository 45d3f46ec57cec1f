"""The report of a phantom: what a radiologist would write, with sentences from `data/wording.json`.

Positive sentences name the abnormality about half of the time and paraphrase it otherwise, some with doubt; others deny
what is absent or talk about something else, as in real reports.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion

WORDING = Path(__file__).parent / "data" / "wording.json"
# Shares of positive sentences of each kind; a second sentence about the same abnormality; a mention in the impression.
NAMED, PARAPHRASED = 0.45, 0.38
SECOND_SENTENCE, IN_IMPRESSION = 0.35, 0.6
DENIED, FILLERS = (3, 6), (2, 4)
SITES = {"upper": "upper lobe", "middle": "middle zone", "lower": "lower lobe"}


@dataclass(frozen=True)
class Report:
    """A report in the two parts that radiology uses.

    Attributes:
        findings, impression: the sentences as written, in order.
        positive: of each sentence that affirms an abnormality, which one.
        summary: "There is X." for every abnormality that is present.
    """

    findings: tuple[str, ...]
    impression: tuple[str, ...]
    positive: dict[str, str]
    summary: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Findings and impression, one after the other."""
        return self.findings + self.impression


@lru_cache(maxsize=1)
def wording() -> dict:
    """The content of `data/wording.json`."""
    return json.loads(WORDING.read_text(encoding="utf-8"))


def write_report(rng: np.random.Generator, severities: Mapping[str, float], lesions: Mapping[str, Lesion]) -> Report:
    """Write the report of a patient: it affirms only abnormalities in `severities` and denies only others."""
    words = wording()
    positive: dict[str, str] = {}
    findings, impression = [], []
    for name, severity in severities.items():
        slots = _slots(lesions[name], severity)
        kinds = [_kind(rng)] + ([_kind(rng)] if rng.random() < SECOND_SENTENCE else [])
        for kind in kinds:
            sentence = _choose(rng, words["abnormalities"][name][kind]).format(**slots)
            if sentence not in findings:
                findings.append(sentence)
                positive[sentence] = name
        if rng.random() < IN_IMPRESSION:
            sentence = _choose(rng, words["abnormalities"][name]["conclusion"]).format(**slots)
            impression.append(sentence)
            positive[sentence] = name
    findings += _denials(rng, severities)
    findings += _several(rng, words["fillers"], FILLERS)
    if not severities:
        impression.append(_choose(rng, words["normal"]))
    elif not impression or rng.random() < 0.3:
        impression.append(_choose(rng, words["advice"]))
    order = rng.permutation(len(findings))
    return Report(
        tuple(findings[i] for i in order),
        tuple(impression),
        positive,
        tuple(f"There is {name}." for name in severities),
    )


def _kind(rng: np.random.Generator) -> str:
    chance = rng.random()
    return "named" if chance < NAMED else "paraphrased" if chance < NAMED + PARAPHRASED else "hedged"


def _denials(rng: np.random.Generator, severities: Mapping[str, float]) -> list[str]:
    """Sentences that deny abnormalities which are absent and do not resemble one that is present."""
    deniable = [
        row["absent"]
        for name, row in wording()["abnormalities"].items()
        if name not in severities and not set(row.get("not_denied_with", ())) & set(severities)
    ]
    return [_choose(rng, sentences) for sentences in _several(rng, deniable, DENIED)]


def _several(rng: np.random.Generator, options: list, count: tuple[int, int]) -> list:
    """Between count[0] and count[1] different options."""
    chosen = rng.choice(len(options), size=int(rng.integers(count[0], count[1] + 1)), replace=False)
    return [options[i] for i in chosen]


def _choose(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _slots(lesion: Lesion, severity: float) -> dict[str, str]:
    degrees = wording()["degrees"]
    degree = degrees[0 if severity < 0.55 else 1 if severity < 0.8 else 2]
    side = lesion.side or "bilateral"
    if side == "bilateral":
        where = f"in both {SITES[lesion.site]}s" if lesion.site else "in both lungs"
    else:
        where = f"in the {side} {SITES[lesion.site]}" if lesion.site else f"in the {side} lung"
    return {
        "side": side,
        "Side": side.capitalize(),
        "where": where,
        "site": lesion.site,
        "size": str(round(lesion.size_mm)),
        "degree": degree,
        "Degree": degree.capitalize(),
    }
