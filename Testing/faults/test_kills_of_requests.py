"""`summarize` with a language model is killed while it asks: no answer that was kept is asked for again."""

import random
import sqlite3
import time
from pathlib import Path

import pytest
from folder_contents import contents, ledger
from killing import Child
from llm_server import Server
from process_table import new_mark

from brgsa_training.cli import main as training

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]

AT_ONCE, REPORTS, KILLS = 4, 120, 24


def test_summarize_that_is_killed_while_it_asks_goes_on(material, tmp_path, attacks):
    dice, kills, number = random.Random(0), 0, 0

    def start(server, folder):
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--backend", "openai", "--model", "m", "--concurrency", str(AT_ONCE), "--out", "out"]
        arguments = ["summarize", str(material / "reports.jsonl"), *options, "--base-url", server.base_url]
        return Child(training, arguments, folder, new_mark())

    def asked():
        """How many requests about a report there were; each run makes a trial first."""
        return sum("of the chest" in request.report for request in server.requests)

    def kept(folder):
        path = folder / "out" / "ledger.sqlite"
        try:
            return ledger(path) if path.exists() else []
        except sqlite3.OperationalError:  # killed before the table was made
            return []

    with Server(latency=0.02) as server:
        started = time.monotonic()
        assert start(server, tmp_path / "uncut" / "work").wait() == 0
        seconds = time.monotonic() - started
        expected = contents(tmp_path / "uncut" / "work" / "out")
        assert asked() == REPORTS
        while kills < KILLS:
            number += 1
            folder = tmp_path / str(number) / "work"
            for _ in range(dice.randint(1, 3)):
                before, earlier = kept(folder), asked()
                child, tree = start(server, folder), dice.random() < 0.5
                time.sleep(dice.uniform(0, seconds))
                killed = child.kill(tree)
                rows = kept(folder)
                assert [row for row in rows if row in before] == before, "an answer was lost or changed"
                assert asked() - earlier <= len(rows) - len(before) + AT_ONCE, "more than was in flight"
                if killed:
                    kills += 1
                    part = "the whole tree" if tree else "the process alone"
                    attacks(f"summarize, a language model: killed, {part} at a random moment")
            before, earlier = kept(folder), asked()
            assert start(server, folder).wait() == 0
            assert asked() - earlier == REPORTS - len(before)
            assert contents(folder / "out") == expected
