"""Thresholds and probabilities that travel with a weights folder, in `calibration.json`.

The scores of the model are cosines; they mean something across scans of one abnormality, not across abnormalities.
A calibration gives, for one abnormality as it was scored (prompt texts, prompt style, score kind), the threshold above
which a scan counts as positive and a monotone map from the score to a probability. It is fitted by
`brgsa-training calibrate` on a named set and is valid for scans like those of that set.

    {"version": 1,
     "abnormalities": {
        "Cardiomegaly": {"prompt": "There is Cardiomegaly", "style": "single", "score": "final", "threshold": 0.12,
                         "platt": {"a": 9.1, "b": -2.3}, "n": 1500, "positives": 160}},
     "provenance": {"fits": [{"set": "...", "date": "...", "abnormalities": ["Cardiomegaly"], ...}], ...}}

`prompt` is the text, or the list of texts, that was scored; an entry of style "pair" has the texts whose score was
subtracted in `negative_prompt`, and applies to nothing without them. Instead of `platt` an entry may hold
`"isotonic": {"x": [...], "y": [...]}`, or neither (threshold only).
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brgsa.errors import SetupError, first_line
from brgsa.files import read_json

FILE_NAME = "calibration.json"
VERSION = 1
PromptSets = tuple[Sequence[str], Sequence[str]]  # positive and negative prompts of one abnormality
STYLES = ("single", "pair", "ensemble")
SCORE_KINDS = ("final", "direct", "bank")


@dataclass(frozen=True)
class CalibrationEntry:
    """The calibration of one abnormality.

    Attributes:
        prompts: texts that were scored.
        negative_prompts: texts whose score was subtracted; none but for style "pair".
        style: "single", "pair" or "ensemble".
        score: "final", "direct" or "bank".
        threshold: a scan is positive where score > threshold (strictly, as in the released evaluation).
        platt: (a, b) of probability = 1 / (1 + exp(-(a * score + b))), or None.
        isotonic: (x, y), the knots of a piecewise linear rising map, or None.
        n: scans that the entry was fitted on, of which `positives` had the abnormality.
    """

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    style: str
    score: str
    threshold: float
    platt: tuple[float, float] | None
    isotonic: tuple[tuple[float, ...], tuple[float, ...]] | None
    n: int
    positives: int

    def probability(self, value: Any) -> Any:
        """Return the probability in [0, 1] for a score (float or array of any shape), or None without a map."""
        if self.platt is not None:
            a, b = self.platt
            # tanh does not overflow, unlike exp.
            result = 0.5 * (1.0 + np.tanh(0.5 * (a * np.asarray(value, dtype=np.float64) + b)))
        elif self.isotonic is not None:
            result = np.interp(np.asarray(value, dtype=np.float64), *self.isotonic)
        else:
            return None
        return float(result) if np.ndim(value) == 0 else result


@dataclass(frozen=True)
class Calibration:
    """All entries of one `calibration.json`, by abnormality name."""

    entries: Mapping[str, CalibrationEntry]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Calibration | None":
        """Read `folder/calibration.json`; None where the weights folder has none.

        Raises:
            SetupError: the file is broken or of an unknown version.
        """
        path = Path(folder) / FILE_NAME
        if not path.exists():
            return None
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise _broken(path, f"it cannot be read ({first_line(error)})") from error
        if not isinstance(content, dict) or content.get("version") != VERSION:
            version = content.get("version") if isinstance(content, dict) else None
            raise SetupError(
                f"{path}: version {repr(version)[:60]} is unknown, this program reads version {VERSION}; update it"
            )
        rows, provenance = content.get("abnormalities"), content.get("provenance", {})
        if not isinstance(rows, dict) or not isinstance(provenance, dict):
            raise _broken(path, "`abnormalities` and `provenance` must be objects")
        return cls({name: _entry(path, name, row) for name, row in rows.items()}, provenance)

    @property
    def digest(self) -> str:
        """A short text that differs when thresholds or probabilities would."""
        return hashlib.sha256(json.dumps(self.to_json()["abnormalities"], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def fitted_on(self) -> str:
        """Names of the sets that it was fitted on."""
        fits = self.provenance.get("fits")
        fits = [fit for fit in fits if isinstance(fit, dict)] if isinstance(fits, list) else []
        return ", ".join(str(fit.get("set")) for fit in fits) or "a set that is not named"

    def to_json(self) -> dict[str, Any]:
        """Return the content of `calibration.json`."""
        rows = {}
        for name, entry in self.entries.items():
            row: dict[str, Any] = {
                "prompt": _as_json(entry.prompts),
                "style": entry.style,
                "score": entry.score,
                "threshold": entry.threshold,
            }
            if entry.negative_prompts:
                row["negative_prompt"] = _as_json(entry.negative_prompts)
            if entry.platt is not None:
                row["platt"] = {"a": entry.platt[0], "b": entry.platt[1]}
            if entry.isotonic is not None:
                row["isotonic"] = {"x": list(entry.isotonic[0]), "y": list(entry.isotonic[1])}
            rows[name] = row | {"n": entry.n, "positives": entry.positives}
        return {"version": VERSION, "abnormalities": rows, "provenance": dict(self.provenance)}

    def entry(self, name: str, prompts: PromptSets, style: str, score: str) -> CalibrationEntry | None:
        """Return the entry of an abnormality if it was fitted for exactly these prompts, style and score kind.

        `prompts` are the positive and the negative ones, as `brgsa.prompts.prompt_sets` gives them for the style.
        """
        entry = self.entries.get(name)
        if entry is None or entry.style != style or entry.score != score:
            return None
        return entry if (entry.prompts, entry.negative_prompts) == (tuple(prompts[0]), tuple(prompts[1])) else None

    def apply(
        self, name: str, prompts: PromptSets, style: str, score: str, value: float
    ) -> tuple[float | None, float | None]:
        """Return (probability, threshold) for one score; (None, None) where no entry was fitted for it."""
        entry = self.entry(name, prompts, style, score)
        return (None, None) if entry is None else (entry.probability(value), entry.threshold)


def _entry(path: Path, name: str, row: Any) -> CalibrationEntry:
    try:
        platt, isotonic = row.get("platt"), row.get("isotonic")
        entry = CalibrationEntry(
            prompts=_texts(row["prompt"]),
            negative_prompts=_texts(row.get("negative_prompt", ())),
            style=row["style"],
            score=row["score"],
            threshold=_number(row["threshold"]),
            platt=None if platt is None else (_number(platt["a"]), _number(platt["b"])),
            isotonic=None if isotonic is None else (_numbers(isotonic["x"]), _numbers(isotonic["y"])),
            n=int(_number(row["n"])),
            positives=int(_number(row["positives"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _broken(path, f"entry {name[:60]!r}: {what}") from error
    problem = _problem(entry)
    if problem:
        raise _broken(path, f"entry {name[:60]!r}: {problem}")
    return entry


def _problem(entry: CalibrationEntry) -> str | None:
    if not entry.prompts or not all(isinstance(text, str) for text in (*entry.prompts, *entry.negative_prompts)):
        return "`prompt` and `negative_prompt` must be a text or a list of texts"
    if entry.style not in STYLES:
        return f"style {repr(entry.style)[:60]} is none of {', '.join(STYLES)}"
    if entry.score not in SCORE_KINDS:
        return f"score {repr(entry.score)[:60]} is none of {', '.join(SCORE_KINDS)}"
    if entry.platt is not None and entry.isotonic is not None:
        return "it has both `platt` and `isotonic`"
    if entry.isotonic is not None:
        x, y = (np.asarray(knots) for knots in entry.isotonic)
        if len(x) != len(y) or len(x) == 0 or np.any(np.diff(x) <= 0) or np.any(np.diff(y) < 0):
            return "`isotonic` needs as many x as y, x rising, y not falling"
        if y[0] < 0 or y[-1] > 1:
            return "`isotonic` y must lie in [0, 1]"
    return None


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _as_json(texts: tuple[str, ...]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e9:
        raise ValueError(f"{repr(value)[:60]} is not a number up to 1e9")
    return float(value)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


def _broken(path: Path, what: str) -> SetupError:
    return SetupError(f"{path}: {what}; fit it again with `brgsa-training calibrate` or delete it")
