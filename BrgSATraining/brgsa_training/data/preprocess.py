"""Filling a cache: scans are read, resampled and written by several processes; what is done is not done again."""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from brgsa.errors import BrgSAError, InputError, OutOfMemoryError, first_line, is_out_of_memory, resumable
from brgsa.files import write_csv
from brgsa.files.output_folder import output_folder
from brgsa.preprocess import PreprocessingPlan, to_grid
from brgsa.processes import process_pool
from brgsa_training.data.cache import (
    CACHE,
    FAILURES,
    CachedCase,
    claim,
    growing_manifest,
    read_manifest,
    volume_path,
    write_volume,
)
from brgsa_training.data.scan import Scan

log = logging.getLogger(__name__)

Job = tuple[Scan, Path, PreprocessingPlan, str]  # what `preprocess_scan` takes


@dataclass(frozen=True)
class Failure:
    """A scan that is not in the cache, with the exit code of its error and the reason in one line."""

    case: str
    path: str
    code: int
    reason: str


@dataclass(frozen=True)
class PreprocessResult:
    """How many cases this run did, how many it found done, and what failed."""

    done: int
    known: int
    failures: list[Failure]


Spread = Callable[[Iterator[Job]], Iterator["CachedCase | Failure"]]


def preprocess_scan(scan: Scan, folder: Path, plan: PreprocessingPlan, fidelity: str) -> CachedCase | Failure:
    """Read one scan, put it on the model's grid and write its volume. Never raises for a bad scan.

    Raises:
        BrgSAError: the folder cannot be written; every other case would fail, too.
    """
    try:
        volume, note = scan.read(fidelity)
        hu, _ = to_grid(volume, plan, fidelity)
    except BrgSAError as error:
        return Failure(scan.case, str(scan.path), error.exit_code, str(error))
    except Exception as error:  # a reader's own error: one strange file must not stop the night
        if is_out_of_memory(error):
            return Failure(scan.case, str(scan.path), OutOfMemoryError.exit_code, "out of memory. Use fewer workers.")
        reason = f"{type(error).__name__}: {first_line(error)}"
        return Failure(scan.case, str(scan.path), InputError.exit_code, reason)
    count, sha256 = write_volume(folder, scan.case, hu)
    return CachedCase(scan.case, scan.study, scan.patient, count, sha256, note)


def preprocess(
    scans: Sequence[Scan],
    folder: str | os.PathLike,
    plan: PreprocessingPlan,
    fidelity: str = "exact",
    workers: int = 1,
    spread: Spread | None = None,
) -> PreprocessResult:
    """Put scans into a cache; those that are in it whole are passed over, failed ones are tried again.

    Args:
        scans: cases with different names.
        folder: the cache; made if need be.
        plan: the model's grid.
        fidelity: "exact" or "reference", see `brgsa.preprocess`.
        workers: processes; with 1 the work is done in this one.
        spread: from jobs to results in any order, instead of processes of this machine.

    Raises:
        UsageError: the folder holds something else, a cache made with another plan, or another run works in it.
        BrgSAError: the folder cannot be written or the disk is full; what is done stays.
    """
    folder = Path(folder)
    with output_folder(folder, CACHE):
        claim(folder, plan, fidelity)
        known = {name: line for name, line in read_manifest(folder).items() if _is_whole(folder, line)}
        todo = [scan for scan in scans if scan.case not in known]
        failures, done = [], 0
        jobs = ((scan, folder, plan, fidelity) for scan in todo)
        try:
            with (
                resumable(lambda: (len(known) + done, len(scans))),
                growing_manifest(folder, known) as manifest,
            ):
                results = spread(jobs) if spread else _results(jobs, workers)
                for result in tqdm(results, desc="preprocess", unit="scan", total=len(todo), disable=None):
                    if isinstance(result, Failure):
                        failures.append(result)
                        log.info("%s: %s", result.case, result.reason)
                    else:
                        manifest.add(result)
                        done += 1
                        log.info("%s: %s", result.case, result.note)
        finally:
            rows = ((failure.case, failure.path, failure.code, failure.reason) for failure in failures)
            write_csv(folder / FAILURES, ("case", "path", "code", "reason"), rows)
        return PreprocessResult(done, len(scans) - len(todo), failures)


def _is_whole(folder: Path, line: CachedCase) -> bool:
    path = volume_path(folder, line.case)
    return path.is_file() and path.stat().st_size == line.bytes


def _results(jobs: Iterator[Job], workers: int) -> Iterator[CachedCase | Failure]:
    return (preprocess_scan(*job) for job in jobs) if workers == 1 else _in_processes(jobs, workers)


def _in_processes(jobs: Iterator[Job], workers: int) -> Iterator[CachedCase | Failure]:
    """Results in the order in which they are ready, few jobs waiting at a time.

    When a process dies (the system kills those that take too much memory), the jobs that were in hand are done again
    one by one; a job that kills its process again has failed.
    """
    while suspects := (yield from _until_a_process_dies(jobs, workers)):
        yield from map(_alone, suspects)


def _until_a_process_dies(jobs: Iterator[Job], workers: int) -> Generator[CachedCase | Failure, None, list[Job]]:
    """Yield results; return the jobs that were in hand when a process died, none when all jobs are done."""
    running: dict[Future, Job] = {}
    with process_pool(workers, _one_thread) as pool:
        for job in jobs:
            try:
                running[pool.submit(preprocess_scan, *job)] = job
            except BrokenProcessPool:
                return [*running.values(), job]
            if len(running) < 2 * workers:
                continue
            if (yield from _finished(running)):
                return list(running.values())
        while running:
            if (yield from _finished(running)):
                return list(running.values())
    return []


def _finished(running: dict[Future, Job]) -> Generator[CachedCase | Failure, None, bool]:
    """Wait for at least one job and yield what is finished; return whether a process died."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        try:
            result = future.result()
        except BrokenProcessPool:
            return True
        del running[future]
        yield result
    return False


def _alone(job: Job) -> CachedCase | Failure:
    with process_pool(1, _one_thread) as pool:
        try:
            return pool.submit(preprocess_scan, *job).result()
        except BrokenProcessPool:
            reason = "its process was killed, probably for want of memory. Use fewer workers."
            return Failure(job[0].case, str(job[0].path), OutOfMemoryError.exit_code, reason)


def _one_thread() -> None:
    """Let SimpleITK use one thread; the processes share the processor already."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
