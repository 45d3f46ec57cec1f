"""Training captions: the sentences of each report and one "There is X" per abnormality that is present.

The file has the layout of the released training data, `{split: {report: {"images": [...], "processed_report":
[sentence, ...]}}}`, cleaned by the released rule (`brgsa.prompts.clean_sentences`), plus a key "_layout" with name and
version; data/captions.schema.json describes it. A file without that key is taken as the released layout, version 1.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from brgsa.errors import InputError, UsageError
from brgsa.files import atomic_open
from brgsa.text import clean_sentences
from brgsa_training.summarize.findings import Summary
from brgsa_training.summarize.labels import UNCERTAIN_AS
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import Vocabulary

LAYOUT_KEY = "_layout"
LAYOUT = {"name": "brgsa-captions", "version": 1}
CONTENTS = ("both", "report", "summary")
DETAILS = ("severity", "size", "location")
PROMPT = "There is {}"


class Caption(NamedTuple):
    """The text of one report for training, and the volumes that it belongs to."""

    images: tuple[str, ...]
    sentences: tuple[str, ...]


class Variant(NamedTuple):
    """Which captions to make; the values other than the defaults are the ablations of the paper.

    `content`: report sentences and summary, or one of them. `drop`: share of a caption's sentences left out at random.
    `noise`: share of all abnormalities whose "There is X" is wrong (left out if present, else put in). Each report is
    drawn from `seed` and its own identifier, so the order of the reports does not matter. `uncertain`: whether an
    uncertain abnormality is stated (\"positive\") or not.
    """

    content: str = "both"
    drop: float = 0.0
    noise: float = 0.0
    seed: int = 0
    uncertain: str = UNCERTAIN_AS[0]
    details: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UsageError for values that make no sense."""
        if self.content not in CONTENTS:
            raise UsageError(f"captions can hold {', '.join(CONTENTS)}, not {self.content!r}.")
        for name, share in (("--drop-sentences", self.drop), ("--label-noise", self.noise)):
            if not 0 <= share < 1:
                raise UsageError(f"{name} must be at least 0 and less than 1, not {share}.")


PLAIN = Variant()


def caption(summary: Summary, names: Sequence[str], vocabulary: Vocabulary, variant: Variant = PLAIN) -> list[str]:
    """Return the cleaned caption sentences of one report; `names` are the abnormalities that may be stated."""
    randomness = random.Random(f"{variant.seed} {summary.id}")  # noqa: S311
    statuses = summary.statuses(vocabulary)
    counted = {Status.PRESENT, Status.UNCERTAIN} if variant.uncertain == "positive" else {Status.PRESENT}
    stated = [name for name in names if (statuses.get(name) in counted) != (randomness.random() < variant.noise)]
    sentences: list[str] = []
    if variant.content != "summary":
        sentences += clean_sentences(summary.text)
    if variant.content != "report":
        sentences += [cleaned for name in stated for cleaned in _statement(_detailed(name, summary, variant.details))]
    keep = max(1, len(sentences) - round(variant.drop * len(sentences)))
    kept = sorted(randomness.sample(range(len(sentences)), min(keep, len(sentences))))
    return [sentences[number] for number in kept]


def _detailed(name: str, summary: Summary, details: Sequence[str]) -> str:
    """The name with what the report's first telling sentence says of it: "mild emphysema in the upper lobes"."""
    if not details:
        return name
    about = [row for row in summary.findings if row.abnormality == name and row.status is Status.PRESENT]
    told = {key: next((value for row in about if (value := getattr(row, key))), "") for key in details}
    place = told.get("location", "")
    adjective = place.endswith(("al", "ar"))
    words = [told.get("severity", ""), place if adjective else "", name]
    words += [f"of {told['size']}" if told.get("size") else "", f"in the {place}" if place and not adjective else ""]
    return " ".join(word for word in words if word).replace("in the both", "in both")


@lru_cache(maxsize=1000)
def _statement(name: str) -> tuple[str, ...]:
    return tuple(clean_sentences(PROMPT.format(name)))


def write_captions(
    path: str | Path,
    summaries: Callable[[], Iterable[Summary]],
    names: Sequence[str],
    vocabulary: Vocabulary,
    variant: Variant = PLAIN,
) -> int:
    """Write the captions file and return the number of captions.

    `summaries` is called once per split, so that no more than one report is in memory. Reports that failed or that have
    no sentence are left out.
    """
    variant.check()
    splits = list(dict.fromkeys(summary.split for summary in summaries()))
    count = 0
    with atomic_open(path) as file:
        file.write("{\n" + f'"{LAYOUT_KEY}": {json.dumps(LAYOUT)}')
        for split in splits:
            file.write(f",\n{json.dumps(split)}: {{")
            separator = "\n"
            for summary in summaries():
                if summary.split != split or summary.problem:
                    continue
                sentences = caption(summary, names, vocabulary, variant)
                if sentences:
                    entry = {"images": list(summary.images), "processed_report": sentences}
                    file.write(f"{separator}{json.dumps(summary.id)}: {json.dumps(entry)}")
                    separator = ",\n"
                    count += 1
            file.write("\n}")
        file.write("\n}\n")
    return count


def read_captions(path: str | Path) -> dict[str, dict[str, Caption]]:
    """Read a captions file: {split: {report: Caption}}.

    Raises:
        InputError: the file cannot be read, is of an unknown layout or version, or an entry is not laid out as it says.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the captions {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the captions {path} are not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"the captions {path} are not a JSON object of splits.")
    layout = content.pop(LAYOUT_KEY, LAYOUT)
    if layout != LAYOUT:
        raise InputError(
            f"the captions {path} have the layout {json.dumps(layout)[:80]}, this program reads {json.dumps(LAYOUT)}."
        )
    return {split: dict(_captions(path, split, reports)) for split, reports in content.items()}


def _captions(path: Path, split: str, reports: Any) -> Iterator[tuple[str, Caption]]:
    if not isinstance(reports, dict):
        raise InputError(f"the captions {path}: the split {split!r} is not an object of reports.")
    for report, entry in reports.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        sentences = entry.get("processed_report") if isinstance(entry, dict) else None
        if not _texts(images) or not _texts(sentences) or not sentences:
            raise InputError(
                f"the captions {path}: {split!r}, {report!r} needs lists of text under 'images' and "
                "'processed_report', the second not empty."
            )
        yield report, Caption(tuple(images), tuple(sentences))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
