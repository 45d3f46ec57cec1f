"""Which processes there are, found by a variable in their environment, which children inherit (Linux)."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "BRGSA_TEST_MARK"


def new_mark() -> dict[str, str]:
    """A variable for the environment of a process that is to be found again, with all its descendants."""
    return {VARIABLE: uuid.uuid4().hex}


def marked(mark: dict[str, str]) -> list[int]:
    """The processes with this mark that have not ended."""
    return list(_marked(f"{VARIABLE}={mark[VARIABLE]}".encode()))


def _marked(line: bytes) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and line in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
