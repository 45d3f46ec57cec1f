"""Work on many cases, one after the other: progress, and failures that do not stop the rest."""

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brgsa.ct.cases import Case
from brgsa.errors import (
    BrgSAError,
    CasesFailedError,
    OutOfMemoryError,
    RefusedScanError,
    UsageError,
    first_line,
    is_out_of_memory,
    resumable,
)
from brgsa.files import csv_dicts, write_csv
from brgsa.scoring import Progress

log = logging.getLogger(__name__)

FAILURES_COLUMNS = ("case", "path", "code", "reason")


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


def each_case(
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


def _failure(case: Case, code: int | str, reason: str) -> Failure:
    tqdm.write(f"{case.name}: {reason}", file=sys.stderr)
    return Failure(case.name, str(case.path), code, reason)


def write_failures(path: Path, failures: Sequence[Failure], settled: Collection[str]) -> None:
    """Write failures.csv; rows of earlier runs stay, but for cases that are `settled` by this one or by a record."""
    rows = [(failure.case, failure.path, failure.code, failure.reason) for failure in failures]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            earlier = [tuple(row[column] for column in FAILURES_COLUMNS) for row in csv_dicts(file)]
    except (OSError, ValueError, KeyError):
        earlier = []
    write_csv(path, FAILURES_COLUMNS, [*rows, *(row for row in earlier if row[0] not in settled)])
