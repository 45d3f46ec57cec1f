"""Errors that a user can act on. Each carries the exit code that the command line returns.

The message of every error is one line: what is wrong, where, and what to do about it.

| code | class               | meaning                                              |
|------|---------------------|------------------------------------------------------|
| 1    | BrgSAError          | anything else, for example an output that cannot be written |
| 2    | UsageError          | an option, a name or a list that makes no sense      |
| 3    | InputError          | a scan or a table that cannot be read or used        |
| 3    | RefusedScanError    | a scan whose input checks say "error", without force |
| 4    | SetupError          | weights or packages are missing or damaged           |
| 5    | OutOfMemoryError    | the machine or the accelerator has too little memory |
| 6    | CasesFailedError    | a batch ended, but some cases are in `failures.csv`  |
| 130  | (KeyboardInterrupt) | cancelled                                            |
"""

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class BrgSAError(Exception):
    """Base of all errors with a one-line message for the user."""

    exit_code = 1


class UsageError(BrgSAError):
    """An option, a name or a list that makes no sense."""

    exit_code = 2


class InputError(BrgSAError):
    """A scan or a table that cannot be read or used."""

    exit_code = 3


class RefusedScanError(InputError):
    """A scan that can be read, but whose input checks say "error": its scores would mean nothing.

    Attributes:
        findings: the `brgsa.ct.checks.Finding`s that say so.
        code: what tables of failures say in place of an exit code, for example "refused: not-chest".
    """

    def __init__(self, path: object, findings: Sequence[Any]):
        self.findings = tuple(findings)
        self.code = f"{REFUSED}: {' '.join(dict.fromkeys(finding.code for finding in findings))}"
        super().__init__(f"{path}: {self.code}: {findings[0].message} To score it all the same, add --force.")


class SetupError(BrgSAError):
    """Weights or packages are missing or damaged."""

    exit_code = 4


class OutOfMemoryError(BrgSAError):
    """The machine or the accelerator has too little memory."""

    exit_code = 5


class CasesFailedError(BrgSAError):
    """A batch ended, but some of its cases failed."""

    exit_code = 6


CANCELLED_EXIT_CODE = 130
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")
REFUSED = "refused"  # a scan that the input checks keep from being scored
FORCED = "forced"  # the flag of a scan that was scored all the same


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of the ways in which Python, numpy, torch, ITK or the system say that memory ran out."""
    if isinstance(error, MemoryError | OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


@contextlib.contextmanager
def resumable(count: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """Say of a long work that is cancelled how much of it is done, and that nothing of that is lost.

    Args:
        count: how many are done, of how many.

    Raises:
        KeyboardInterrupt: with that sentence, which the command line prints.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        done, total = count()
        raise KeyboardInterrupt(f"{done} of {total} done; the same command goes on") from stop


def first_line(error: BaseException) -> str:
    """The first line of another library's error, cut to a length that fits into one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
