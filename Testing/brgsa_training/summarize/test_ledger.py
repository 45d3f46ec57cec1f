import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from waiting import LONGEST_WAIT

from brgsa.errors import BrgSAError, InputError
from brgsa_training.summarize.ledger import Answer, Job, Ledger

JOB = Job("prompt", "model", "{}")
WRITER = """
import sys
from brgsa_training.summarize.ledger import Answer, Job, Ledger
with Ledger(sys.argv[1]) as ledger:
    for number in range(int(sys.argv[3])):
        ledger.put(f"{sys.argv[2]}{number}", Job("prompt", "model", "{}"), Answer("ok", "x" * 500))
        print(number, flush=True)
"""


def _writer(path, name, count, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_an_answer_is_found_by_its_whole_key(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.put("a", JOB, Answer("ok", "{}", "", 10, 2, 0.5))
        assert ledger.get("a", JOB) == Answer("ok", "{}", "", 10, 2, 0.5)
        for other in (JOB._replace(prompt="p"), JOB._replace(model="m"), JOB._replace(parameters="{1}")):
            assert ledger.get("a", other) is None


def test_a_failure_does_not_replace_a_good_answer(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.put("a", JOB, Answer("failed", "", "why"))
        ledger.put("a", JOB, Answer("ok", "good"))
        ledger.put("a", JOB, Answer("failed", "", "later"))
        assert ledger.get("a", JOB).answer == "good"


def test_kill_9_loses_no_answer_that_was_kept(tmp_path):
    path = tmp_path / "l.sqlite"
    with _writer(path, "r", 100_000) as process:
        last = [int(process.stdout.readline()) for _ in range(300)][-1]
        os.kill(process.pid, signal.SIGKILL)
    with Ledger(path) as ledger:
        assert all(ledger.get(f"r{number}", JOB) for number in range(last + 1))


def test_two_runs_can_write_one_ledger(tmp_path):
    path = tmp_path / "l.sqlite"
    writers = [_writer(path, name, 300) for name in "ab"]
    for writer in writers:
        _, errors = writer.communicate(timeout=LONGEST_WAIT)
        assert writer.returncode == 0, errors
    with Ledger(path) as ledger:
        assert sum(1 for _ in ledger.rows()) == 600
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("lock", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_a_new_ledger_waits_for_a_run_that_makes_it_at_the_same_time(tmp_path, lock):
    other = sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute(f"BEGIN {lock}")
    other.execute("SELECT * FROM t").fetchall()
    release = threading.Timer(0.5, other.execute, ["COMMIT"])
    release.start()
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.put("a", JOB, Answer("ok", ""))
        assert ledger.get("a", JOB)
    release.join()


def test_a_locked_ledger_is_named_in_one_line(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path, wait_s=0.2) as ledger:
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrgSAError, match=r"l.sqlite: database is locked. Another program holds it"):
            ledger.put("a", JOB, Answer("ok", ""))
        blocker.execute("ROLLBACK")
        ledger.put("a", JOB, Answer("ok", ""))


def test_a_full_disk_is_named_and_earlier_answers_stay(tmp_path):
    """A limit on the file size of the writer stands for the full disk: the write fails in the same place."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "l.sqlite"
    limit = 200_000

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with _writer(path, "r", 10_000, preexec_fn=lower) as process:
        output, errors = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 1
    last_line = errors.strip().splitlines()[-1]
    assert last_line.startswith("brgsa.errors.BrgSAError: cannot use the ledger")
    assert "Free some space" in last_line
    with Ledger(path) as ledger:
        kept = output.split()
        assert kept
        assert all(ledger.get(f"r{number}", JOB) for number in kept)


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / "l.sqlite"
    path.write_text("this is a text file, and no database at all" * 20)
    with pytest.raises(InputError, match="is not a ledger"):
        Ledger(path)


def test_a_ledger_of_the_first_version_keeps_its_answers(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path) as ledger:
        ledger.put("a", JOB, Answer("ok", "{}", "", 10, 2, 0.5, "text"))
    old = sqlite3.connect(path)
    old.execute("ALTER TABLE answers DROP COLUMN format")
    old.execute("PRAGMA user_version = 1")
    old.close()
    for _ in range(2):
        with Ledger(path) as ledger:
            assert ledger.get("a", JOB) == Answer("ok", "{}", "", 10, 2, 0.5)
            ledger.put("b", JOB, Answer("ok", "{}", format="text"))
            assert ledger.get("b", JOB).format == "text"


def test_a_newer_ledger_is_refused(tmp_path):
    path = tmp_path / "l.sqlite"
    sqlite3.connect(path).execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="version 99, this program reads 2"):
        Ledger(path)


def test_the_export_holds_every_row(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for name in "ab":
            ledger.put(name, JOB, Answer("ok", "ğ"))
        assert ledger.export_jsonl(tmp_path / "l.jsonl") == 2
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["report"], row["answer"]) for row in rows] == [("a", "ğ"), ("b", "ğ")]
