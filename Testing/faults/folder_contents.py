"""What a folder holds, without what differs between two runs that did the same: times, and the zip of a checkpoint."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

TIMES = {"seconds", "finished"}
# End of a file's name -> what is in its lines that tell of times.
TIMED_LINES = {"README.md": b" s for the ", "SHA256SUMS": b"  README.md"}


def contents(folder: Path, foreign: Collection[Path] = ()) -> dict[str, str]:
    """A digest of every file below a folder, hidden ones included, by its relative path; locks are left out.

    An index that was killed after it had written a data folder writes another one, of the next number.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        passed_over = path in foreign or path.match("run*.json") or path.name.endswith((".lock", "-wal", "-shm"))
        if path.is_file() and not passed_over:
            name = re.sub(r"data-\d{5}", "data-N", path.relative_to(folder).as_posix())
            assert name not in found, f"{name} is there twice"
            found[name] = hashlib.sha256(_content(path)).hexdigest()
    return found


def rows(folder: Path) -> dict[str, set[bytes]]:
    """The lines of the tables below a folder, by their relative path."""
    tables = [path for path in folder.rglob("*") if path.suffix in (".csv", ".jsonl")]
    return {
        re.sub(r"data-\d{5}", "data-N", path.relative_to(folder).as_posix()): set(path.read_bytes().splitlines())
        for path in tables
    }


def ledger(path: Path) -> list[dict[str, Any]]:
    """The rows of a ledger without their times."""
    with sqlite3.connect(path) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM answers ORDER BY report")]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def _content(path: Path) -> bytes:
    if path.suffix in (".pt", ".pth"):
        import torch

        return _plain(torch.load(path, map_location="cpu", weights_only=True))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return _plain({name: stored[name] for name in stored.files})
    if path.suffix == ".sqlite":
        return _plain(ledger(path))
    if path.suffix == ".json":
        text = re.sub(r"data-\d{5}", "data-N", path.read_text(encoding="utf-8"))
        return _plain(_without_times(json.loads(text)))
    if path.name in ("manifest.csv", "failures.csv"):  # lines in the order in which processes were ready
        return b"\n".join(sorted(path.read_bytes().splitlines()))
    if path.suffix == ".html":
        # Seconds, where scores have more digits, and the day.
        return re.sub(rb"<td>\d+\.\d\d</td>|made \d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", path.read_bytes())
    timed = next((word for name, word in TIMED_LINES.items() if path.name.endswith(name)), None)
    return b"\n".join(line for line in path.read_bytes().splitlines() if timed is None or timed not in line)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(part) for name, part in value.items() if name not in TIMES}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def _plain(value: Any) -> bytes:
    """Nested values as bytes, tensors and arrays by their numbers."""
    if isinstance(value, dict):
        return b"{" + b",".join(repr(key).encode() + b":" + _plain(part) for key, part in value.items()) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_plain, value)) + b"]"
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    return repr(value).encode()
