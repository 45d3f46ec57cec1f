"""Writing files so that a reader never sees half of one."""

import contextlib
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from brgsa.errors import BrgSAError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to `path` when the block ends well and removed when it does not.

    The temporary name keeps the suffixes of `path`, because image writers choose a format by them.

    Raises:
        BrgSAError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".part{''.join(path.suffixes[-2:])}", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only the owner can read; give the new file the mode an ordinary open() would.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
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
        shutil.rmtree(temporary, ignore_errors=True)


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


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity are refused, because JSON has no word for them."""
    with atomic_open(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 CSV with a header line."""
    with atomic_open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
