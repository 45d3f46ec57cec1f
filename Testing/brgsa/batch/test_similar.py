"""Similar cases: the right scans in the right order, nothing embedded twice, an index that is never half-written."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import LONGEST_WAIT, wait

from brgsa.abnormalities import AbnormalityList
from brgsa.batch.embed import embed_cases
from brgsa.batch.index import index_cases, write_index
from brgsa.batch.search import ScanIndex, similar_to_scan, similar_to_text
from brgsa.commands.main import main
from brgsa.ct.cases import find_cases
from brgsa.errors import InputError, UsageError
from brgsa.files.output_folder import output_folder
from brgsa.scoring import Scorer

TEXT = "There is a pleural effusion"


@pytest.fixture(scope="module")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu", precision="fp32", cache=False)


@pytest.fixture
def scans(torso_paths):
    """The folder of three scans."""
    return torso_paths[0].parent


@pytest.fixture
def index(scorer, scans, tmp_path):
    folder = tmp_path / "index"
    index_cases(scorer, find_cases([scans]), folder)
    return folder


@pytest.fixture
def run(in_process):
    """The command in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        done = in_process(*arguments)
        return done.returncode, done.stdout, done.stderr

    return call


def no_work(monkeypatch, scorer):
    monkeypatch.setattr(scorer, "embed", lambda *a, **k: pytest.fail("a scan was embedded again"))


def names(index):
    return [name for name, *_ in index.scans]


def made(folder, direct, final=None):
    """An index of these rows without any scan files; row n is case-n."""
    direct = np.asarray(direct, np.float32)
    scans = [(f"case-{n:05d}", f"/nowhere/{n}.nii", "", "") for n in range(len(direct))]
    about = {"weights": "phantom", "weights_checksum": "0" * 64, "embedding_size": direct.shape[1]}
    with output_folder(folder, "index") as held:
        write_index(held, about, scans, [(direct, direct if final is None else final)])
    return ScanIndex.open(folder)


def unit_rows(count, width, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- the answers


def test_a_scan_finds_the_others_by_cosine_and_not_itself(scorer, scans, index):
    opened = ScanIndex.open(index)
    query = find_cases([scans / "case1.nii.gz"])[0]
    hits, own = similar_to_scan(opened, scorer, query, top=5)
    vectors = {n: scorer.embed(scans / f"case{n}.nii.gz").image.astype(np.float64) for n in range(3)}
    expected = {
        f"case{n}": vectors[n] @ vectors[1] / np.linalg.norm(vectors[n]) / np.linalg.norm(vectors[1]) for n in (0, 2)
    }
    assert [opened.case(row).name for row in own] == ["case1"]
    assert [hit.case.name for hit in hits] == sorted(expected, key=lambda name: -expected[name])
    assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-6)


def test_words_find_scans_by_the_very_score_of_brgsa_score(scorer, scans, index):
    hits = similar_to_text(ScanIndex.open(index), scorer, TEXT, top=3)
    one = AbnormalityList.from_names(["a pleural effusion"])
    expected = {case.name: scorer.score(case.path, one).scores[0].score for case in find_cases([scans])}
    assert {hit.case.name: hit.score for hit in hits} == pytest.approx(expected, abs=1e-6)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_words_are_cleaned_as_prompts_are(scorer, index):
    opened = ScanIndex.open(index)
    plain = similar_to_text(opened, scorer, "there is a pleural effusion")
    assert similar_to_text(opened, scorer, "There is a PLEURAL effusion!") == plain


def test_words_that_the_cleaning_erases_are_refused(scorer, index):
    with pytest.raises(UsageError, match="There is a pleural effusion"):
        similar_to_text(ScanIndex.open(index), scorer, "Pneumonia")


def test_two_formats_of_one_real_scan_find_each_other_first(scorer, real_ct, tmp_path):
    files = ["cip_ct64.nrrd", "cip_ct64_PSR.nii.gz", "nonchest_totalseg_abdomen.nii.gz", "pyradiomics_lung1.nrrd"]
    index_cases(scorer, find_cases([real_ct / name for name in files]), tmp_path / "index", force=True)
    query = find_cases([real_ct / "cip_ct64.nrrd"])[0]
    hits, own = similar_to_scan(ScanIndex.open(tmp_path / "index"), scorer, query, top=3)
    assert len(own) == 1 and hits[0].case.name == "cip_ct64_PSR"
    assert hits[0].score == pytest.approx(1, abs=1e-6) and hits[-1].case.name == "nonchest_totalseg_abdomen"


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 60), width=st.integers(1, 24), top=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_the_search_is_exact_and_its_ties_go_by_name(tmp_path_factory, count, width, top, seed):
    rng = np.random.default_rng(seed)
    rows = unit_rows(count, width, seed)[rng.integers(0, count, count)]  # with repeats, which tie
    index = made(tmp_path_factory.mktemp("made") / "index", rows)
    query = rng.standard_normal(width)
    left_out = {int(row) for row in rng.integers(0, count, 2)}
    stored = index.matrices["direct"].astype(np.float64)
    exact = (stored * (query / np.linalg.norm(query))).sum(axis=1)
    expected = sorted((row for row in range(count) if row not in left_out), key=lambda row: (-exact[row], row))[:top]
    hits = index.nearest("direct", query, top, left_out)
    assert [hit.row for hit in hits] == expected
    assert [hit.score for hit in hits] == list(exact[expected])


def test_a_search_goes_through_every_part_of_a_large_matrix(tmp_path):
    rows = unit_rows(40_000, 8)
    index = made(tmp_path / "index", rows)
    for row in (0, 16_383, 16_384, 39_999):
        assert index.nearest("final", rows[row], 1)[0].row == row


# --- incremental


def test_a_rerun_embeds_nothing_and_changes_nothing(scorer, scans, index, monkeypatch):
    before = {path.name: path.read_bytes() for path in index.rglob("*.*") if path.is_file()}
    no_work(monkeypatch, scorer)
    result = index_cases(scorer, find_cases([scans]), index)
    assert (result.added, result.changed, result.unchanged, result.scans) == (0, 0, 3, 3)
    assert {path.name: path.read_bytes() for path in index.rglob("*.*") if path.is_file()} == before


def test_new_scans_join_those_of_other_folders(scorer, index, torso_path, tmp_path):
    before = ScanIndex.open(index).matrices["direct"].copy()
    result = index_cases(scorer, find_cases([torso_path]), index)
    opened = ScanIndex.open(index)
    assert (result.added, result.scans, result.vanished) == (1, 4, ())
    assert names(opened) == ["case0", "case1", "case2", "torso"]
    np.testing.assert_array_equal(opened.matrices["direct"][:3], before)
    assert [path.name for path in index.glob("data-*")] == ["data-00002"] and not (index / "unfinished").exists()


def test_a_scan_that_changed_is_embedded_again_and_keeps_its_name(scorer, scans, index, torso_path):
    shutil.copy(torso_path, scans / "case1.nii.gz")
    result = index_cases(scorer, find_cases([scans]), index)
    assert (result.added, result.changed, result.unchanged, result.scans) == (0, 1, 2, 3)
    opened = ScanIndex.open(index)
    row = names(opened).index("case1")
    vector = scorer.embed(torso_path).image
    np.testing.assert_allclose(opened.matrices["direct"][row], vector / np.linalg.norm(vector), atol=1e-6)


def test_scans_of_one_name_in_two_folders_are_told_apart(scorer, scans, index, tmp_path):
    other = tmp_path / "other" / "case0.nii.gz"
    other.parent.mkdir()
    shutil.copy(scans / "case1.nii.gz", other)
    assert index_cases(scorer, find_cases([other]), index).added == 1
    assert index_cases(scorer, find_cases([other]), index).unchanged == 1
    found = names(ScanIndex.open(index))
    assert len(set(found)) == 4 and found[3].startswith("case0-")


def test_vanished_scans_are_reported_and_stay_until_asked_away(scorer, scans, index, run):
    (scans / "case2.nii.gz").unlink()
    code, out, err = run("index", scans, "--out", index, "--device", "cpu", "--precision", "fp32")
    assert code == 0 and "0 added, 0 changed, 0 moved, 2 unchanged, 0 refused, 0 failed. 3 scans" in out
    assert "1 scans are no longer where they were" in err and "case2" in err
    code, out, _ = run("similar", scans / "case0.nii.gz", "--index", index)
    assert code == 0 and "case2.nii.gz (missing)" in out
    result = index_cases(scorer, find_cases([scans]), index, remove_vanished=True)
    assert result.scans == 2 and names(ScanIndex.open(index)) == ["case0", "case1"]


def test_a_scan_that_moved_keeps_one_row_under_its_new_path(scorer, scans, index, tmp_path):
    moved = tmp_path / "archive" / "one.nii.gz"
    moved.parent.mkdir()
    (scans / "case1.nii.gz").rename(moved)
    result = index_cases(scorer, find_cases([scans, moved]), index)
    assert [path.name for path in result.moved] == ["case1.nii.gz"] and (result.scans, result.vanished) == (3, ())
    assert str(moved) in [path for _, path, *_ in ScanIndex.open(index).scans]


def test_an_index_that_was_moved_still_works(scorer, scans, index, tmp_path):
    elsewhere = index.rename(tmp_path / "elsewhere")
    assert len(similar_to_text(ScanIndex.open(elsewhere), scorer, TEXT)) == 3


def test_a_bad_scan_is_listed_and_the_rest_is_indexed(scans, tmp_path, run):
    (scans / "case1.nii.gz").write_bytes(b"broken")
    index = tmp_path / "index"
    code, out, err = run("index", scans, "--out", index)
    assert code == 6 and "1 of 3 cases failed" in err.splitlines()[-1] and "2 scans in" in out
    (failure,) = csv.DictReader((index / "failures.csv").open(newline=""))
    assert failure["case"] == "case1" and failure["code"] == "3"
    assert names(ScanIndex.open(index)) == ["case0", "case2"]


def test_one_bad_scan_alone_keeps_its_code_and_leaves_no_index(tmp_path, run):
    (tmp_path / "bad.nii.gz").write_bytes(b"broken")
    code, _, err = run("index", tmp_path / "bad.nii.gz", "--out", tmp_path / "index")
    assert code == 3 and "bad.nii.gz" in err.splitlines()[-1]
    assert run("similar", "--text", TEXT, "--index", tmp_path / "index")[0] == 3


def test_an_interrupted_run_goes_on_where_it_stopped(scorer, scans, tmp_path, monkeypatch):
    index, embed, done = tmp_path / "index", scorer.embed, []

    def stop_at_the_third(path, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        return embed(path, **options)

    monkeypatch.setattr(scorer, "embed", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        index_cases(scorer, find_cases([scans]), index)
    assert not (index / "index.json").exists()
    monkeypatch.setattr(scorer, "embed", lambda path, **options: done.append(path) or embed(path, **options))
    result = index_cases(scorer, find_cases([scans]), index)
    assert (result.added, result.batch.done, result.batch.resumed, len(done)) == (3, 1, 2, 3)


def test_a_scan_that_changed_after_the_interruption_is_not_taken_from_before(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    embed_cases(scorer, find_cases(torso_paths), out)
    shutil.copy(torso_paths[0], torso_paths[1])
    assert embed_cases(scorer, find_cases(torso_paths), out).done == 1


def test_an_interruption_while_writing_leaves_the_old_index(scorer, index, torso_path, monkeypatch):
    before = (index / "index.json").read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("brgsa.batch.index.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        index_cases(scorer, find_cases([torso_path]), index)
    assert (index / "index.json").read_bytes() == before and len(ScanIndex.open(index)) == 3
    monkeypatch.undo()
    no_work(monkeypatch, scorer)
    assert index_cases(scorer, find_cases([torso_path]), index).scans == 4
    assert len(list(index.glob("data-*"))) == 1


def test_a_kill_before_the_first_data_folder_is_there_loses_nothing(scorer, scans, tmp_path, monkeypatch):
    """The next run announces a folder of the same name, and keeps it."""
    index = tmp_path / "index"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("brgsa.batch.index.atomic_folder", stop)
    with pytest.raises(KeyboardInterrupt):
        index_cases(scorer, find_cases([scans]), index)
    monkeypatch.undo()
    index_cases(scorer, find_cases([scans]), index)
    assert len(ScanIndex.open(index).scans) == 3


def test_a_kill_after_the_index_was_written_leaves_nothing_for_ever(scorer, scans, tmp_path, monkeypatch):
    index = tmp_path / "index"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("brgsa.batch.index._remove_unfinished", stop)
    with pytest.raises(KeyboardInterrupt):
        index_cases(scorer, find_cases([scans]), index)
    assert len(ScanIndex.open(index).scans) == 3 and (index / "unfinished").exists()
    monkeypatch.undo()
    index_cases(scorer, find_cases([scans]), index)
    assert not (index / "unfinished").exists()


@pytest.mark.slow
def test_control_c_is_said_in_words_and_code_130(tmp_path, torso_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(60):
        (scans / f"scan{number:02d}.nii.gz").symlink_to(torso_path)
    command = [sys.executable, "-m", "brgsa", "index", str(scans), "--out", str(tmp_path / "index")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait(lambda: list(tmp_path.glob("index/unfinished/embeddings/*.npz")) or process.poll() is not None)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 130 and "the same command goes on" in err and "Traceback" not in err
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert len(ScanIndex.open(tmp_path / "index")) == 60


# --- the command line


def test_the_table_and_the_json_say_the_same(scans, index, run):
    code, out, _ = run("similar", scans / "case0.nii.gz", "--index", index, "--top", "1")
    assert code == 0 and "note: the scan itself is in the index as case0 and was left out" in out
    code, text, _ = run("similar", scans / "case0.nii.gz", "--index", index, "--top", "1", "--json")
    content = json.loads(text)
    assert code == 0 and content["left_out"] == ["case0"] and content["scans"] == 3 and content["score"] == "direct"
    (hit,) = content["hits"]
    assert hit["case"] in out and f"{hit['score']:+.4f}" in out and Path(hit["path"]).exists()


def test_a_query_that_is_no_chest_is_answered_by_force_only(index, real_ct, run):
    query = ("similar", real_ct / "nonchest_totalseg_abdomen.nii.gz", "--index", index)
    code, _, err = run(*query)
    assert code == 3 and "refused: not-chest" in err
    code, out, _ = run(*query, "--force")
    assert code == 0 and "note: forced: " in out and "note: error: " in out


def test_a_scan_that_is_no_chest_is_put_into_an_index_by_force_only_and_marked(scorer, scans, real_ct, tmp_path, run):
    place, abdomen = tmp_path / "index", real_ct / "nonchest_totalseg_abdomen.nii.gz"
    code, out, err = run("index", scans, abdomen, "--out", place, "--device", "cpu")
    assert code == 6 and "1 refused, 0 failed. 3 scans" in out and "refused: not-chest" in err
    assert "refused: not-chest" in (place / "failures.csv").read_text()
    code, out, _ = run("index", abdomen, "--out", place, "--device", "cpu", "--force")
    assert code == 0 and "4 scans" in out
    assert run("index", scans, abdomen, "--out", place, "--device", "cpu")[0] == 0  # what is in it stays
    (scans / "case0.nii.gz").unlink()
    index_cases(scorer, find_cases([scans]), place, remove_vanished=True)
    code, out, _ = run("similar", "--text", "There is a pleural effusion", "--index", place)
    assert code == 0 and [line.split()[2] for line in out.splitlines() if "(forced)" in line] == [
        "nonchest_totalseg_abdomen"
    ]


def test_more_than_there_are_gives_all(scans, index, run):
    code, out, _ = run("similar", "--text", TEXT, "--index", index, "--top", "50", "--json")
    assert code == 0 and len(json.loads(out)["hits"]) == 3


def one_line(answer, code, *words):
    assert answer[0] == code, answer
    last = answer[2].strip().splitlines()[-1]
    assert "Traceback" not in answer[2] and last.startswith("brgsa: error: ")
    assert all(word in last for word in words), last


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--top", "0"], 2, "--top 0"),
        (["--top", "-3"], 2, "--top -3"),
        ([], 2, "one of the two"),
        (["--series", "1.2"], 2, "--series"),
    ],
)
def test_options_that_make_no_sense_are_named(index, run, options, code, word):
    text = ["--text", TEXT] if options else []
    one_line(run("similar", *text, "--index", index, *options), code, word)


def test_a_scan_and_words_together_are_refused(index, scans, run):
    one_line(run("similar", scans / "case0.nii.gz", "--text", TEXT, "--index", index), 2, "one of the two")


def test_a_missing_scan_and_a_folder_of_many_are_named(index, scans, run):
    one_line(run("similar", scans / "none.nii.gz", "--index", index), 3, "none.nii.gz")
    one_line(run("similar", scans, "--index", index), 2, "holds 3 scans")


def test_a_folder_that_is_no_index_is_said(tmp_path, run):
    one_line(run("similar", "--text", TEXT, "--index", tmp_path), 3, "is not an index", "brgsa index")


def test_an_index_with_the_scan_itself_only_says_so(scorer, scans, tmp_path, run):
    index_cases(scorer, find_cases([scans / "case0.nii.gz"]), tmp_path / "one")
    one_line(run("similar", scans / "case0.nii.gz", "--index", tmp_path / "one"), 3, "no other scan")


def damage_json(**changes):
    def damage(index):
        about = json.loads((index / "index.json").read_text())
        (index / "index.json").write_text(json.dumps({**about, **changes}))

    return damage


def cut(name, keep):
    def damage(index):
        (path,) = index.glob(f"**/{name}")
        path.write_bytes(path.read_bytes()[:keep])

    return damage


def with_nan(index):
    (path,) = index.glob("*/final.npy")
    matrix = np.load(path)
    matrix[1, 0] = np.nan
    np.save(path, matrix)


def pickled(index):
    (path,) = index.glob("*/final.npy")
    np.save(path, np.array([{}]), allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_json(version=2), ["version 2 is unknown"]),
        (damage_json(scans=4), ["damaged", "scans.csv has 3 scans"]),
        (damage_json(scans=0), ["holds no scans"]),
        (damage_json(data="data-00009"), ["damaged", "missing"]),
        (damage_json(embedding_size=64), ["damaged", "direct.npy"]),
        (cut("index.json", 20), ["damaged", "index.json"]),
        (cut("final.npy", 500), ["damaged"]),
        (cut("direct.npy", 0), ["damaged"]),
        (cut("scans.csv", 0), ["damaged", "scans.csv"]),
        (lambda index: next(index.glob("*/direct.npy")).unlink(), ["damaged", "direct.npy is missing"]),
        (with_nan, ["damaged", "final.npy"]),
        (pickled, ["damaged"]),
    ],
)
def test_a_damaged_index_is_one_line(index, run, damage, words):
    damage(index)
    one_line(run("similar", "--text", TEXT, "--index", index), 3, str(index), *words)


def test_an_index_of_other_weights_is_refused_by_both_commands(scorer, scans, index, run):
    damage_json(weights_checksum="f" * 64)(index)
    one_line(run("similar", "--text", TEXT, "--index", index), 4, "ffffffffffff", "--weights")
    one_line(run("index", scans, "--out", index), 2, "ffffffffffff")
    with pytest.raises(UsageError):
        index_cases(scorer, find_cases([scans]), index)


def test_weights_that_are_gone_are_asked_for(index, run):
    damage_json(weights="/nowhere/weights")(index)
    one_line(run("similar", "--text", TEXT, "--index", index), 4, "/nowhere/weights", "--weights")
    assert run("similar", "--text", TEXT, "--index", index, "--weights", "phantom")[0] == 0


def test_an_index_of_another_precision_is_not_mixed(scorer, scans, index):
    damage_json(precision="bf16")(index)
    with pytest.raises(UsageError, match="--precision bf16"):
        index_cases(scorer, find_cases([scans]), index)


def test_a_damaged_index_is_not_extended(scorer, scans, index):
    cut("direct.npy", 500)(index)
    with pytest.raises(InputError, match="damaged"):
        index_cases(scorer, find_cases([scans]), index)


# --- what belongs to others


def test_an_index_is_not_made_where_other_files_lie_and_touches_none_of_them(scans, tmp_path, monkeypatch, capsys):
    for name in ("data-2024", "data-raw", "unfinished"):
        shutil.copytree(scans, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["index", "data-2024", "--out", ".", "--device", "cpu"]) == 2
    assert "holds other files and no index" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_that_a_person_puts_into_an_index_stay(scorer, scans, tmp_path):
    index = tmp_path / "index"
    index_cases(scorer, find_cases([scans])[:1], index)
    for name in ("data-raw", "data-00000", "more"):
        shutil.copytree(scans, index / name)
    (index / "data-00001" / "notes.txt").write_text("mine")
    index_cases(scorer, find_cases([scans]), index)
    assert len(list(index.glob("*/*.nii.gz"))) == 3 * len(list(scans.iterdir()))
    assert [path.name for path in (index / "data-00001").iterdir()] == ["notes.txt"]
    assert len(ScanIndex.open(index).scans) == 3


def test_of_two_runs_that_make_one_index_at_once_one_is_refused_and_no_work_is_lost(scorer, scans, tmp_path):
    """The second is told who works there, and adds its scans when the first is done."""
    index, cases, refused = tmp_path / "index", find_cases([scans]), []

    def second(fraction, stage):
        if not refused:
            command = [sys.executable, "-m", "brgsa", "index", str(cases[2].path), "--out", str(index)]
            refused.append(subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT))

    index_cases(scorer, cases[:2], index, on_progress=second)
    assert refused[0].returncode == 2 and f"is in use: process {os.getpid()} on" in refused[0].stderr
    index_cases(scorer, cases[2:], index)
    assert len(ScanIndex.open(index).scans) == 3
