"""The ledger: every answer of a language model, kept in SQLite, so that no report is paid for twice.

One row per (report, prompt version, model, parameters). Each row is written as soon as its answer is complete, in WAL
mode: after `kill -9` at any moment all earlier rows are there, and several runs may use one ledger at a time.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brgsa.errors import BrgSAError, InputError
from brgsa.files import atomic_open

VERSION = 2  # 1 had no column "format"
WAIT_S = 10.0  # for another run that is writing

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    report TEXT NOT NULL,          -- sha256 of the report text
    prompt TEXT NOT NULL,          -- prompt version
    model TEXT NOT NULL,
    parameters TEXT NOT NULL,      -- JSON
    status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    answer TEXT NOT NULL,          -- the raw answer
    error TEXT NOT NULL,           -- why it failed, or empty
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    seconds REAL NOT NULL,
    finished REAL NOT NULL,        -- Unix time
    format TEXT NOT NULL DEFAULT '',  -- how the answer was kept to the schema, a name of prompt.RESPONSE_FORMATS
    PRIMARY KEY (report, prompt, model, parameters)
) WITHOUT ROWID
"""


class Answer(NamedTuple):
    """The outcome of one request; `status` is "ok" or "failed"."""

    status: str
    answer: str
    error: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    format: str = ""


class Job(NamedTuple):
    """What, beside the report, an answer depends on."""

    prompt: str
    model: str
    parameters: str


class Ledger:
    """An open ledger file; use it as a context manager.

    Raises:
        InputError: the file is not a ledger, or of an unknown version.
        BrgSAError: it cannot be read or written, the disk is full, or another program has locked it for ten seconds.
    """

    def __init__(self, path: str | Path, wait_s: float = WAIT_S):
        self.path = Path(path)
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=wait_s, isolation_level=None)
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in range(VERSION + 1):
                raise InputError(f"the ledger {path} has version {version}, this program reads {VERSION}.")
            if version < VERSION:
                self._use_wal(wait_s)
                self._upgrade()
            self._database.execute("PRAGMA synchronous = NORMAL")

    def _use_wal(self, wait_s: float) -> None:
        """Switch to WAL mode; SQLite does not wait for another run that switches just then, so ask until it has."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _upgrade(self) -> None:
        """Make the table, or bring that of an earlier version up to this one; another run may do so at this moment."""
        self._database.execute("BEGIN IMMEDIATE")
        if self._database.execute("PRAGMA user_version").fetchone()[0] == 1:
            self._database.execute("ALTER TABLE answers ADD COLUMN format TEXT NOT NULL DEFAULT ''")
        self._database.execute(_TABLE)
        self._database.execute(f"PRAGMA user_version = {VERSION}")
        self._database.execute("COMMIT")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, report: str, job: Job) -> Answer | None:
        """Return the answer for a report (its hash) and a job, or None."""
        query = (
            "SELECT status, answer, error, tokens_in, tokens_out, seconds, format FROM answers "
            "WHERE report = ? AND prompt = ? AND model = ? AND parameters = ?"
        )
        with self._errors():
            row = self._database.execute(query, (report, *job)).fetchone()
        return Answer(*row) if row else None

    def put(self, report: str, job: Job, answer: Answer) -> None:
        """Keep an answer; a good one is never replaced by a failure."""
        statement = (
            "INSERT INTO answers (report, prompt, model, parameters, status, answer, error, tokens_in, tokens_out, "
            "seconds, format, finished) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "status = excluded.status, answer = excluded.answer, error = excluded.error, "
            "tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, "
            "seconds = excluded.seconds, format = excluded.format, finished = excluded.finished "
            "WHERE excluded.status = 'ok' OR status = 'failed'"
        )
        with self._errors():
            self._database.execute(statement, (report, *job, *answer, time.time()))

    def rows(self) -> Iterator[dict]:
        """Yield every row as a dictionary, in the order of the key."""
        with self._errors():
            cursor = self._database.execute("SELECT * FROM answers ORDER BY report, prompt, model, parameters")
            names = [column[0] for column in cursor.description]
            for row in cursor:
                yield dict(zip(names, row, strict=True))

    def export_jsonl(self, path: str | Path) -> int:
        """Write every row as a line of JSON and return their number."""
        count = 0
        with atomic_open(path) as file:
            for row in self.rows():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        return count

    def _errors(self) -> "_LedgerErrors":
        return _LedgerErrors(self.path)


class _LedgerErrors:
    """Turns the errors of SQLite into one line that names the ledger."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise BrgSAError(f"cannot write the ledger {self.path}: {error.strerror}.") from error
        if not isinstance(error, sqlite3.Error):
            return
        reason = str(error)
        if "locked" in reason or "busy" in reason:
            advice = "Another program holds it; wait for that program, or give another file with --ledger."
        elif "full" in reason or "disk I/O" in reason or "readonly" in reason or "unable to open" in reason:
            advice = "Free some space or give a writable file with --ledger; answers that are in it are kept."
        else:
            raise InputError(f"{self.path} is not a ledger ({reason}). Give another file with --ledger.") from error
        raise BrgSAError(f"cannot use the ledger {self.path}: {reason}. {advice}") from error
