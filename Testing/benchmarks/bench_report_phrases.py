"""Print how the rules read the challenge set, a table by phenomenon and one by abnormality.

    python Testing/benchmarks/bench_report_phrases.py [--blind | --second] [--failures]

The sentences are our own (Testing/fixtures/report-phrases.csv). `--blind` reads the other half, which is kept for a
single scoring at the end of a change; `--second` a set that was written later and scored before anything was mended by
it. "wrong polarity" counts rows whose sentence denies the abnormality but is read as
present; "invented" those that say nothing about it (another organ, time or person) and are read as present.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from brgsa_training.summarize.findings import decide
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.vocabulary import load_vocabulary

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NOT_MENTIONED = "not mentioned"


class Phrase(NamedTuple):
    """One row of the challenge set: what `sentence` says about `label`."""

    id: str
    phenomenon: str
    label: str
    sentence: str
    expected: str


class Score(NamedTuple):
    """Of some rows: all four states right, precision, recall and F1 of present, and what is wrongly present."""

    rows: int
    right: float
    precision: float
    recall: float
    f1: float
    absent: int
    wrong_polarity: int
    not_mentioned: int
    invented: int


def read_phrases(part: str = "") -> list[Phrase]:
    with (FIXTURES / f"report-phrases{part}.csv").open(encoding="utf-8", newline="") as file:
        return [Phrase(**row) for row in csv.DictReader(file)]


def rules_reader() -> Callable[[Phrase], str]:
    """What the rules say about the abnormality of a row."""
    vocabulary = load_vocabulary()
    backend = RulesBackend(vocabulary)

    def read(phrase: Phrase) -> str:
        status = decide(backend.findings(phrase.sentence), vocabulary).get(phrase.label)
        return status.value if status else NOT_MENTIONED

    return read


def score(phrases: Sequence[Phrase], said: Sequence[str]) -> Score:
    pairs = [(phrase.expected, word) for phrase, word in zip(phrases, said, strict=True)]
    hit = pairs.count(("present", "present"))
    claimed = sum(word == "present" for _, word in pairs)
    true = sum(expected == "present" for expected, _ in pairs)
    absent = [word for expected, word in pairs if expected == "absent"]
    silent = [word for expected, word in pairs if expected == NOT_MENTIONED]
    return Score(
        len(pairs),
        sum(expected == word for expected, word in pairs) / len(pairs),
        hit / claimed if claimed else float("nan"),
        hit / true if true else float("nan"),
        2 * hit / (claimed + true) if true else float("nan"),
        len(absent),
        absent.count("present"),
        len(silent),
        silent.count("present"),
    )


def table(title: str, key: str, phrases: Sequence[Phrase], said: Sequence[str]) -> list[Score]:
    groups: dict[str, list[tuple[Phrase, str]]] = {}
    for phrase, word in zip(phrases, said, strict=True):
        groups.setdefault(getattr(phrase, key), []).append((phrase, word))
    print(f"\n| {title} | rows | right of four states | F1 of present | wrong polarity | invented |")
    print("|---|---|---|---|---|---|")
    scores = []
    for name, pairs in groups.items():
        result = score(*zip(*pairs, strict=True))
        scores.append(result)
        f1 = "" if result.f1 != result.f1 else f"{result.f1:.3f}"
        print(
            f"| {name} | {result.rows} | {result.right:.3f} | {f1} | "
            f"{result.wrong_polarity} of {result.absent} | {result.invented} of {result.not_mentioned} |"
        )
    return scores


def main(reader: Callable[[], Callable[[Phrase], str]] = rules_reader) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--blind", dest="part", action="store_const", const="-blind", default="", help="the half scored at the end"
    )
    part.add_argument("--second", dest="part", action="store_const", const="-second", help="the set written later")
    parser.add_argument("--failures", action="store_true", help="print the rows that are read otherwise than expected")
    arguments = parser.parse_args()
    phrases, read = read_phrases(arguments.part), reader()
    said = [read(phrase) for phrase in phrases]
    table("phenomenon", "phenomenon", phrases, said)
    labels = table("abnormality", "label", phrases, said)
    f1 = [result.f1 for result in labels if result.f1 == result.f1]
    total = score(phrases, said)
    sentences = len({phrase.sentence for phrase in phrases})
    print(f"\n{sentences} sentences, {total.rows} rows; right of four states {total.right:.3f}")
    print(
        f"macro-F1 of present over {len(f1)} abnormalities {sum(f1) / len(f1):.3f}, micro-F1 {total.f1:.3f}, ", end=""
    )
    print(f"precision {total.precision:.3f}, recall {total.recall:.3f}")
    print(f"wrong polarity (absent read as present) {total.wrong_polarity / total.absent:.2%}, ", end="")
    print(f"not mentioned read as present {total.invented / total.not_mentioned:.2%}")
    if arguments.failures:
        for phrase, word in zip(phrases, said, strict=True):
            if word != phrase.expected:
                print(f"{phrase.id} {phrase.label}: {phrase.expected}, read as {word}: {phrase.sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
