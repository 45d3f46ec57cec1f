"""Files appear whole, and their text is the same on every system."""

import json
import os

import pytest

from brgsa.errors import BrgSAError
from brgsa.files import atomic_open, write_csv, write_json


def test_a_name_in_another_encoding_is_written_and_comes_back_from_json(tmp_path):
    name = os.fsdecode(b"M\xfcller") if os.name == "posix" else "M\udcfcller"
    write_json(tmp_path / "a.json", {"path": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": name}
    write_csv(tmp_path / "a.csv", ["path"], [[name]])
    assert (tmp_path / "a.csv").read_bytes() == b"path\nM\\udcfcller\n"


def test_lines_end_in_the_same_way_on_every_system(tmp_path):
    write_json(tmp_path / "a.json", [1])
    assert (tmp_path / "a.json").read_bytes() == b"[\n  1\n]\n"


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_open(tmp_path / "a.txt") as file:
        file.write("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BrgSAError, match="cannot write"), atomic_open(tmp_path / "file" / "a.txt"):
        pass
