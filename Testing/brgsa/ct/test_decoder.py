"""The process that decodes DICOM: it may die of a file, is replaced, and never outlives the one that asks."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from process_table import marked, new_mark
from waiting import wait
from worker_talk import Talk

from brgsa.ct import decoder
from brgsa.ct.decoder import Decoder, ReaderDiedError
from brgsa.ct.volume import read_ct
from brgsa.errors import InputError, OutOfMemoryError, SetupError

DEPTHS = [0.0, 1.0, 2.0, 3.0]
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture
def fresh(monkeypatch):
    """A decoder that no other test has used."""
    made = Decoder()
    for module in ("dicom", "dicom_header"):
        monkeypatch.setattr(f"brgsa.ct.{module}.DECODER", made)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def dies_at(made: Decoder, question: str, monkeypatch) -> None:
    """Let the process die, as of a file that makes native code crash, as soon as it is asked this the first time."""
    ask, done = made._ask, []

    def asking(asked, *args, **more):
        if asked == question and not done:
            done.append(asked)
            process = made._started()
            os.kill(process.pid, signal.SIGSTOP)  # so that it dies with the question in its hands

            def kill():
                os.kill(process.pid, signal.SIGSEGV)
                os.kill(process.pid, signal.SIGCONT)

            threading.Timer(0.1, kill).start()
        return ask(asked, *args, **more)

    monkeypatch.setattr(made, "_ask", asking)


def test_one_process_reads_all_files(tmp_path, save_series, fresh):
    for name in ("a", "b"):
        volume = read_ct(save_series(tmp_path / name, DEPTHS))
        assert volume.voxels.shape[2] == 4
        process = fresh.process
    assert read_ct(tmp_path / "a").voxels.shape == volume.voxels.shape
    assert fresh.process is process


@needs_signals
@pytest.mark.parametrize("question", ["header", "slices"])
def test_a_file_that_kills_the_process_is_a_failed_case_and_the_next_one_is_read(
    tmp_path, save_series, fresh, monkeypatch, question
):
    folder = save_series(tmp_path, DEPTHS)
    dies_at(fresh, question, monkeypatch)
    with pytest.raises(InputError, match="damaged") as caught:
        read_ct(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_ct(folder).voxels.shape[2] == 4


@needs_signals
def test_the_worker_of_the_panel_survives_it(tmp_path, save_series, fresh, monkeypatch):
    folder = save_series(tmp_path, DEPTHS)
    dies_at(fresh, "slices", monkeypatch)
    talk = Talk()
    failed, _ = talk.ask(id=1, request="check", path=str(folder))
    assert (failed["event"], failed["code"]) == ("error", "input")
    answered, _ = talk.ask(id=2, request="check", path=str(folder))
    assert answered["event"] == "result"
    talk.end()


@needs_signals
@pytest.mark.parametrize("command", ["check", "score"])
def test_a_command_goes_on_behind_such_a_file(
    tmp_path, save_series, torso_path, fresh, monkeypatch, in_process, command
):
    folder = save_series(tmp_path / "series", DEPTHS)
    dies_at(fresh, "header", monkeypatch)
    options = ("--out", tmp_path / "out") if command == "score" else ()
    done = in_process(command, folder, torso_path, *options)
    assert done.returncode == 6
    if command == "check":
        assert "slice000.dcm: what read it ended (exit code -11)" in done.stdout
    else:
        assert "slice000.dcm: what read it ended (exit code -11)" in (tmp_path / "out" / "failures.csv").read_text()
        assert "torso" in (tmp_path / "out" / "scores.csv").read_text()


@needs_signals
def test_the_signal_is_named(tmp_path, save_series, fresh, monkeypatch):
    folder = save_series(tmp_path, DEPTHS)
    dies_at(fresh, "header", monkeypatch)
    with pytest.raises(ReaderDiedError, match=r"exit code -11"):
        read_ct(folder)


@needs_signals
def test_a_process_that_gives_no_answer_is_ended(tmp_path, save_series, fresh, monkeypatch):
    folder = save_series(tmp_path, DEPTHS)
    read_ct(folder)
    monkeypatch.setattr(decoder, "_LONGEST", 0.0)
    os.kill(fresh.process.pid, signal.SIGSTOP)
    with pytest.raises(ReaderDiedError, match="no answer"):
        read_ct(folder)
    monkeypatch.undo()


def test_a_process_that_died_between_two_files_is_replaced(tmp_path, save_series, fresh):
    folder = save_series(tmp_path, DEPTHS)
    read_ct(folder)
    fresh.process.kill()
    fresh.process.wait()
    assert read_ct(folder).voxels.shape[2] == 4


def test_a_process_that_cannot_be_started_is_the_installations_fault(tmp_path, save_series, fresh, monkeypatch):
    folder = save_series(tmp_path, DEPTHS)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="does not start"):
        read_ct(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone limits the memory of a process")
def test_slices_that_take_too_much_memory_are_refused(tmp_path, save_dicom, fresh, monkeypatch):
    for number in range(4):
        save_dicom(tmp_path / f"{number}.dcm", np.zeros((2000, 2000), np.int16), (0, 0, number))
    monkeypatch.setattr(decoder, "_MEMORY", 30_000_000)
    with pytest.raises(OutOfMemoryError, match="more memory") as caught:
        read_ct(tmp_path)
    assert caught.value.exit_code == 5
    monkeypatch.undo()
    assert read_ct(tmp_path).voxels.shape == (2000, 2000, 4)


def test_paths_are_those_of_the_asking_process(tmp_path, save_series, fresh, monkeypatch):
    read_ct(save_series(tmp_path / "a", DEPTHS))
    monkeypatch.chdir(tmp_path)
    assert read_ct("a").voxels.shape[2] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_the_process_ends_when_the_asking_one_is_killed(tmp_path, save_series):
    folder = save_series(tmp_path, DEPTHS)
    code = (
        "import sys, time; from brgsa.ct.volume import read_ct; from brgsa.ct.decoder import DECODER\n"
        "read_ct(sys.argv[1]); print(DECODER.process.pid, flush=True); time.sleep(600)"
    )
    mark = new_mark()
    asking = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | mark | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    process = int(asking.stdout.readline())
    os.kill(process, signal.SIGSTOP)  # it cannot notice anything by itself
    asking.kill()
    asking.communicate()
    wait(lambda: not marked(mark))
