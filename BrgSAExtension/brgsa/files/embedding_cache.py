"""Embeddings kept on disk, so that a scan or a sentence is encoded once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from brgsa.errors import BrgSAError
from brgsa.files import atomic_path

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

SIZE_LIMIT = 200_000_000  # bytes; an embedding of the released model has 3 kB, so about 60,000 of them
_LONGEST = 1 << 20  # bytes of one vector
_DIGEST_BYTES = 32
_NAME = re.compile(r"[0-9a-f]{64}\.vector")


def cache_folder() -> Path:
    """The folder that BRGSA_CACHE names, else the platform's usual one for this user."""
    if named := os.environ.get("BRGSA_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "brgsa" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "brgsa"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brgsa"


class EmbeddingCache:
    """float32 vectors by key, the least recently used removed when the folder passes its size limit.

    An entry is a file of a SHA-256 over its key and its numbers, and the numbers. Whatever else lies in its place (a
    damaged or foreign file, another key's entry, a folder, a link) counts as no entry, and so do numbers that are not
    finite. A cache that cannot be written costs time, never a result: the first failure is logged and the rest is
    silent. No other files than entries are ever removed.

    Args:
        folder: where the files lie; the user's cache folder by default.
        size_limit: bytes.
    """

    def __init__(self, folder: str | os.PathLike | None = None, size_limit: int = SIZE_LIMIT):
        self.folder = Path(folder) if folder else cache_folder() / "embeddings"
        self.size_limit = size_limit
        self._size: int | None = None
        self._failed = False

    def get(self, key: str) -> np.ndarray | None:
        """The vector stored under `key`, or None."""
        import numpy as np  # here, because `brgsa doctor` asks for the folder where numpy may be missing

        path = self._path(key)
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST:
                return None
            content = path.read_bytes()
        except OSError:
            return None
        digest, numbers = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest != _digest(key, numbers) or len(numbers) % 4:
            return None
        vector = np.frombuffer(numbers, "<f4").astype(np.float32)
        if not np.isfinite(vector).all():
            return None
        with contextlib.suppress(OSError):  # another user's file in a shared cache
            os.utime(path)
        return vector

    def put(self, key: str, vector: np.ndarray) -> None:
        """Store a vector (E,) under `key`."""
        import numpy as np

        path, numbers = self._path(key), np.asarray(vector, "<f4").tobytes()
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(_digest(key, numbers) + numbers)
            if self._size is None:
                self._size = sum(size for _, size, _ in self._files())
            else:
                self._size += _DIGEST_BYTES + len(numbers)
            if self._size > self.size_limit:
                self._shrink()
        except (BrgSAError, OSError) as error:
            if not self._failed:
                log.warning("embeddings are not cached: %s", error)
            self._failed = True

    def clear(self) -> int:
        """Remove every stored vector; return how many there were."""
        files = self._files()
        for _, _, path in files:
            path.unlink(missing_ok=True)
        self._size = 0
        return len(files)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name}.vector"

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, bytes and path of every entry, the oldest first."""
        files = []
        for path in self.folder.glob("*/*.vector"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
                status = path.lstat()
                if _NAME.fullmatch(path.name) and stat.S_ISREG(status.st_mode):
                    files.append((status.st_mtime, status.st_size, path))
        return sorted(files)

    def _shrink(self) -> None:
        """Remove the oldest files until a tenth of the limit is free again."""
        files = self._files()
        size = sum(size for _, size, _ in files)
        for _, file_size, path in files:
            if size <= 0.9 * self.size_limit:
                break
            size -= file_size
            path.unlink(missing_ok=True)
        self._size = size


def _digest(key: str, numbers: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() + numbers).digest()
