"""A full disk, a folder that cannot be written and a second run in the same folder: each a sentence, and a rerun ends.

Disks are small file systems in memory, which only root may mount.
"""

import signal
import subprocess
from pathlib import Path

import pytest
from attacked import COMMANDS, Round
from folder_contents import contents, rows
from killing import before_change

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc"),
]


@pytest.fixture
def disk():
    """disk(path, options) mounts a file system in memory, or gives it other options."""
    mounted = []

    def mount(path: Path, options: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        options = f"remount,{options}" if path in mounted else options
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a file system")
        mounted.append(path)

    yield mount
    for path in set(mounted):
        subprocess.run(["umount", "-l", str(path)], check=True)


def sentence(one: Round) -> str:
    """The one line that says why the command failed."""
    text = one.log()
    assert "Traceback" not in text, text[-2000:]
    errors = [line for line in text.splitlines() if ": error: " in line]
    assert len(errors) == 1, text[-2000:]
    return errors[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_a_sentence_and_a_rerun_ends(name, uncut, material, tmp_path, disk, attacks):
    expected, _, _ = uncut(name)
    one, whole = Round(COMMANDS[name], material, tmp_path / "full"), Round(COMMANDS[name], material, tmp_path / "whole")
    assert whole.start().wait() == 0
    blocks = sum(1 + path.stat().st_size // 4096 for path in whole.out.rglob("*") if path.is_file())
    disk(one.out, f"size={4096 * max(2, blocks // 2)}")
    assert one.start().wait() not in (0, 70)
    attacks(f"{name}: full disk")
    assert "Free some space" in sentence(one) or "disk is full" in sentence(one)
    disk(one.out, "size=100m")
    assert one.finish() == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_folder_is_a_sentence_and_a_rerun_ends(name, uncut, material, tmp_path, disk, attacks):
    expected, _, _ = uncut(name)
    one = Round(COMMANDS[name], material, tmp_path / "one")
    disk(one.out, "size=100m,ro")
    assert one.start().wait() not in (0, 70)
    attacks(f"{name}: read-only folder")
    assert "out" in sentence(one)
    disk(one.out, "size=100m,rw")
    assert one.finish() == expected


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("name", COMMANDS)
def test_of_two_runs_in_one_folder_the_second_is_refused_and_can_be_done_later(
    name, place, uncut, material, tmp_path, attacks
):
    """The first is held before a third or two thirds of its changes of files."""
    expected, count, _ = uncut(name)
    command, one = COMMANDS[name], Round(COMMANDS[name], material, tmp_path / "one")
    first = one.start(before_change(count * place // 3, one.out, signal.SIGSTOP))
    first.wait_until_stopped()
    assert one.start_other().code() == 2
    attacks(f"{name}: a second run in the folder")
    assert f"is in use: process {first.pid} on" in sentence(one)
    one.check()
    first.go_on()
    assert first.wait() == 0
    one.check()
    assert contents(one.out, one.foreign) == expected
    before = rows(one.out)
    code = one.start_other().wait()
    one.check()
    if command.refused:
        assert code == 2 and command.refused in one.log().splitlines()[-1]
        assert contents(one.out, one.foreign) == expected
    else:
        alone = Round(command, material, tmp_path / "alone")
        assert (code, alone.start().wait(), alone.start_other().wait()) == (0, 0, 0)
        assert contents(one.out, one.foreign) == contents(alone.out, alone.foreign)
        after = rows(one.out)
        assert all(before[name] <= after[name] for name in before), "rows of the first run are gone"
