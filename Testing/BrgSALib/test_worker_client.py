"""The panel's end of the pipes against workers that are slow, silent, rude or dead."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import LONGEST_WAIT, wait

from BrgSALib.launch import EXTENSION_FOLDER, Launch, worker_launch
from BrgSALib.worker_client import ENDED, Limits, WorkerClient

STANDIN = Path(__file__).resolve().parents[1] / "standins" / "panel"
SCORE = {"scan": "a", "path": "x", "abnormalities": [{"name": "Emphysema"}]}


class Client:
    """A client with a faulty worker, and what it says."""

    def __init__(self, fault, clock=time.monotonic, **limits):
        self.log, self.ends, self.stages = [], [], []

        def launch():
            program = (sys.executable, str(STANDIN / "faulty_worker.py"), fault)
            return Launch(program, os.environ, str(EXTENSION_FOLDER))

        self.client = WorkerClient(launch, self.log.append, Limits(**limits), clock=clock)

    def ask(self, name="score", **values):
        return self.client.request(
            name,
            lambda values: self.ends.append(("done", values)),
            lambda code, message, more: self.ends.append((code, message)),
            lambda fraction, stage: self.stages.append(stage),
            **(values or SCORE),
        )

    def wait(self, until=None):
        wait(until or (lambda: self.ends), self.client.poll)


@pytest.fixture
def make():
    made = []

    def make(fault="nothing", **limits):
        made.append(Client(fault, **limits))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


def gone(pid):
    """Whether no process of this group is alive (a zombie that waits for its parent counts as gone)."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] not in "ZX":
            return False
    return True


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_a_request_is_answered_and_the_worker_stays_for_the_next(make):
    client = make()
    client.ask()
    client.wait()
    first = client.client.process_id
    client.ask("rescore")
    client.wait(lambda: len(client.ends) == 2)
    assert [end[0] for end in client.ends] == ["done", "done"]
    assert client.client.process_id == first


def test_rubbish_on_the_pipe_becomes_lines_of_the_log(make):
    client = make("prints rubbish")
    client.ask()
    client.wait()
    assert client.ends[0][0] == "done"
    client.wait(lambda: any("a library prints this" in line for line in client.log))
    assert sum("the worker printed:" in line for line in client.log) == 3


def test_answers_to_other_requests_are_ignored_but_logged(make):
    client = make("answers an old request")
    client.ask()
    client.wait()
    assert [end[0] for end in client.ends] == ["done"]
    assert sum("ignored from the worker" in line for line in client.log) == 2


def test_a_worker_that_dies_fails_its_requests_and_the_next_request_starts_another(make):
    client = make("dies")
    client.ask()
    client.wait()
    code, message = client.ends[0]
    assert code == ENDED and "signal 9" in message
    assert not client.client.running
    client.ask("weights/list", x=1)
    client.wait(lambda: len(client.ends) == 2)
    assert client.ends[1][0] == "done"


@linux
def test_a_worker_killed_between_two_requests_is_replaced(make):
    client = make()
    client.ask()
    client.wait()
    pid = client.client.process_id
    os.kill(pid, signal.SIGKILL)
    # its last thread has ended, so the system can tell; its parent need not have asked yet
    wait(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    client.ask()
    client.wait(lambda: len(client.ends) == 2)
    assert client.ends[1][0] == "done"


@pytest.mark.parametrize(
    ("fault", "limits", "part"),
    [
        ("never starts", {"start": 0.5}, "did not start"),
        ("hangs", {"silence": 1.0}, "did not answer"),
        ("speaks another version", {}, "version 99"),
    ],
)
def test_a_worker_that_cannot_be_used_is_ended_with_a_sentence(make, fault, limits, part):
    client = make(fault, **limits)
    client.ask()
    pid = client.client.process_id
    client.wait()
    assert client.ends[0][0] == ENDED and part in client.ends[0][1]
    client.wait(lambda: gone(pid))


def test_pings_keep_a_busy_worker_from_counting_as_silent(make):
    now = [0.0]
    client = make("does not heed cancel", clock=lambda: now[0], silence=60.0)
    client.ask()
    client.wait(lambda: any("stuck" in stage for stage in client.stages))
    while now[0] < 3 * 60:
        now[0] += 11
        client.wait(lambda: client.client._heard == now[0])
    assert client.client.running and not client.ends


def test_a_cancelled_request_ends_between_two_stages(make):
    client = make("never ends", cancel=LONGEST_WAIT)
    number = client.ask()
    client.wait(lambda: len(client.stages) > 3)
    client.client.cancel(number)
    client.wait()
    assert client.ends == [("cancelled", "cancelled")]
    assert client.client.running


@linux
def test_work_that_does_not_heed_cancel_is_killed_with_its_children(make):
    client = make("does not heed cancel")
    number = client.ask()
    client.wait(lambda: any("stuck" in stage for stage in client.stages))
    pid = client.client.process_id
    client.client.cancel(number)
    client.wait()
    client.wait(lambda: gone(pid))
    assert client.ends == [("cancelled", "cancelled")]


@linux
def test_closing_ends_the_process_and_what_it_started(make):
    client = make("does not heed cancel")
    client.ask()
    client.wait(lambda: any("stuck" in stage for stage in client.stages))
    pid = client.client.process_id
    client.client.close()
    client.wait(lambda: gone(pid))
    assert client.ends[0][0] == "cancelled"


@linux
def test_no_worker_outlives_a_killed_parent(tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from BrgSALib.launch import worker_launch; from BrgSALib.worker_client import WorkerClient\n"
        "client = WorkerClient(worker_launch)\n"
        "heard = []\n"
        "client.request('weights/list', heard.append, print)\n"
        "while not heard: client.poll(); time.sleep(0.01)\n"
        "print(client.process_id, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(EXTENSION_FOLDER)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    wait(lambda: gone(pid))


def test_a_missing_interpreter_is_named():
    with pytest.raises(FileNotFoundError, match=r"no-such-python.*Setup"):
        worker_launch("/nowhere/no-such-python")


def test_a_python_of_the_users_own_gets_none_of_slicers_variables():
    slicers = {"PYTHONHOME": "/slicer", "PYTHONPATH": "/slicer/lib", "HOME": "/home/x"}
    assert worker_launch("", slicers).environment["PYTHONHOME"] == "/slicer"
    other = worker_launch(sys.executable, slicers)
    assert not {"PYTHONHOME", "PYTHONPATH"} & set(other.environment)
    assert other.environment["HOME"] == "/home/x" and other.args[0] == sys.executable
