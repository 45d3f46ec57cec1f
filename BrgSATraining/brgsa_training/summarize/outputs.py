"""The folder that a summarization writes, and whether it is already complete.

findings.jsonl      one line per report: every statement with its evidence (data/findings.schema.json)
labels.csv          one column per abnormality: 1, 0, -1 uncertain, empty not mentioned
captions.json       what pretraining reads (data/captions.schema.json)
names-merged.csv, names-unmapped.csv    what the normaliser did with the names of a language model
contradicted.csv    findings of a language model that are left out, because the report denies them
failures.csv        reports without a usable answer, and why
run.json            what was done, with which versions; and checksums of the files above
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brgsa
from brgsa.errors import InputError
from brgsa.files import atomic_open, write_csv, write_json
from brgsa_training.summarize.captions import Variant, write_captions
from brgsa_training.summarize.findings import Summary, read_summaries, summary_line
from brgsa_training.summarize.labels import write_labels
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.vocabulary import Vocabulary

SUMMARIES = "report summaries"  # kind of output folder
FINDINGS, LABELS, CAPTIONS, RUN = "findings.jsonl", "labels.csv", "captions.json", "run.json"


@dataclass
class ModelRecord:
    """What was done with the answers of a language model, counted while they are read.

    `formats` are the answers per response format; `contradicted` holds (report, abnormality, sentence of the model,
    sentence of the rules) of each finding that was dropped.
    """

    normaliser: Normaliser
    formats: Counter[str] = field(default_factory=Counter)
    contradicted: list[tuple[str, str, str, str]] = field(default_factory=list)


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(reports: Sequence[Path], options: dict[str, Any]) -> str:
    """Return what the outputs depend on, as one checksum: the reports files and the options.

    Raises:
        InputError: a reports file cannot be read.
    """
    checksums = []
    for path in reports:
        try:
            checksums.append(sha256(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}.") from error
    text = json.dumps([brgsa.__version__, checksums, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(out: Path, key: str) -> int | None:
    """Return the number of reports if `out` holds the undamaged outputs of a run with this fingerprint, else None."""
    try:
        run = json.loads((out / RUN).read_text(encoding="utf-8"))
        if run["fingerprint"] != key or run["failed"]:
            return None
        if all(sha256(out / name) == checksum for name, checksum in run["files"].items()):
            return int(run["reports"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def write_outputs(
    out: Path,
    summaries: Iterable[Summary],
    names: Sequence[str],
    vocabulary: Vocabulary,
    variant: Variant,
    about: dict[str, Any],
    record: ModelRecord | None = None,
) -> dict[str, int]:
    """Write all files of `out` and return counts: reports, failed, captions, abnormalities present.

    The summaries are read once and in order; no more than one of them is in memory.
    """
    (out / RUN).unlink(missing_ok=True)  # until it is there again, the folder does not count as complete
    failures: list[tuple[str, str]] = []
    count = 0
    with atomic_open(out / FINDINGS) as file:
        for summary in summaries:
            count += 1
            if summary.problem:
                failures.append((summary.id, summary.problem))
            file.write(summary_line(summary))
    write_labels(out / LABELS, read_summaries(out / FINDINGS), names, vocabulary)
    captions = write_captions(out / CAPTIONS, lambda: read_summaries(out / FINDINGS), names, vocabulary, variant)
    files = [FINDINGS, LABELS, CAPTIONS]
    write_csv(out / "failures.csv", ("report", "reason"), failures)
    counts = {"reports": count, "failed": len(failures), "captions": captions}
    if record:
        normaliser = record.normaliser
        merged = sorted(
            ((raw, name, n) for (raw, name), n in normaliser.merged.items()), key=lambda row: (-row[2], row)
        )
        unmapped = sorted(normaliser.unmapped.items(), key=lambda row: (-row[1], row))
        write_csv(out / "names-merged.csv", ("raw_name", "abnormality", "count"), merged)
        write_csv(out / "names-unmapped.csv", ("raw_name", "count"), unmapped)
        columns = ("report", "abnormality", "sentence_of_model", "sentence_of_rules")
        write_csv(out / "contradicted.csv", columns, record.contradicted)
        files += ["names-merged.csv", "names-unmapped.csv", "contradicted.csv"]
        counts["contradicted"] = len(record.contradicted)
        about = {**about, "response_formats": dict(record.formats)}
    checksums = {name: sha256(out / name) for name in files}
    write_json(out / RUN, {"brgsa": brgsa.__version__, **about, **counts, "files": checksums})
    return counts
