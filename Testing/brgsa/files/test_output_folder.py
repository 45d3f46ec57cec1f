"""An output folder is new, empty or ours; one process works in it; nothing is deleted that no list of ours names."""

import json
import subprocess
import sys

import pytest
from waiting import LONGEST_WAIT

from brgsa.abnormalities import AbnormalityList
from brgsa.commands.main import main
from brgsa.errors import BrgSAError, InputError, UsageError
from brgsa.files.output_folder import MARK, output_folder, remove_files, require_new_file, require_output

HOLD = """
import sys
from brgsa.files.output_folder import output_folder
with output_folder(sys.argv[1], "scores", *sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """A function that starts a process which holds the folder `out`, for a part or alone, until it is killed."""
    processes = []

    def start(*part):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "out"), *part]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(LONGEST_WAIT)


def test_a_new_folder_an_empty_one_and_one_of_the_same_kind_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    for name in ("new/deep", "empty", "new/deep"):
        with output_folder(tmp_path / name, "scores") as folder:
            assert json.loads((folder.path / MARK).read_text()) == {"kind": "scores"}


def test_a_folder_with_other_files_or_of_another_kind_is_refused_and_not_touched(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="holds other files and no scores"), output_folder(tmp_path, "scores"):
        pass
    with pytest.raises(UsageError, match="holds other files and no scores"):
        require_output(tmp_path, "scores")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with output_folder(tmp_path / "index", "index"):
        pass
    with pytest.raises(UsageError, match="holds index and no scores"), output_folder(tmp_path / "index", "scores"):
        pass
    with pytest.raises(UsageError, match="is a file"), output_folder(tmp_path / "mine.txt", "scores"):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"kind": 3}', b'{"kind": "scores", "made": [4]}', b"[" * 9999]
)
def test_a_damaged_mark_is_one_sentence(tmp_path, content):
    (tmp_path / MARK).write_bytes(content)
    with pytest.raises(InputError, match="is damaged"), output_folder(tmp_path, "scores"):
        pass


def test_a_second_process_is_refused_by_a_sentence_that_names_the_first(tmp_path, hold):
    process = hold()
    refused = rf"is in use: process {process.pid} on .*, since 20.* writes scores there"
    for _ in range(2):  # who is refused does not take the name away
        with pytest.raises(UsageError, match=refused), output_folder(tmp_path / "out", "scores"):
            pass
    assert (tmp_path / "out" / MARK).exists()


def test_a_part_that_ends_leaves_the_names_of_the_others(tmp_path, hold):
    process = hold(".1-of-2")
    with output_folder(tmp_path / "out", "scores", ".2-of-2"):
        pass
    with pytest.raises(UsageError, match=f"process {process.pid} "), output_folder(tmp_path / "out", "scores"):
        pass


def test_a_process_that_was_killed_holds_nothing(tmp_path, hold):
    process = hold()
    process.kill()
    process.wait(LONGEST_WAIT)
    with output_folder(tmp_path / "out", "scores"):
        pass


def test_parts_share_a_folder_that_a_whole_run_does_not_get(tmp_path, hold):
    hold(".1-of-2")
    with output_folder(tmp_path / "out", "scores", ".2-of-2"):
        pass
    for part in ("", ".1-of-2"):
        with pytest.raises(UsageError, match="is in use"), output_folder(tmp_path / "out", "scores", part):
            pass


def test_a_whole_run_keeps_parts_out(tmp_path, hold):
    hold()
    with pytest.raises(UsageError, match="is in use"), output_folder(tmp_path / "out", "scores", ".1-of-2"):
        pass


def test_only_files_of_the_list_are_removed_and_folders_only_when_they_are_empty(tmp_path):
    with output_folder(tmp_path / "out", "index") as folder:
        folder.will_make(["data/a.npy", "data/b.npy", "more/c.npy"])
        for name in ("data/a.npy", "data/b.npy", "data/mine.npy", "more/c.npy", "mine.npy"):
            (folder.path / name).parent.mkdir(exist_ok=True)
            (folder.path / name).touch()
        folder.remove(["data/a.npy", "data/b.npy", "data/mine.npy", "more/c.npy", "mine.npy"])
        left = sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*.npy"))
        assert left == ["data/mine.npy", "mine.npy"] and folder.made() == set()
        assert not (folder.path / "more").exists()


def test_a_name_that_leads_out_of_the_folder_removes_nothing(tmp_path):
    (tmp_path / "mine.txt").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    remove_files(tmp_path / "out", ["../mine.txt", str(tmp_path / "mine.txt"), "link/mine.txt"])
    assert (tmp_path / "mine.txt").exists()


def test_no_file_is_written_over_by_convert_or_export(tmp_path, capsys):
    mine = tmp_path / "list.json"
    mine.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        require_new_file(mine)
    assert main(["abnormalities", "convert", "Lung nodule;", str(mine)]) == UsageError.exit_code
    assert main(["weights", "export-bundle", "phantom", str(mine)]) == UsageError.exit_code
    assert mine.read_text() == "mine" and capsys.readouterr().err.count("exists. Choose another name") == 2
    assert main(["abnormalities", "convert", "Lung nodule;", str(tmp_path / "new.json")]) == 0
    assert AbnormalityList.parse(str(tmp_path / "new.json")).names == ("Lung nodule",)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BrgSAError, match="cannot write"), output_folder(tmp_path / "file" / "out", "scores"):
        pass
