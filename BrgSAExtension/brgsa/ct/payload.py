"""The voxels behind a header: found beside it, uncompressed, and put into HU block by block.

Nothing here takes memory for what a header promises before the file can be seen to hold it: blocks of a few megabytes
are read one after the other into an array whose pages the system hands out as they are filled.
"""

import bz2
import contextlib
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PureWindowsPath
from typing import IO

import numpy as np

from brgsa.ct.source import file_size, open_file, put_hu, unreadable
from brgsa.errors import InputError

GZIP_MARK = b"\x1f\x8b"
# A second thread pays from about here on.
_THREAD_FROM_BYTES = 4_000_000
_VOXELS_AT_A_TIME = 1 << 21
_BYTES_AT_A_TIME = 1 << 20


def data_file(path: Path, name: str) -> Path:
    """The file with the voxels that a header names, one character a byte: a plain file in its folder or below it.

    Raises:
        InputError: it is elsewhere, is missing, or the name stands for several files.
    """
    name = name.encode("latin-1").decode("utf-8", "surrogateescape")
    # Windows' rules take both kinds of slash for separators and know drives, so they hold for names from everywhere.
    pure = PureWindowsPath(name)
    if "%" in name or name.upper().startswith("LIST"):
        raise InputError(f"{path}: keeps its voxels in a list of files; save it as one .nrrd or .nii.gz file.")
    if not pure.name or pure.anchor or ".." in pure.parts or "\0" in name:
        raise InputError(f"{path}: its voxels lie outside its own folder ({name[:100]!r}); copy both files into one.")
    data = path.parent / name
    if not os.path.isfile(data):  # noqa: PTH113 (Path.is_file raises on a name that is too long)
        raise InputError(f"{path}: its voxels should be in the file {name[:100]!r}, which is not there; copy both.")
    return data


@contextlib.contextmanager
def uncompressed(path: Path, start: int, compression: str | None) -> Iterator[IO[bytes]]:
    """Open a file at byte `start` and uncompress what comes: None, "gzip", "zlib" or "bzip2".

    Raises:
        InputError: the file cannot be opened, or damage was found while reading.
    """
    from isal import igzip, igzip_lib, igzip_threaded, isal_zlib

    with open_file(path) as file:
        file.seek(start)
        try:
            if compression is None:
                yield file
            elif compression == "zlib":
                yield io.BufferedReader(_Inflated(file, igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)))
            elif compression == "bzip2":
                yield io.BufferedReader(_Inflated(file, bz2.BZ2Decompressor()))
            elif file_size(path) < _THREAD_FROM_BYTES:
                with igzip.GzipFile(fileobj=file) as stream:
                    yield stream
            else:
                with igzip_threaded.open(file, "rb") as stream:
                    yield stream
        except (EOFError, isal_zlib.error, zlib.error, igzip.BadGzipFile, _DamagedError) as error:
            raise InputError(f"{path}: the compressed data are cut short or damaged; copy the file again.") from error
        except OSError as error:
            raise unreadable(path, error) from error


class _DamagedError(Exception):
    pass


class _Inflated(io.RawIOBase):
    """What a decompressor makes of a file, in blocks no larger than asked for."""

    def __init__(self, file: IO[bytes], decompressor):
        self._file = file
        self._decompressor = decompressor

    def readable(self) -> bool:
        return True

    def readinto(self, target) -> int:
        while not self._decompressor.eof:
            block = self._file.read(_BYTES_AT_A_TIME) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not block:
                raise EOFError
            try:
                data = self._decompressor.decompress(block, len(target))
            except (OSError, ValueError) as error:
                raise _DamagedError(str(error)) from error
            if data:
                target[: len(data)] = data
                return len(data)
        return 0


def skip(path: Path, stream: IO[bytes], count: int) -> None:
    """Pass over `count` bytes.

    Raises:
        InputError: there are fewer.
    """
    while count > 0:
        passed = len(stream.read(min(count, _BYTES_AT_A_TIME)))
        if not passed:
            raise InputError(f"{path}: ends before its voxels begin; copy the file again.")
        count -= passed


def read_hu(
    path: Path,
    opened: Callable[[], AbstractContextManager[IO[bytes]]],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> np.ndarray:
    """Read voxels that lie in the order of their first axis: int16 HU where all are whole and fit, else float32.

    Args:
        path: named in errors.
        opened: opens a stream that begins with the first voxel; called again where int16 turns out too small.
        shape: of the volume.
        dtype: as stored, whole numbers or floats of any byte order.
        slope, intercept: the rescaling, applied once.

    Raises:
        InputError: there are fewer voxels than `shape` says.
    """
    whole = dtype.kind in "iu" and slope == 1 and float(intercept).is_integer()
    for kind in (np.int16, np.float32) if whole else (np.float32,):
        hu = np.empty(int(np.prod(shape)), kind)
        with opened() as stream:
            if _fill(path, stream, hu, dtype, slope, intercept):
                stream.read(1)  # makes the end of a compressed stream check its checksum
                return hu.reshape(shape, order="F")
    raise AssertionError("float32 holds everything")


def _fill(path: Path, stream: IO[bytes], hu: np.ndarray, dtype: np.dtype, slope: float, intercept: float) -> bool:
    """Fill the array; False as soon as a value does not fit into it."""
    block = None if dtype == hu.dtype else np.empty(min(hu.size, _VOXELS_AT_A_TIME), dtype)
    for start in range(0, hu.size, _VOXELS_AT_A_TIME):
        part = hu[start : start + _VOXELS_AT_A_TIME]
        stored = part if block is None else block[: len(part)]
        target = memoryview(stored.view(np.uint8))
        filled = 0
        while filled < len(target):
            count = stream.readinto(target[filled : filled + _BYTES_AT_A_TIME])
            if not count:
                had = f"{start * dtype.itemsize + filled:,} of {hu.size * dtype.itemsize:,}"
                raise InputError(f"{path}: ends after {had} bytes of voxels; copy the file again.")
            filled += count
        if not put_hu(stored, part, slope, intercept):
            return False
    return True
