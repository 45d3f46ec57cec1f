"""Folders that this software writes into, and what it may delete there.

A folder for output is new, empty, or carries the mark of the same kind of output, `.brgsa.json`; any other is refused.
One process works in it at a time (`.lock`); shards of one score run share it, each under a lock of its own. Deleted are
files that the mark or another record of this software lists by name, one by one; what else lies there stays.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from brgsa.errors import InputError, UsageError
from brgsa.files import PART, require_writable, write_error, write_json

log = logging.getLogger(__name__)

MARK = ".brgsa.json"
LOCK = ".lock"
_HOLDER = ".holder.lock"  # of the lock LOCK; that of a part has the part behind it
_SECONDS_OF_A_LOOK = 5  # others may be looking at the same moment
OWN_FILES = (MARK, LOCK, _HOLDER)
_SYSTEM_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what file managers leave in every folder that is looked at


class OutputFolder:
    """A folder that this process may write into; made by `output_folder`."""

    def __init__(self, path: Path, kind: str):
        self.path, self.kind = path, kind

    def will_make(self, names: Iterable[str]) -> None:
        """Put files, named relative to the folder, on the list of those that `remove` may delete later.

        Call it before they are written, so that a run that is killed leaves nothing that no list names.
        """
        self._write({*self.made(), *names})

    def made(self) -> set[str]:
        """The files on the list."""
        return set(_mark(self.path).get("made", ()))

    def remove(self, names: Iterable[str]) -> None:
        """Delete files of the list, and the folders that are empty then.

        Raises:
            BrgSAError: one cannot be deleted.
        """
        made = self.made()
        gone = made.intersection(names)
        remove_files(self.path, gone)
        if gone:
            self._write(made - gone)

    def _write(self, made: set[str]) -> None:
        write_json(self.path / MARK, {"kind": self.kind} | ({"made": sorted(made)} if made else {}))


@contextlib.contextmanager
def output_folder(folder: str | os.PathLike, kind: str, part: str = "") -> Iterator[OutputFolder]:
    """Hold a folder, made if need be, for output of one kind; the system lets go of it however the process ends.

    Args:
        kind: what the folder holds, in words, for example "scores".
        part: name of a share of the work; processes with different parts hold the folder together.

    Raises:
        UsageError: it holds something else, or another process works in it.
        BrgSAError: it cannot be written.
    """
    path = Path(folder)
    _require_ours(path, kind)
    missing = [each for each in (path, *path.parents) if not each.exists()]
    with contextlib.ExitStack() as locks:
        _hold_all(path, kind, part, locks)
        try:
            _require_ours(path, kind)
            held = OutputFolder(path, kind)
            if not (path / MARK).exists():
                held.will_make(())
            yield held
        except BaseException:
            _forget(path, missing)
            raise
        finally:
            with contextlib.suppress(OSError):
                (path / f"{_HOLDER}{part}").unlink(missing_ok=True)


def _hold_all(path: Path, kind: str, part: str, locks: contextlib.ExitStack) -> None:
    """Take the locks that a run of this part needs, and say in the folder who has them."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        _hold(path, f"{LOCK}{part}", kind, locks)
        # Whoever shares the folder must not meet a process that holds it alone, nor the other way round.
        for name in [LOCK] if part else [each.name for each in path.glob(f"{LOCK}.*")]:
            with contextlib.ExitStack() as look:
                _hold(path, name, kind, look, timeout=_SECONDS_OF_A_LOOK)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(path / f"{_HOLDER}{part}", {"process": os.getpid(), "host": socket.gethostname(), "since": now})
    except OSError as error:
        raise write_error(path, error) from error


def _forget(path: Path, missing: Iterable[Path]) -> None:
    """Leave no trace of a run that ended before it wrote anything into a folder that it had made itself."""
    with contextlib.suppress(OSError):
        if path in missing and all(entry.name in (MARK, LOCK, _HOLDER) for entry in path.iterdir()):
            for name in (MARK, _HOLDER, LOCK):
                (path / name).unlink(missing_ok=True)
            for each in missing:
                each.rmdir()


def require_output(folder: str | os.PathLike, kind: str) -> None:
    """Find out before hours of work whether `output_folder` will take a folder, and whether it can be written.

    Raises:
        UsageError: it holds something else.
        BrgSAError: it cannot be written.
    """
    _require_ours(Path(folder), kind)
    require_writable(folder)


def require_new_file(path: str | os.PathLike) -> None:
    """Refuse to write over a file.

    Raises:
        UsageError: it is there.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} exists. Choose another name, or delete it first.")


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Delete files that a record of this software lists, relative to `folder`, and the folders that are empty then.

    A name that leads out of the folder is passed over.

    Raises:
        BrgSAError: one cannot be deleted.
    """
    parents = set()
    for name in names:
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute() or path.parent.resolve() != _inside(folder, path):
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        parents.update(parent for parent in path.parents if folder in parent.parents)
    for parent in sorted(parents, key=lambda each: len(each.parts), reverse=True):
        with contextlib.suppress(OSError):  # not empty, or gone
            parent.rmdir()


def _inside(folder: Path, path: Path) -> Path:
    """Where the parent of `path` has to be if no link leads out of the folder."""
    return folder.resolve() / path.parent.relative_to(folder)


def _require_ours(path: Path, kind: str) -> None:
    try:
        if not path.is_dir():
            if path.exists():
                raise UsageError(f"{path} is a file. Choose a folder for the {kind}.")
            return
        found = _mark(path).get("kind")
        if found == kind or (found is None and _holds_nothing(path)):
            return
    except OSError as error:
        raise write_error(path, error) from error
    holds = f"holds {found}" if found else "holds other files"
    raise UsageError(f"{path} {holds} and no {kind}. Choose a new or an empty folder.")


def _holds_nothing(path: Path) -> bool:
    names = (entry.name for entry in path.iterdir())
    return all(name in _SYSTEM_FILES or name.startswith((LOCK, _HOLDER)) or PART.fullmatch(name) for name in names)


def _mark(path: Path) -> dict:
    """The content of the mark, empty where there is none.

    Raises:
        InputError: it is damaged.
    """
    try:
        content = json.loads((path / MARK).read_text(encoding="utf-8"))
        content["kind"] + "", [name + "" for name in content.get("made", ())]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path / MARK} is damaged. Choose another folder.") from error
    return content


def _hold(path: Path, name: str, kind: str, locks: contextlib.ExitStack, timeout: float = 0) -> None:
    """Take a lock until `locks` is closed."""
    from filelock import FileLock, Timeout  # what lists and shows works without any package

    try:
        locks.enter_context(FileLock(path / name, timeout=timeout, thread_local=False))
    except Timeout as error:
        raise UsageError(
            f"{path} is in use: {_holder(path, name.removeprefix(LOCK))} writes {kind} there. "
            "Wait for it, or choose another folder."
        ) from error
    except NotImplementedError:
        log.warning("%s cannot be locked: let no other process work there.", path)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        log.warning("%s cannot be locked (%s): let no other process work there.", path, error.strerror)


def _holder(path: Path, part: str) -> str:
    try:
        content = json.loads((path / f"{_HOLDER}{part}").read_text(encoding="utf-8"))
        return f"process {content['process']} on {content['host']}, since {content['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
