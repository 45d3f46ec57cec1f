"""Score many scans into one folder: progress, resume, shards, and failures that do not stop the rest.

    OUT/cases/CASE/scores.json   one per case, the record of what is done; heat maps and reports lie beside it
    OUT/scores.csv               one row per case and abnormality, built from the records
    OUT/failures.csv             case, path, code, reason
    OUT/run.json                 versions, weights, preprocessing, list, command

A shard I/N writes `scores.I-of-N.csv` and so on beside the records; a run without a shard gathers all records.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import brgsa
from brgsa.abnormalities import AbnormalityList
from brgsa.batch.case_files import CaseFiles
from brgsa.batch.loop import BatchResult, Failure, each_case, write_failures
from brgsa.batch.records import (
    has_error,
    read_records,
    record_path,
    remove_records,
    require_same_settings,
    score_rows,
    unchanged,
    with_free_names,
)
from brgsa.ct.cases import Case, absolute
from brgsa.errors import FORCED, InputError, UsageError
from brgsa.files import write_csv, write_json
from brgsa.files.output_folder import output_folder
from brgsa.scoring import Progress, Scorer, settings_digest

SECONDS_BETWEEN_TABLES = 10.0  # the records are written after every case; the tables are built from them
_PART_OF_SCORES = 0.3  # of a case's progress, where heat maps or reports follow
SCORES = "scores"  # kind of output folder
SCORES_COLUMNS = ("case", "path", "abnormality", "score", "probability", "threshold", "positive", "flags", "precision")


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
    there, damaged = read_records(out)
    cases = shard.of(with_free_names(cases, there))
    require_same_settings(out, there, settings, digest, {case.name for case in cases} if overwrite else set())
    earlier = {} if overwrite else unchanged(there, cases)
    others = {name: record for name, record in there.items() if name not in {case.name for case in cases}}
    remove_records(out, [case for case in cases if case.name not in earlier])
    known = {
        name: row
        for name, row in earlier.items()
        if files.are_in(row, out / "cases" / name) and (FORCED in row["flags"] or not has_error(row["findings"]))
    }
    results, started = dict(known), time.time()
    # Rows of an earlier run that cannot be had any more are not left out without a word.
    failures = [
        Failure(path.parent.name, str(path), InputError.exit_code, f"{path}: is damaged; score its scan again.")
        for path in damaged
        if not shard.suffix and path.parent.name not in {case.name for case in cases}
    ]
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

            made = files.write(scorer, scan, result, abnormalities, record_path(out, case).parent, writing)
            kept = {row["path"]: row for row in [*earlier.get(case.name, {}).get("files", []), *made]}
            record |= {"files_request": files.to_dict(), "files": list(kept.values())}
        results[case.name] = record
        write_json(record_path(out, case), record)
        if time.monotonic() - written > SECONDS_BETWEEN_TABLES:
            _write_tables(out, shard, cases, results, failures, others)
            written = time.monotonic()

    def is_done(case: Case) -> bool:
        """Whatever moment a run is cut off at, it has done what has a record."""
        return case.name in results and record_path(out, case).exists()

    try:
        each_case(cases, known, score, failures, is_done)
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
        (row for record in (*records, *kept) for row in score_rows(record)),
    )
    write_failures(out / f"failures{shard.suffix}.csv", failures, {*(case.name for case in cases), *others})
    return records


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that scores depend on."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "transformers", "numpy", "nibabel", "SimpleITK", "isal"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions
