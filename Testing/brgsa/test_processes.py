"""Processes that work for another one end with it, whatever they are doing and however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_table import marked, new_mark
from waiting import wait

from brgsa import processes
from brgsa.processes import kill_workers, process_pool

linux = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")

PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
if __name__ == "__main__":
    from test_processes import WORK
    from brgsa.processes import process_pool
    with process_pool(2) as pool:
        jobs = [pool.submit(WORK[sys.argv[2]], name) for name in sys.argv[3:]]
        time.sleep(3600)
"""


def sleep(started):
    Path(started).touch()
    time.sleep(3600)


def keep_the_lock(started):
    """Native code that lets no other thread of Python run, as readers of files have it."""
    Path(started).touch()
    sum(range(10**13))


def do_nothing(started):
    Path(started).touch()


WORK = {work.__name__: work for work in (sleep, keep_the_lock, do_nothing)}


@linux
@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path, work, how):
    script, started, mark = tmp_path / "parent.py", [tmp_path / "1", tmp_path / "2"], new_mark()
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), work, *map(str, started)],
        env=os.environ | mark | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    wait(lambda: all(path.exists() for path in started))
    assert len(marked(mark)) > 1
    parent.send_signal(how)
    parent.wait()
    wait(lambda: not marked(mark))


def heeds_ctrl_c(_):
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_workers_leave_ctrl_c_to_their_parent():
    with process_pool(1) as pool:
        assert not pool.submit(heeds_ctrl_c, 0).result()


def test_a_worker_is_started_as_it_was_asked_for(tmp_path):
    with process_pool(1, os.chdir, (str(tmp_path),)) as pool:
        assert pool.submit(os.getcwd).result() == str(tmp_path.resolve())


def test_work_in_hand_can_be_ended_at_once(tmp_path):
    with process_pool(1) as pool:
        job = pool.submit(keep_the_lock, str(tmp_path / "started"))
        wait((tmp_path / "started").exists)
        kill_workers(pool)
    assert job.exception() is not None


def test_every_pool_of_the_project_is_of_this_kind():
    folders = [Path(processes.__file__).parents[1], Path(processes.__file__).parents[2] / "BrgSATraining"]
    made = ("ProcessPoolExecutor(", ".Process(", "Pool(", "DataLoader(", "os.fork", "mp.spawn")
    owner = Path(processes.__file__)
    found = {
        str(path): word
        for folder in folders
        for path in folder.rglob("*.py")
        for word in made
        if path != owner and word in path.read_text(encoding="utf-8").replace("ThreadPoolExecutor(", "")
    }
    assert not found
