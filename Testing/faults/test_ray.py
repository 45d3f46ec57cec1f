"""Work that Ray spreads is killed and goes on; what Ray started ends with the command."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folder_contents import contents
from process_table import marked, new_mark
from waiting import wait

pytest.importorskip("ray", reason="Ray is not installed: pip install 'brgsa[cluster]'")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]
COMMANDS = {
    "score-on-ray": "score-on-ray {material}/scans --device cpu --abnormalities {material}/list.txt",
    "preprocess --ray": "preprocess folder {material}/scans --plan {material}/plan.json --ray",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_ray_that_is_killed_goes_on(name, material, tmp_path, attacks):
    arguments = COMMANDS[name].format(material=material).split()
    command, dice = [sys.executable, "-m", "brgsa_training.cli", *arguments, "--out"], random.Random(name)

    def start(out, mark):
        environment = os.environ | mark | {"BRGSA_CACHE": str(tmp_path / "cache")}
        return subprocess.Popen(
            [*command, str(out)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )

    def finish(out):
        mark = new_mark()
        process = start(out, mark)
        errors = process.communicate()[1]
        assert process.returncode == 0, errors[-2000:]
        wait(lambda: not marked(mark))
        return contents(out)

    started = time.monotonic()
    expected = finish(tmp_path / "uncut")
    seconds = time.monotonic() - started
    for number in range(3):
        mark, out = new_mark(), tmp_path / str(number)
        process = start(out, mark)
        time.sleep(dice.uniform(0.3, 1) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            attacks(f"{name}: the process alone at a random moment")
        wait(lambda mark=mark: not marked(mark))
        assert finish(out) == expected
