"""Writing files so that a reader never sees half of one, and tables that a spreadsheet shows as they are.

A spreadsheet takes a cell that begins with =, +, -, @, a tab or a carriage return for a formula. In our tables such a
text has an apostrophe before it (and one more, where it begins with apostrophes already), which `csv_reader` and
`csv_dicts` take away again. Numbers stay as they are.
"""

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from brgsa.errors import BrgSAError

# Names of files and folders that are being written. A process that is killed leaves them behind.
_LARGEST_JSON = 50_000_000  # bytes
PART = re.compile(r"\.brgsa-[a-z0-9_]{8}\.part(\..*)?")
_looked_into: set[Path] = set()  # folders where this process has removed what others left behind


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to `path` when the block ends well and removed when it does not.

    The temporary name keeps the suffixes of `path`, because image writers choose a format by them. The first file that
    a process writes into a folder also removes there what killed processes left half written.

    Raises:
        BrgSAError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        temporary, lock = _new_part(path.parent, "".join(path.suffixes[-2:]))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
        # mkstemp makes files that only the owner can read; give the new file the mode an ordinary open() would.
        temporary.chmod(0o666 & ~_umask())
        if os.name == "nt":
            lock.close()  # Windows renames no open file
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        lock.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_writable(folder: str | os.PathLike) -> None:
    """Try to write a file in a folder, made for the try if need be, before hours of work go into it.

    Raises:
        BrgSAError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        temporary, lock = _new_part(folder, "")
        try:
            temporary.write_bytes(bytes(4096))
        finally:
            lock.close()
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    with contextlib.suppress(OSError):  # another process works there by now
        for path in missing:
            path.rmdir()


@contextlib.contextmanager
def atomic_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, renamed to `folder` when the block ends well and removed when not.

    Raises:
        BrgSAError: the folder exists and is not empty, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BrgSAError(f"{folder} exists and is not empty. Choose another folder.")
    try:
        temporary, lock = _new_part(folder.parent, "", tempfile.mkdtemp)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        lock.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _new_part(
    folder: Path, suffix: str, make: Callable[..., Any] = tempfile.mkstemp
) -> tuple[Path, contextlib.ExitStack]:
    """Make a file or folder under a temporary name; it counts as being written until the lock is closed.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_left_parts(folder)
    while True:
        made = make(prefix=".brgsa-", suffix=f".part{suffix}", dir=folder)
        path = Path(made if isinstance(made, str) else made[1])
        lock = contextlib.ExitStack()
        if not isinstance(made, str):
            lock.callback(os.close, made[0])
        if _lock(path, lock, wait=True) and not path.exists():
            lock.close()  # another process took it for left behind, just before it was locked
            continue
        return path, lock


def _remove_left_parts(folder: Path) -> None:
    folder = folder.absolute()
    if folder in _looked_into:
        return
    _looked_into.add(folder)
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError), contextlib.ExitStack() as lock:
            if PART.fullmatch(entry.name) and not entry.is_symlink():
                if os.name != "nt" and not _lock(Path(entry.path), lock, wait=False):
                    continue
                if not entry.is_dir():
                    Path(entry.path).unlink()  # Windows refuses where another process has it open
                elif os.name != "nt":  # where nothing says whether another process is writing it
                    shutil.rmtree(entry.path, ignore_errors=True)


def _lock(path: Path, lock: contextlib.ExitStack, wait: bool) -> bool:
    """Lock a file or folder until `lock` is closed or this process ends; False where another process has it, or where
    the file system knows no locks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows, where the open file is enough
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
        lock.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def file_state(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is changed or another one takes its place: size, both times of change, and its number.

    The second time is the system's own, which no program sets; Windows has the time of creation there. The number
    (inode, file index) changes when a file is copied, and at any time on some network file systems: where it differs,
    the content has to be compared.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def write_error(path: str | os.PathLike, error: OSError) -> BrgSAError:
    """Return the one-line error for a file that could not be written."""
    return BrgSAError(f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder.")


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing ("w", UTF-8, or "wb") that appears under its name only when it is complete.

    Text is the same on every system: lines end in "\\n". What UTF-8 has no bytes for (names of files in another
    encoding) is written as "\\udcfc", which JSON reads back.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with atomic_path(path) as temporary, temporary.open(mode, **text) as file:
        yield file


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file that somebody else may have written.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, holds a number of thousands of digits, or is nested too deep.
    """
    path = Path(path)
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"it has over {_LARGEST_JSON:,} bytes")
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
        json.dumps(content)  # which finds what is nested too deep for those who show it
        return content
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity are refused, because JSON has no word for them."""
    with atomic_open(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 CSV with a header line; what begins like a formula is written as text."""
    with atomic_open(path) as file:
        writer = CSVWriter(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)


class CSVWriter:
    """Writes rows to a file that was opened with `newline=""`."""

    def __init__(self, file: IO[str]):
        self._file = file
        # The writer quotes the characters of its own line end: with "\r\n" also a lone "\r", a line end to others.
        self._writer = csv.writer(self, lineterminator="\r\n")

    def writerow(self, row: Iterable[Any]) -> None:
        self._writer.writerow([_shown_as_text(cell) for cell in row])

    def write(self, line: str) -> None:
        """Take a line of the writer above; in the file, lines end in a line feed."""
        self._file.write(line[:-2] + "\n")


class _Plain:
    """The rows of a `csv.reader`, with the texts that were written."""

    def __init__(self, reader: Any):
        self._reader = reader

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        return [cell[1:] if cell[:1] == "'" and _ESCAPED.match(cell) else cell for cell in next(self._reader)]

    @property
    def line_num(self) -> int:
        return self._reader.line_num


def csv_reader(lines: Iterable[str], **options: Any) -> Iterator[list[str]]:
    """Like `csv.reader`, with its options: rows as lists, also of tables that others wrote."""
    return _Plain(csv.reader(lines, **options))


def csv_dicts(lines: Iterable[str], **options: Any) -> csv.DictReader:
    """Like `csv.DictReader`, with its options: rows by the names of the header line."""
    rows = csv.DictReader(lines, **options)
    rows.reader = csv_reader(lines, **options)  # type: ignore[assignment]
    return rows


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)


def _shown_as_text(cell: Any) -> Any:
    if cell is None or isinstance(cell, (int, float)):
        return cell
    text = str(cell)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.match(text) else text


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
