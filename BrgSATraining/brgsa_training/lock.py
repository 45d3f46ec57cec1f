"""A folder that one process works in at a time."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from brgsa.errors import UsageError
from brgsa.files import write_error

log = logging.getLogger(__name__)

HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # what the systems answer when another process has the lock


@contextlib.contextmanager
def locked(folder: str | os.PathLike, purpose: str) -> Iterator[None]:
    """Hold a folder (made if need be) for this process; the system lets go of it however the process ends.

    Some network file systems know no locks: there the folder is used without, with a line in the log.

    Raises:
        UsageError: another process holds it.
        BrgSAError: the folder cannot be written.
    """
    path = Path(folder) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno in HELD:
                raise UsageError(
                    f"{folder} is in use: another process is {purpose} there. Wait for it or choose another folder."
                ) from error
            log.warning("%s cannot be locked (%s): let no other process work there.", folder, error.strerror)
        yield


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
