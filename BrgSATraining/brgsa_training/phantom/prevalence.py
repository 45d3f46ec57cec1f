"""Which abnormalities a patient has: a long-tailed table of shares with some that occur together."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "data" / "prevalence.json"
MILDEST = 0.35


@dataclass(frozen=True)
class Prevalence:
    """Share of patients with an abnormality; `lift` times likelier in patients with `companion` (listed before it)."""

    name: str
    share: float
    group: str
    companion: str | None
    lift: float


@lru_cache(maxsize=1)
def prevalences() -> tuple[Prevalence, ...]:
    """The table in `data/prevalence.json`, in its order."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["abnormalities"]
    return tuple(
        Prevalence(name, row["share"], row["group"], row.get("with"), row.get("lift", 1.0))
        for name, row in rows.items()
    )


def labels() -> tuple[str, ...]:
    """Names of the abnormalities in the order of the table, most frequent first: the columns of every label table."""
    return tuple(row.name for row in prevalences())


def draw_severities(rng: np.random.Generator) -> dict[str, float]:
    """Draw the abnormalities of one patient: name to severity from 0.35 (mild) to 1.

    The overall share of every abnormality is as in the table: what a companion adds is taken from patients without it.
    """
    shares = {row.name: row.share for row in prevalences()}
    chances, severities = rng.random(len(shares)), rng.uniform(MILDEST, 1, len(shares))
    present: dict[str, float] = {}
    for row, chance, severity in zip(prevalences(), chances, severities, strict=True):
        share = row.share
        if row.companion is not None:
            other = shares[row.companion]
            share *= row.lift if row.companion in present else (1 - row.lift * other) / (1 - other)
        if chance < share:
            present[row.name] = float(severity)
    return present
