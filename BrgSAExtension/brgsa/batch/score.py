"""Score many scans into one folder: progress, resume, shards, and failures that do not stop the rest.

    OUT/cases/CASE/scores.json   one per case, the record of what is done; heat maps and reports lie beside it
    OUT/scores.csv               one row per case and abnormality, built from the records
    OUT/failures.csv             case, path, code, reason
    OUT/run.json                 versions, weights, preprocessing, list, command

A shard I/N writes `scores.I-of-N.csv` and so on beside the records; a run without a shard gathers all records.
"""

import json
import logging
import math
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import brgsa
from brgsa.abnormalities import AbnormalityList
from brgsa.batch.case_files import CaseFiles
from brgsa.ct.cases import Case, absolute, with_hash
from brgsa.errors import (
    FORCED,
    BrgSAError,
    CasesFailedError,
    OutOfMemoryError,
    RefusedScanError,
    UsageError,
    first_line,
    is_out_of_memory,
    resumable,
)
from brgsa.files import atomic_path, csv_dicts, write_csv, write_json
from brgsa.files.output_folder import output_folder, remove_files
from brgsa.scores import flags_of
from brgsa.scoring import Progress, Scorer, settings_digest, silent

log = logging.getLogger(__name__)

SECONDS_BETWEEN_TABLES = 10.0  # the records are written after every case; the tables are built from them
_PART_OF_SCORES = 0.3  # of a case's progress, where heat maps or reports follow
SCORES, EMBEDDINGS = "scores", "embeddings"  # kinds of output folders
SCORES_COLUMNS = ("case", "path", "abnormality", "score", "probability", "threshold", "positive", "flags", "precision")
FAILURES_COLUMNS = ("case", "path", "code", "reason")


@dataclass(frozen=True)
class Shard:
    """Part `index` (1..count) of a list of cases: every count-th one, so that parts take about equally long."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "I/N".

        Raises:
            UsageError: not two whole numbers with 1 <= I <= N.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise UsageError(f"--shard {text!r} is not I/N with 1 <= I <= N, for example 1/4.")
        return cls(int(index), int(count))

    def of(self, cases: Sequence[Case]) -> list[Case]:
        return list(cases[self.index - 1 :: self.count])

    @property
    def suffix(self) -> str:
        return "" if self.count == 1 else f".{self.index}-of-{self.count}"


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored; `code` is the exit code of its error, or "refused: " and what the checks say."""

    case: str
    path: str
    code: int | str
    reason: str

    @property
    def refused(self) -> bool:
        """Whether the scan was read, and its input checks say "error"."""
        return isinstance(self.code, str)


@dataclass(frozen=True)
class BatchResult:
    """What a run has in its folder now; `done` counts the cases scored by this run, not the resumed ones."""

    scores: list[dict[str, Any]]
    failures: list[Failure]
    done: int
    resumed: int

    @property
    def refused(self) -> int:
        """How many of the failures are scans that the input checks refuse."""
        return sum(failure.refused for failure in self.failures)

    def counts(self) -> str:
        """What became of the cases, without those that were done."""
        return f"{self.refused} refused, {len(self.failures) - self.refused} failed"

    def raise_failures(self) -> None:
        """Raise if a case failed.

        Raises:
            CasesFailedError: some cases failed. A single case that failed raises its own kind of error, and so do cases
                all of which were refused.
        """
        if not self.failures:
            return
        first, count = self.failures[0], len(self.failures)
        succeeded = self.done + self.resumed
        message = first.reason
        if succeeded or count > 1:
            what = f"were not done ({self.counts()})" if self.refused else "failed"
            message = (
                f"{count} of {succeeded + count} cases {what}, see failures.csv. The first: {first.case}: {message}"
            )
        error = BrgSAError(message)
        if not succeeded and self.refused == count:
            error.exit_code = RefusedScanError.exit_code
        elif not succeeded and count == 1:
            error.exit_code = first.code
        else:
            error = CasesFailedError(message)
        raise error


def score_cases(
    scorer: Scorer,
    cases: Sequence[Case],
    abnormalities: AbnormalityList,
    out: str | Path,
    *,
    prompts: str = "single",
    kind: str = "final",
    shard: Shard = Shard(),
    overwrite: bool = False,
    force: bool = False,
    files: CaseFiles | None = None,
    command: Sequence[str] = (),
) -> BatchResult:
    """Score every case that has no record in `out` yet, changed since, or lacks files that are asked for.

    Args:
        files: heat maps and reports to write beside each record.
        overwrite: score all cases again, whatever the folder holds.
        force: score cases even where the input checks say "error"; they are marked. Otherwise they fail as refused.
        command: the command line, for run.json.

    Raises:
        UsageError: the folder holds something else or scores of other settings that would stay, or is in use.
        BrgSAError: the folder cannot be written.
        KeyboardInterrupt: after all files were brought up to date.
    """
    with output_folder(out, SCORES, shard.suffix):
        return _score_cases(
            scorer, cases, abnormalities, Path(out), prompts, kind, shard, overwrite, force, files, command
        )


def _score_cases(
    scorer: Scorer,
    cases: Sequence[Case],
    abnormalities: AbnormalityList,
    out: Path,
    prompts: str,
    kind: str,
    shard: Shard,
    overwrite: bool,
    force: bool,
    files: CaseFiles | None,
    command: Sequence[str],
) -> BatchResult:
    files = files or CaseFiles()
    settings = scorer.settings(abnormalities, prompts, kind)
    digest = settings_digest(settings, abnormalities)
    there = _read_records(out)
    cases = shard.of(_with_free_names(cases, there))
    _require_same_settings(out, there, settings, digest, {case.name for case in cases} if overwrite else set())
    earlier = {} if overwrite else _unchanged(there, cases)
    others = {name: record for name, record in there.items() if name not in {case.name for case in cases}}
    _remove_records(out, [case for case in cases if case.name not in earlier])
    known = {
        name: row
        for name, row in earlier.items()
        if files.are_in(row, out / "cases" / name) and (FORCED in row["flags"] or not _has_error(row["findings"]))
    }
    results, failures, started = dict(known), [], time.time()
    written = time.monotonic()

    def score(case: Case, on_progress: Progress) -> None:
        nonlocal written
        part = _PART_OF_SCORES if files else 1.0
        scanned = {"path": str(absolute(case.path)), "series": case.series, "fingerprint": case.fingerprint()}

        def scoring(fraction: float, stage: str) -> None:
            on_progress(part * fraction, stage)

        options = {"series": case.series, "force": force, "on_progress": scoring}
        scan = scorer.prepare(case.path, **options) if files else None
        embedding = scorer.embed(scan or case.path, case=case.name, **options)
        result = scorer.score_embedding(embedding, abnormalities, prompts=prompts, kind=kind)
        record = {
            "settings_digest": digest,
            "scan": scanned,
            **result.to_dict(),
        }
        if files:

            def writing(fraction: float, stage: str) -> None:
                on_progress(part + (1 - part) * fraction, stage)

            made = files.write(scorer, scan, result, abnormalities, _record_path(out, case).parent, writing)
            kept = {row["path"]: row for row in [*earlier.get(case.name, {}).get("files", []), *made]}
            record |= {"files_request": files.to_dict(), "files": list(kept.values())}
        results[case.name] = record
        write_json(_record_path(out, case), record)
        if time.monotonic() - written > SECONDS_BETWEEN_TABLES:
            _write_tables(out, shard, cases, results, failures, others)
            written = time.monotonic()

    def is_done(case: Case) -> bool:
        """Whatever moment a run is cut off at, it has done what has a record."""
        return case.name in results and _record_path(out, case).exists()

    try:
        _each_case(cases, known, score, failures, is_done)
    finally:
        results = {case.name: results[case.name] for case in cases if is_done(case)}
        records = _write_tables(out, shard, cases, results, failures, others)
        done = len(results) - len(known)
        write_json(
            out / f"run{shard.suffix}.json",
            {
                "brgsa": brgsa.__version__,
                "versions": package_versions(),
                "command": list(command),
                "settings": settings,
                "settings_digest": digest,
                "preprocessing": scorer.weights.plan.to_dict(),
                "abnormalities": [row.to_dict() for row in abnormalities],
                "notice": scorer.weights.notice,
                "cases": len(cases),
                "scored": done,
                "resumed": len(known),
                "refused": sum(failure.refused for failure in failures),
                "failed": sum(not failure.refused for failure in failures),
                "seconds": round(time.time() - started, 1),
            },
        )
    return BatchResult(records, failures, done, len(known))


def embed_cases(
    scorer: Scorer, cases: Sequence[Case], out: str | Path, on_progress: Progress = silent, *, force: bool = False
) -> BatchResult:
    """Write `embeddings/CASE.npz` (image and image_from_bank, float32) for every case, and manifest.csv.

    A case whose file is there, made with these weights from the scan as it is now, is not done again.

    Args:
        on_progress: called with the fraction of all cases that is done.
        force: embed cases even where the input checks say "error"; they are marked. Otherwise they fail as refused.

    Raises:
        UsageError: the folder holds something else, or another run works in it.
        BrgSAError: the folder cannot be written.
    """
    with output_folder(out, EMBEDDINGS):
        return _embed_cases(scorer, cases, Path(out), on_progress, force)


def _embed_cases(scorer: Scorer, cases: Sequence[Case], out: Path, on_progress: Progress, force: bool) -> BatchResult:
    made_with = {
        case.name: json.dumps([scorer.weights.checksum, scorer.fidelity, scorer.precision, case.series])
        for case in cases
    }
    found = {case.name: _flags_of_embedded(out, case, made_with[case.name]) for case in cases}
    known = {name: flags for name, flags in found.items() if flags is not None}
    done, failures = dict(known), []

    def embed(case: Case, on_case_progress: Progress) -> None:
        def both(fraction: float, stage: str) -> None:
            on_case_progress(fraction, stage)
            finished = len(done) + len(failures)
            on_progress((finished + fraction) / len(cases), f"scan {finished + 1} of {len(cases)}: {stage}")

        fingerprint = case.fingerprint()
        embedding = scorer.embed(case.path, case=case.name, series=case.series, force=force, on_progress=both)
        flags = " ".join(flags_of(embedding.findings))
        with atomic_path(embedding_path(out, case)) as temporary:
            np.savez(
                temporary,
                image=embedding.image,
                image_from_bank=embedding.image_from_bank,
                made_with=np.array(made_with[case.name]),
                fingerprint=np.array(fingerprint),
                path=np.array(str(case.path.absolute())),
                flags=np.array(flags),
            )
        done[case.name] = flags

    try:
        _each_case(cases, known, embed, failures, lambda case: case.name in done)
    finally:
        rows = [
            (
                case.name,
                str(case.path),
                embedding_path(out, case).relative_to(out).as_posix(),
                scorer.precision,
                done[case.name],
            )
            for case in cases
            if case.name in done
        ]
        write_csv(out / "manifest.csv", ("case", "path", "embedding", "precision", "flags"), rows)
        _write_failures(out, Shard(), failures, {case.name for case in cases})
    return BatchResult([], failures, len(done) - len(known), len(known))


def _each_case(
    cases: Sequence[Case],
    known: Collection[str],
    work: Callable[[Case, Progress], None],
    failures: list[Failure],
    is_done: Callable[[Case], bool],
) -> None:
    """Do `work` for every case that is not known, with a progress bar; a case that fails is added to `failures`."""
    with (
        resumable(lambda: (sum(map(is_done, cases)), len(cases))),
        tqdm(total=len(cases), initial=len(known), unit="scan", disable=None, dynamic_ncols=True) as bar,
    ):
        for case in cases:
            if case.name in known:
                continue
            progress = _CaseProgress(bar)
            try:
                work(case, progress)
            except BrgSAError as error:
                if isinstance(error, UsageError) or type(error) is BrgSAError:
                    raise  # the disk is full or an option is wrong: every other case would fail in the same way
                code = error.code if isinstance(error, RefusedScanError) else error.exit_code
                failures.append(_failure(case, code, str(error)))
            except ImportError:
                raise  # every other case would fail in the same way
            except Exception as error:
                if is_out_of_memory(error):
                    reason = f"{case.path}: does not fit into memory; use a machine with more."
                    failures.append(_failure(case, OutOfMemoryError.exit_code, reason))
                else:
                    log.debug("%s failed", case.name, exc_info=True)
                    reason = f"{case.path}: unexpected {type(error).__name__}: {first_line(error)}"
                    failures.append(_failure(case, BrgSAError.exit_code, reason))
            progress.finish()


class _CaseProgress:
    """Moves the bar by fractions of a scan."""

    def __init__(self, bar: tqdm):
        self.bar, self.start, self.done = bar, bar.n, 0.0

    def __call__(self, fraction: float, stage: str) -> None:
        self.bar.set_postfix_str(stage, refresh=False)
        self.bar.update(fraction - self.done)
        self.done = fraction

    def finish(self) -> None:
        self.bar.update(1.0 - self.done)
        self.bar.n = self.start + 1  # without the rounding of the parts
        self.bar.refresh()


def _record_path(out: Path, case: Case) -> Path:
    return out / "cases" / case.name / "scores.json"


def embedding_path(out: Path, case: Case) -> Path:
    """Where `embed_cases` writes the embedding of a case."""
    return out / "embeddings" / f"{case.name}.npz"


def _flags_of_embedded(out: Path, case: Case, made_with: str) -> str | None:
    """The flags of an embedding that an earlier run made in this way of this scan; None where there is none."""
    try:
        with np.load(embedding_path(out, case), allow_pickle=False) as stored:
            same = (
                str(stored["made_with"]) == made_with
                and str(stored["path"]) == str(case.path.absolute())
                and all(np.isfinite(stored[name]).all() for name in ("image", "image_from_bank"))
                and not case.has_changed_since(str(stored["fingerprint"]))
            )
            return str(stored["flags"]) if same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _read_records(out: Path) -> dict[str, dict[str, Any]]:
    """The records of earlier runs, by case name; a damaged one counts as not done."""
    records = {}
    for path in sorted(out.glob("cases/*/scores.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            scan = record["scan"]
            record["settings_digest"] + "", Path(scan["path"]), scan["series"], scan["fingerprint"]
            _rows(record), _has_error(record["findings"]), FORCED in record["flags"], {**record["settings"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        records[path.parent.name] = record
    return records


def _with_free_names(cases: Sequence[Case], there: Mapping[str, dict]) -> list[Case]:
    """Cases whose name another scan has in the folder get a short hash of their path."""
    return [case if _is_of(there.get(case.name), case) else with_hash(case) for case in cases]


def _is_of(record: dict | None, case: Case) -> bool:
    """Whether a record is one of this case, if there is a record."""
    if record is None:
        return True
    return (Path(record["scan"]["path"]), record["scan"]["series"]) == (absolute(case.path), case.series)


def _require_same_settings(
    out: Path, there: Mapping[str, dict], settings: dict[str, Any], digest: str, replaced: Collection[str]
) -> None:
    """Refuse to mix scores of different settings in one table.

    Args:
        replaced: names of cases that are scored again, whatever they were scored with.

    Raises:
        UsageError: with what differs.
    """
    other = [name for name, record in there.items() if record["settings_digest"] != digest and name not in replaced]
    if not other:
        return
    made = there[other[0]]["settings"]
    ignored = ("device",)  # no part of the digest
    differing = [key for key in settings if key not in ignored and made.get(key) != settings[key]]
    what = ", ".join(f"{key} {made.get(key)}, now {settings[key]}" for key in differing)
    what = what or f"other prompts or thresholds in the list {settings['abnormalities']}"
    more = " --overwrite replaces the scores of the scans that are given." if not replaced else ""
    raise UsageError(
        f"{out} holds {len(other)} cases scored with other settings ({what}), for example {other[0]}. "
        f"Choose another --out folder.{more}"
    )


def _unchanged(there: Mapping[str, dict], cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The records of those cases whose scan did not change since."""
    found = {case.name: there[case.name] for case in cases if case.name in there}
    return {
        case.name: found[case.name]
        for case in cases
        if case.name in found and not case.has_changed_since(found[case.name]["scan"]["fingerprint"])
    }


def _has_error(findings: Sequence[dict[str, str]]) -> bool:
    return any(finding["severity"] == "error" for finding in findings)


def _remove_records(out: Path, cases: Sequence[Case]) -> None:
    """Remove the records of these cases and the files they name: a run that is cut off leaves nothing out of date."""
    for case in cases:
        path = _record_path(out, case)
        try:
            files = [Path(row["path"]).name for row in json.loads(path.read_bytes())["files"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            files = []
        remove_files(path.parent, [*files, path.name])


def _failure(case: Case, code: int | str, reason: str) -> Failure:
    tqdm.write(f"{case.name}: {reason}", file=sys.stderr)
    return Failure(case.name, str(case.path), code, reason)


def _write_tables(
    out: Path,
    shard: Shard,
    cases: Sequence[Case],
    results: Mapping[str, dict],
    failures: Sequence[Failure],
    others: Mapping[str, dict],
) -> list[dict]:
    """Write scores.csv and failures.csv; return the records in the order of the cases.

    Args:
        others: records of cases that earlier runs left in the folder. Their rows stay, but for a shard's table.
    """
    records = [results[case.name] for case in cases if case.name in results]
    kept = () if shard.suffix else others.values()
    write_csv(
        out / f"scores{shard.suffix}.csv",
        SCORES_COLUMNS,
        (row for record in (*records, *kept) for row in _rows(record)),
    )
    _write_failures(out, shard, failures, {*(case.name for case in cases), *others})
    return records


def _rows(record: dict[str, Any]) -> list[tuple]:
    """The rows of scores.csv of one case.

    Raises:
        KeyError, TypeError, ValueError: it is no record, or has a number that is not finite.
    """
    return [
        (
            record["case"],
            record["path"],
            row["name"],
            _decimal(row["score"]),
            "" if row["probability"] is None else _decimal(row["probability"]),
            "" if row["threshold"] is None else _decimal(row["threshold"]),
            "" if row["positive"] is None else int(row["positive"]),
            " ".join(record["flags"]),
            record["settings"]["precision"],
        )
        for row in record["scores"]
    ]


def _decimal(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return f"{number:.6f}"


def _write_failures(out: Path, shard: Shard, failures: Sequence[Failure], settled: Collection[str]) -> None:
    """Write failures.csv; rows of earlier runs stay, but for cases that are `settled` by this one or by a record."""
    path = out / f"failures{shard.suffix}.csv"
    rows = [(failure.case, failure.path, failure.code, failure.reason) for failure in failures]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            earlier = [tuple(row[column] for column in FAILURES_COLUMNS) for row in csv_dicts(file)]
    except (OSError, ValueError, KeyError):
        earlier = []
    write_csv(path, FAILURES_COLUMNS, [*rows, *(row for row in earlier if row[0] not in settled)])


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that scores depend on."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "transformers", "numpy", "nibabel", "SimpleITK", "isal"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions
