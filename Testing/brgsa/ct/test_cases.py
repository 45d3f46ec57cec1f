"""Turning files, folders and tables into a list of cases."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brgsa.ct.cases import case_name, safe_name
from brgsa.ct.names import series_key
from brgsa.ct.volume import Case, find_cases, read_ct
from brgsa.errors import InputError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(cases):
    return [case.name for case in cases]


def test_a_tree_gives_every_image_and_dicom_folder_once(tmp_path, save_series):
    save_series(tmp_path / "b" / "series", [0.0, 1.0])
    save_series(tmp_path / "c", [0.0, 1.0])
    (tmp_path / "c" / "slice000.dcm").rename(tmp_path / "c" / "IM0000")
    (tmp_path / "c" / "slice001.dcm").rename(tmp_path / "c" / "IM0001")
    touch(tmp_path / "a.nii.gz", tmp_path / "b" / "x.NRRD", tmp_path / "b" / "y.mha", tmp_path / "b" / "notes.txt")
    touch(tmp_path / ".hidden.nii.gz", tmp_path / ".git" / "z.nii", tmp_path / "b" / "._y.mha")
    cases = find_cases([tmp_path])
    assert names(cases) == ["a", "x", "y", "series", "c"]
    assert cases[3].path == tmp_path / "b" / "series"
    assert cases[4].path == tmp_path / "c"


def test_links_to_files_and_folders_are_followed_once(tmp_path):
    touch(tmp_path / "store" / "a.nii.gz", tmp_path / "store" / "deep" / "b.nii.gz", tmp_path / "tree" / "c.nii.gz")
    (tmp_path / "tree" / "d.nii.gz").symlink_to(tmp_path / "store" / "a.nii.gz")
    (tmp_path / "tree" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "tree" / "again").symlink_to(tmp_path / "tree")
    assert names(find_cases([tmp_path / "tree"])) == ["c", "d", "a", "b"]


def test_a_link_to_a_scan_that_is_not_there_is_a_case_that_fails(tmp_path):
    touch(tmp_path / "tree" / "a.nii.gz")
    (tmp_path / "tree" / "b.nii.gz").symlink_to(tmp_path / "not-downloaded")
    cases = find_cases([tmp_path / "tree"])
    assert names(cases) == ["a", "b"]
    with pytest.raises(InputError, match=r"b\.nii\.gz: cannot be read"):
        read_ct(cases[1].path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_case_that_fails(tmp_path):
    touch(tmp_path / "tree" / "closed" / "a.nii.gz", tmp_path / "tree" / "b.nii.gz", tmp_path / "tree" / "c" / "IM1")
    for path in (tmp_path / "tree" / "closed", tmp_path / "tree" / "c" / "IM1"):
        path.chmod(0)
    cases = find_cases([tmp_path / "tree"])
    (tmp_path / "tree" / "closed").chmod(0o700)
    assert sorted(names(cases)) == ["b", "c", "closed"]


def test_the_state_of_a_folder_does_not_hang_on_a_broken_link(tmp_path):
    touch(tmp_path / "a.dcm")
    before = Case("", tmp_path).state()
    (tmp_path / "b.dcm").symlink_to(tmp_path / "nowhere")
    assert before and Case("", tmp_path).state() == before
    assert Case("", tmp_path / "b.dcm").state() is None


def test_a_scan_given_twice_comes_once(tmp_path):
    touch(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    (tmp_path / "c").mkdir()
    cases = find_cases([tmp_path / "b.nii.gz", tmp_path, tmp_path / "c" / ".." / "a.nii.gz"])
    assert names(cases) == ["b", "a"]


def test_all_slices_of_a_series_are_one_case(tmp_path, save_series):
    save_series(tmp_path / "thorax", [0.0, 1.0], "a", series="1.2.1")
    save_series(tmp_path / "thorax", [0.0, 1.0], "b", series="1.2.2")
    cases = find_cases(sorted((tmp_path / "thorax").iterdir()))
    assert [(case.path, case.series) for case in cases] == [
        (tmp_path / "thorax", series_key("1.2.1")),
        (tmp_path / "thorax", series_key("1.2.2")),
    ]
    assert len(set(names(cases))) == 2


def test_a_multi_frame_file_is_its_own_case(tmp_path, save_dicom):
    path = save_dicom(tmp_path / "frames.dcm", np.zeros((5, 10, 12), np.int16), None)
    assert find_cases([path]) == [Case("frames", path)]


def test_names_that_meet_take_their_parent_folders(tmp_path):
    touch(
        tmp_path / "p1" / "s1" / "ct.nii.gz", tmp_path / "p1" / "s2" / "ct.nii.gz", tmp_path / "p2" / "s1" / "ct.nii.gz"
    )
    touch(tmp_path / "p2" / "s1" / "other.nii.gz")
    cases = find_cases([tmp_path])
    assert names(cases) == ["p1_s1_ct", "s2_ct", "p2_s1_ct", "other"]


def test_names_that_differ_only_in_case_or_extension_stay_apart(tmp_path):
    touch(tmp_path / "a" / "CT.nii.gz", tmp_path / "b" / "ct.nii.gz", tmp_path / "b" / "ct.nrrd")
    found = names(find_cases([tmp_path]))
    assert len({name.casefold() for name in found}) == 3
    assert found == names(find_cases([tmp_path]))


def test_names_do_not_depend_on_the_order_of_the_inputs(tmp_path):
    touch(tmp_path / "a" / "ct.nii", tmp_path / "b" / "ct.nii", tmp_path / "c" / "x.nii")
    forward = {case.path: case.name for case in find_cases([tmp_path / "a", tmp_path / "b", tmp_path / "c"])}
    backward = {case.path: case.name for case in find_cases([tmp_path / "c", tmp_path / "b", tmp_path / "a"])}
    assert forward == backward


def test_a_table_gives_paths_beside_it_names_and_series(tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text(
        "\ufeffcase,path,series\nPatient A/1,scans/größe 1.nii.gz,\n,/data/dicom,1.2.3\n", encoding="utf-8"
    )
    assert find_cases([table]) == [
        Case("Patient_A_1", tmp_path / "scans" / "größe 1.nii.gz"),
        Case("dicom", tmp_path.__class__("/data/dicom"), "1.2.3"),
    ]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_as_spreadsheets_of_other_countries_write_it(tmp_path, mark):
    table = tmp_path / "cases.csv"
    table.write_bytes(f"path{mark}case\r\nx,1.nii{mark}a\r\n".encode("utf-8-sig"))
    assert find_cases([table]) == [Case("a", tmp_path / "x,1.nii")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column named path"),
        (b"file\nx.nii\n", r"no column named path \(its columns: file\)"),
        (b"path\n", "no rows"),
        (b"path,case\nx.nii,a\n,b\n", "line 3 has an empty path"),
        (b"path,case\nx.nii,a\ny.nii,A\n", "line 3 repeats the case A of line 2"),
        (b"path\n\xff\xfe\x00\n", "UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_its_line(tmp_path, content, words):
    table = tmp_path / "cases.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        find_cases([table])
    assert str(table) in str(caught.value)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.nii.*no such file"):
        find_cases([tmp_path / "none.nii"])


@pytest.mark.parametrize("name", ["x" * 300, "x\0y"])
def test_what_is_no_possible_path_is_named(name):
    with pytest.raises(InputError, match="no such file"):
        find_cases([name])


def test_a_folder_without_images_is_named(tmp_path):
    touch(tmp_path / "empty" / "notes.txt")
    with pytest.raises(InputError, match=r"empty.*holds no CT"):
        find_cases([tmp_path / "empty"])


@given(st.text(max_size=200))
def test_any_text_becomes_a_safe_name(text):
    name = safe_name(text)
    assert 0 < len(name) <= 81
    assert not set(name) & set('/\\:*?"<>| \n\t\0')
    assert not name.startswith(".")
    assert not name.endswith(".")
    assert name.lower() not in ("con", "nul", "com1")


def test_letters_of_all_scripts_stay_in_names():
    assert safe_name("Röntgen 胸部 (1)") == "Röntgen_胸部_1"
    assert safe_name("con.nii") == "con.nii_"


def test_the_masks_of_a_set_of_phantoms_are_no_scans(tmp_path):
    from brgsa_training.phantom.generate import Plan, generate
    from brgsa_training.phantom.grid import parse_grid

    out = tmp_path / "sets" / "one"
    generate(Plan(2, 0, parse_grid("coarse").shape, {"train": 1.0}, True), out, 1)
    volumes = sorted((out / "volumes").iterdir())
    assert list((out / "masks").rglob("*.nii.gz")) and len(volumes) == 2
    for folder in (out, tmp_path / "sets"):
        assert [case.path for case in find_cases([folder])] == volumes
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    shutil.copy(volumes[0], tmp_path / "mine" / "masks")
    assert len(find_cases([tmp_path / "mine"])) == 1  # a folder of somebody else's


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_header_that_leads_elsewhere_holds_nothing_up(tmp_path):
    for name in ("pipe", "pipe.csv", "pipe.nii.gz"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "scan.mhd").write_text("ObjectType = Image\nElementDataFile = pipe\n", encoding="utf-8")
    (tmp_path / "scan.nhdr").write_text("NRRD0004\ndata file: ../secret\n", encoding="utf-8")
    names = ["pipe", "pipe.nii.gz", "scan.mhd", "scan.nhdr"]
    cases = find_cases([tmp_path / name for name in names])
    assert [case.path.name for case in cases] == names
    for case in cases:
        assert case.has_changed_since(case.fingerprint()) is False
        with pytest.raises(InputError):
            read_ct(case.path)
    with pytest.raises(InputError, match="pipe or a device"):
        find_cases([tmp_path / "pipe.csv"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("valid_1_a_1.nii.gz", "valid_1_a_1"),
        ("/data/valid_1/valid_1_a_1.nii.gz", "valid_1_a_1"),
        ("C:\\scans\\Patient 7 (a).ima", "Patient_7_a"),
        (" Patient 7 (a).dicom ", "Patient_7_a"),
        ("Patient 7 (a)", "Patient_7_a"),
        ("Patient_7_a.npz", "Patient_7_a"),
        ("", ""),
    ],
)
def test_a_scan_has_one_name_however_a_table_writes_it(written, name):
    assert case_name(written) == name
    assert case_name(name) == name
    if name:
        assert case_name(Path("/somewhere") / written.strip().split("\\")[-1]) == name
