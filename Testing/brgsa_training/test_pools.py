"""Commands that share their work between processes leave none behind when they are killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_table import marked, new_mark
from waiting import wait

from brgsa_training.cli import main

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")

# What each writes when its workers are at work.
COMMANDS = {
    "generate": (["phantom", "generate", "--count", "5000", "--seed", "3", "--workers", "2"], "volumes/*.nii.gz"),
    "preprocess": (["preprocess", "folder", "{scans}", "--workers", "2"], "volumes/*"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_process_outlives_a_killed_command(tmp_path, name):
    scans, out, mark = tmp_path / "scans", tmp_path / "out", new_mark()
    assert main(["phantom", "generate", "--count", "60", "--workers", "1", "--out", str(scans)]) == 0
    arguments, made = COMMANDS[name]
    command = [
        sys.executable,
        "-m",
        "brgsa_training.cli",
        *(part.format(scans=scans / "volumes") for part in arguments),
    ]
    process = subprocess.Popen([*command, "--out", str(out)], env=os.environ | mark, stderr=subprocess.PIPE)
    wait(lambda: list(out.glob(made)) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    assert len(marked(mark)) > 2
    process.kill()
    process.wait()
    wait(lambda: not marked(mark))


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the command", "to all its processes"])
def test_a_command_that_a_cluster_ends_says_what_is_done_and_goes_on(tmp_path, send):
    out, mark = tmp_path / "out", new_mark()
    arguments = ["phantom", "generate", "--count", "120", "--seed", "3", "--workers", "2", "--out", str(out)]
    command = [sys.executable, "-m", "brgsa_training.cli", *arguments]
    process = subprocess.Popen(
        command, env=os.environ | mark, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait(lambda: len(list(out.glob("volumes/phantom-*.nii.gz"))) > 24 or process.poll() is not None)
    send(process.pid, signal.SIGTERM)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in errors, errors
    said = re.search(r"error: cancelled: (\d+) of 120 done; the same command goes on\n$", errors)
    assert said and 0 < int(said[1]) < 120, errors
    wait(lambda: not marked(mark))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("volumes/phantom-*.nii.gz")}
    assert main(arguments) == 0 and len(list(out.glob("volumes/phantom-*.nii.gz"))) == 120
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
