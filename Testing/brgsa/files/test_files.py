"""Files appear whole, and their text is the same on every system."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait

from brgsa import files
from brgsa.errors import BrgSAError
from brgsa.files import CSVWriter, atomic_open, csv_dicts, csv_reader, write_csv, write_json

ROOT = Path(__file__).resolve().parents[3]
FORMULAS = ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "-", "'=1", "''@x"]


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


def read_back(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv_reader(file))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_looks_like_a_formula_is_text_to_a_spreadsheet_and_comes_back(tmp_path, text):
    write_csv(tmp_path / "a.csv", ["case", "path"], [[text, "x"]])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        (shown, _) = list(csv.reader(file))[1]
    assert shown == f"'{text}"
    assert read_back(tmp_path / "a.csv") == [["case", "path"], [text, "x"]]
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv_dicts(file)) == [{"case": text, "path": "x"}]


def test_numbers_and_ordinary_texts_are_written_as_they_are(tmp_path):
    cells = [-1, -0.5, "-1", "+3.5", "-1e-05", "-.5", "'tis", "a=b", "", None, True]
    write_csv(tmp_path / "a.csv", ["x"] * len(cells), [cells])
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "-1,-0.5,-1,+3.5,-1e-05,-.5,'tis,a=b,,,True"


def test_a_lone_carriage_return_stays_inside_its_cell(tmp_path):
    write_csv(tmp_path / "a.csv", ["x", "y"], [["one\r=two", "three"]])
    assert (tmp_path / "a.csv").read_bytes() == b'x,y\n"one\r=two",three\n'
    assert read_back(tmp_path / "a.csv")[1] == ["one\r=two", "three"]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=4))
def test_any_row_comes_back(tmp_path_factory, row):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        CSVWriter(file).writerow(row)
    assert read_back(path) == [row]


def test_tables_are_written_and_read_in_one_place():
    for folder in ("BrgSAExtension", "BrgSATraining"):
        for path in (ROOT / folder).rglob("*.py"):
            used = re.findall(r"\bcsv\.(?:writer|reader|DictWriter|DictReader)\(", path.read_text(encoding="utf-8"))
            assert not used or path == ROOT / "BrgSAExtension" / "brgsa" / "files" / "__init__.py", path


WRITER = """
import sys, time
from pathlib import Path
from brgsa.files import atomic_folder, atomic_path
make, target, started = {"file": atomic_path, "folder": atomic_folder}[sys.argv[1]], *map(Path, sys.argv[2:])
with make(target) as temporary:
    (temporary if sys.argv[1] == "file" else temporary / "inside").write_text("half")
    started.touch()
    time.sleep(3600)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows removes left files only")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_half_written_is_removed_and_what_is_being_written_is_not(tmp_path, kind):
    out = tmp_path / "out"
    foreign = [out / name for name in (".mine.part", ".abcdefgh.part.json", ".brgsa-notes", ".brgsa-mine.part")]
    out.mkdir()
    for path in foreign:
        path.write_text("mine")
    (out / ".brgsa-abcdefgh.part").symlink_to(tmp_path)
    command = [sys.executable, "-c", WRITER, kind, out / "target", tmp_path / "started"]
    writer = subprocess.Popen(command)
    wait((tmp_path / "started").exists)
    (half,) = set(out.iterdir()) - {*foreign, out / ".brgsa-abcdefgh.part"}
    files._looked_into.clear()
    write_json(out / "a.json", 1)
    assert half.exists()
    writer.kill()
    writer.wait()
    files._looked_into.clear()
    write_json(out / "a.json", 1)
    assert not half.exists() and not (out / "target").exists()
    assert all(path.read_text() == "mine" for path in foreign) and (out / ".brgsa-abcdefgh.part").is_symlink()


def test_windows_leaves_folders_because_nothing_says_whether_one_is_being_written(tmp_path, monkeypatch):
    class Windows:
        name = "nt"

        def __getattr__(self, name):
            return getattr(os, name)

    folder = tmp_path / ".brgsa-abcdefgh.part"
    folder.mkdir()
    (folder / "inside").touch()
    monkeypatch.setattr(files, "os", Windows())
    files._remove_left_parts(tmp_path)
    assert (folder / "inside").exists()
