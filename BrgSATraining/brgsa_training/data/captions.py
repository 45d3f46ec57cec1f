"""Captions: the sentences of every study, and a few of them drawn and tokenized for each step of training."""

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brgsa.ct.names import case_name
from brgsa.errors import InputError
from brgsa.prompts import PromptTokenizer
from brgsa_training.summarize.captions import read_captions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """What one report is paired with: any of the reconstructions `cases`, and the sentences to draw captions from."""

    name: str
    cases: tuple[str, ...]
    sentences: tuple[str, ...]


def read_studies(path: str | os.PathLike, split: str, cases: Collection[str]) -> list[Study]:
    """Read the captions of a split and pair them with the cases at hand, in the order of study names.

    Args:
        path: captions JSON, see `summarize.captions`. An image belongs to the case of its file name, a study without
            images to the case of its own name.
        cases: names of the volumes.

    Reports without a volume are left out, with a line in the log.

    Raises:
        InputError: the file cannot be used, has no such split, no report matches a volume, or a report has no sentence.
    """
    splits = read_captions(path)
    captions = splits.get(split)
    if not captions:
        raise InputError(f"{path}: has no studies in a split {split!r} (its splits: {', '.join(splits) or 'none'}).")
    studies, without_volume = [], []
    for name in sorted(captions):
        images, sentences = captions[name]
        found = tuple(dict.fromkeys(case for case in map(case_name, images or [name]) if case in cases))
        if not found:
            without_volume.append(name)
            continue
        if not any(sentence.strip() for sentence in sentences):
            raise InputError(f"{path}: the study {name} has no sentence. Add its report or remove the study.")
        studies.append(Study(name, found, tuple(sentences)))
    if not studies:
        raise InputError(
            f"{path}: none of the {len(captions)} studies of the split {split!r} has one of the {len(cases)} volumes "
            f"(first study: {min(captions)}, first volume: {min(cases)}). Use the captions of these scans."
        )
    if without_volume:
        log.warning("%s have no volume and are left out: %s", *_list("report", without_volume))
    return studies


def warn_of_unused(cases: Collection[str], studies: Iterable[Study]) -> None:
    """Put a line in the log about volumes that no study has."""
    used = {case for study in studies for case in study.cases}
    if without_report := sorted(set(cases) - used):
        log.warning("%s have no report and are left out: %s", *_list("volume", without_report))


def draw_sentences(sentences: Sequence[str], fewest: int, most: int, rng: np.random.Generator) -> list[str]:
    """Draw between `fewest` and `most` sentences (as many as there are) without replacement, in random order."""
    count = min(int(rng.integers(fewest, most + 1)), len(sentences))
    return [sentences[at] for at in rng.permutation(len(sentences))[:count]]


class CaptionTokenizer:
    """Word pieces of sentences that are joined by spaces, as the prompts' tokenizer would give them for the whole.

    A sentence is tokenized once; WordPiece splits at spaces, so pieces of joined sentences are joined pieces.

    Args:
        vocabulary: vocab.txt.
        length: longest caption in tokens, [CLS] and [SEP] included; 97 in the released model.
    """

    def __init__(self, vocabulary: str | os.PathLike, length: int):
        self.vocabulary = Path(vocabulary)
        self.length = length
        self._known: dict[str, tuple[int, ...]] = {}
        self._tokenizer = PromptTokenizer(self.vocabulary, max_length=1_000_000)
        (self._first, self._last), self.size = self._tokenizer.encode([""])[0][0].tolist(), self._tokenizer.size
        self.pad = self._tokenizer.pad_id

    def encode(self, sentences: Sequence[str]) -> list[int]:
        """Token ids of one caption, not padded; empty when not a single word is left after cleaning."""
        pieces: list[int] = []
        for sentence in sentences:
            if sentence not in self._known:
                self._known[sentence] = tuple(self._tokenizer.encode([sentence])[0][0, 1:-1].tolist())
            pieces += self._known[sentence]
        return [self._first, *pieces[: self.length - 2], self._last] if pieces else []

    def pad_rows(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Put captions below each other: ids and attention mask, both (B, T) int64, T the longest of these."""
        width = max(map(len, rows))
        ids = np.full((len(rows), width), self.pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        return ids, mask


def studies_of(sentences: Mapping[str, Sequence[str]]) -> list[Study]:
    """Studies of one case each, from case -> sentences, in the order of names."""
    return [Study(name, (name,), tuple(sentences[name])) for name in sorted(sentences)]


def _list(noun: str, names: Sequence[str]) -> tuple[str, str]:
    return f"{len(names)} {noun}(s)", ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
