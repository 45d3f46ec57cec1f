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


def descendants(pid: int) -> set[int]:
    """The processes that a process and those that it started have started, as far as all between are alive."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new := {child for child, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def title(pid: int) -> str:
    """The command line of a process, as it shows it; empty when it has ended."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _marked(line: bytes) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and line in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
