"""Many scans: nothing is lost, nothing is done twice, one bad file does not stop the night."""

import csv
import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from waiting import LONGEST_WAIT, wait

from brgsa.abnormalities import AbnormalityList
from brgsa.batch.case_files import CaseFiles
from brgsa.batch.embed import embed_cases
from brgsa.batch.index import index_cases
from brgsa.batch.score import Shard, score_cases
from brgsa.ct.cases import find_cases
from brgsa.errors import BrgSAError, CasesFailedError, InputError, RefusedScanError, UsageError
from brgsa.files import write_json
from brgsa.scoring import Scorer
from brgsa.weights.folder import open_weights

TWO = AbnormalityList.from_names(["Lung nodule", "Emphysema"])


@pytest.fixture(scope="module")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu", cache=False)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_batch_writes_the_documented_files(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    result = score_cases(scorer, find_cases(torso_paths), TWO, out, command=["brgsa", "score"])
    table = rows(out / "scores.csv")
    assert [(row["case"], row["abnormality"]) for row in table] == [
        (f"case{n}", name) for n in range(3) for name in TWO.names
    ]
    assert list(table[0]) == [
        "case",
        "path",
        "abnormality",
        "score",
        "probability",
        "threshold",
        "positive",
        "flags",
        "precision",
    ]
    expected = scorer.score(torso_paths[1], TWO)["Emphysema"].score
    assert float(table[3]["score"]) == pytest.approx(expected, abs=1e-6)
    assert rows(out / "failures.csv") == []
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["weights"] == "phantom" and run["versions"]["torch"] and run["scored"] == 3
    assert run["preprocessing"] == scorer.weights.plan.to_dict()
    assert json.loads((out / "cases" / "case0" / "scores.json").read_text())["version"] == 1
    assert result.done == 3 and "demonstration" in table[0]["flags"]


def test_a_rerun_redoes_nothing_and_says_the_same(scorer, torso_paths, tmp_path, monkeypatch):
    out = tmp_path / "out"
    score_cases(scorer, find_cases(torso_paths), TWO, out)
    before = (out / "scores.csv").read_bytes()
    monkeypatch.setattr(scorer, "embed", lambda *a, **k: pytest.fail("a scan was read again"))
    result = score_cases(scorer, find_cases(torso_paths), TWO, out)
    assert (result.done, result.resumed) == (0, 3)
    assert (out / "scores.csv").read_bytes() == before


def test_a_record_that_was_damaged_is_made_again(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    score_cases(scorer, find_cases(torso_paths), TWO, out)
    before = (out / "scores.csv").read_bytes()
    (out / "cases" / "case1" / "scores.json").write_text("{")
    assert score_cases(scorer, find_cases(torso_paths), TWO, out).done == 1
    assert (out / "scores.csv").read_bytes() == before


def test_one_bad_case_is_reported_and_the_rest_goes_on(scorer, torso_paths, tmp_path):
    torso_paths[1].write_bytes(torso_paths[1].read_bytes()[:2000])
    out = tmp_path / "out"
    result = score_cases(scorer, find_cases(torso_paths), TWO, out)
    assert {row["case"] for row in rows(out / "scores.csv")} == {"case0", "case2"}
    (failure,) = rows(out / "failures.csv")
    assert failure["case"] == "case1" and failure["code"] == "3" and str(torso_paths[1]) in failure["reason"]
    with pytest.raises(CasesFailedError, match="1 of 3 cases failed"):
        result.raise_failures()


def test_a_single_bad_case_keeps_its_own_kind_of_error(scorer, torso_paths, tmp_path):
    torso_paths[0].write_bytes(b"")
    result = score_cases(scorer, find_cases(torso_paths[:1]), TWO, tmp_path / "out")
    with pytest.raises(BrgSAError) as caught:
        result.raise_failures()
    assert caught.value.exit_code == InputError.exit_code


@pytest.fixture
def no_chest(save_nifti, tmp_path):
    """A scan whose checks say "error": nothing but air."""
    return save_nifti(tmp_path / "flat.nii.gz", np.zeros((30, 30, 30), np.int16), np.eye(4))


def test_a_scan_that_fails_the_checks_is_not_scored(scorer, tmp_path, real_ct):
    cases = find_cases([real_ct / "nonchest_totalseg_abdomen.nii.gz", real_ct / "cip_ct64.nrrd"])
    result = score_cases(scorer, cases, TWO, tmp_path / "out")
    (failure,) = rows(tmp_path / "out" / "failures.csv")
    assert (failure["case"], failure["code"]) == ("nonchest_totalseg_abdomen", "refused: not-chest")
    assert "litres of air-filled lung" in failure["reason"] and "--force" in failure["reason"]
    assert {row["case"] for row in rows(tmp_path / "out" / "scores.csv")} == {"cip_ct64"}
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["scored"], run["refused"], run["failed"]) == (1, 1, 0)
    with pytest.raises(CasesFailedError, match=r"1 of 2 cases were not done \(1 refused, 0 failed\)"):
        result.raise_failures()


def test_a_run_of_nothing_but_refused_scans_is_an_error_of_the_input(scorer, no_chest, tmp_path):
    twice = find_cases([no_chest, shutil.copy(no_chest, tmp_path / "again.nii.gz")])
    for cases in (twice[:1], twice):
        with pytest.raises(BrgSAError, match="refused: values-not-hu") as caught:
            score_cases(scorer, cases, TWO, tmp_path / "out").raise_failures()
        assert caught.value.exit_code == InputError.exit_code


def test_a_forced_scan_is_scored_and_marked_and_stays_so(scorer, no_chest, tmp_path):
    out, cases = tmp_path / "out", find_cases([no_chest])
    files = CaseFiles(heatmaps=("Emphysema",), reports=("html",))
    assert score_cases(scorer, cases, TWO, out, force=True, files=files).done == 1
    (heatmap,) = out.rglob("heatmap-*.nii.gz")
    assert b"; forced" in nibabel.load(heatmap).header["descrip"].tobytes()
    assert {row["flags"].split()[0] for row in rows(out / "scores.csv")} == {"forced"}
    record = json.loads((out / "cases" / "flat" / "scores.json").read_text())
    assert record["flags"][:2] == ["forced", "values-not-hu"]
    assert "fails the input checks" in (out / "cases" / "flat" / "report.html").read_text(encoding="utf-8")
    assert score_cases(scorer, cases, TWO, out).resumed == 1  # later runs neither drop nor hide it
    assert {row["flags"].split()[0] for row in rows(out / "scores.csv")} == {"forced"}


def test_embeddings_of_scans_that_fail_the_checks_are_made_by_force_only(scorer, no_chest, tmp_path):
    out, cases = tmp_path / "out", find_cases([no_chest])
    assert embed_cases(scorer, cases, out).failures[0].code == "refused: values-not-hu"
    for force in (True, False):  # the second run finds it done
        assert embed_cases(scorer, cases, out, force=force).failures == []
        assert [row["flags"] for row in rows(out / "manifest.csv")] == ["forced values-not-hu"]


def test_a_single_scan_that_fails_the_checks_raises_in_python(scorer, no_chest):
    for _ in range(2):
        with pytest.raises(RefusedScanError, match="refused: values-not-hu") as caught:
            scorer.score(no_chest, TWO)
        assert [finding.code for finding in caught.value.findings] == ["values-not-hu"]
        scores = scorer.score(no_chest, TWO, force=True)  # keeps the embedding, which the next call does not get
        assert scores.flags[0] == "forced" and scores.forced in str(scores)


def test_other_settings_are_refused_unless_overwritten(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    cases = find_cases(torso_paths[:1])
    score_cases(scorer, cases, TWO, out)
    with pytest.raises(UsageError, match="--overwrite"):
        score_cases(scorer, cases, TWO, out, kind="bank")
    assert score_cases(scorer, cases, TWO, out, kind="bank", overwrite=True).done == 1


def test_another_scan_of_the_same_name_is_added_under_a_name_of_its_own(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    score_cases(scorer, find_cases(torso_paths[:1]), TWO, out)
    (tmp_path / "elsewhere").mkdir()
    other = shutil.copy(torso_paths[1], tmp_path / "elsewhere" / torso_paths[0].name)
    for again in (1, 0):
        assert score_cases(scorer, find_cases([other]), TWO, out).done == again
        table = rows(out / "scores.csv")
        assert sorted({row["path"] for row in table}) == sorted([str(other), str(torso_paths[0])])
        assert len({row["case"] for row in table}) == 2


def test_another_series_of_the_same_folder_is_added_under_a_name_of_its_own(scorer, save_series, tmp_path):
    folder = save_series(tmp_path / "thorax", np.arange(0.0, 300.0, 10.0), "a", series="1.2.1")
    save_series(folder, np.arange(0.0, 300.0, 6.0), "b", series="1.2.2")
    (case,) = find_cases([folder])
    score_cases(scorer, [replace(case, series="1.2.1")], TWO, tmp_path / "out", force=True)
    score_cases(scorer, [replace(case, series="1.2.2")], TWO, tmp_path / "out", force=True)
    assert len({row["case"] for row in rows(tmp_path / "out" / "scores.csv")}) == 2


def test_a_run_of_other_scans_adds_its_rows_and_keeps_those_of_the_run_before(scorer, torso_paths, tmp_path):
    out, broken = tmp_path / "out", tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no scan")
    score_cases(scorer, find_cases([torso_paths[0], broken]), TWO, out)
    result = score_cases(scorer, find_cases(torso_paths[1:]), TWO, out)
    assert (result.done, [record["case"] for record in result.scores]) == (2, ["case1", "case2"])
    assert [row["case"] for row in rows(out / "scores.csv")] == ["case1", "case1", "case2", "case2", "case0", "case0"]
    assert [row["case"] for row in rows(out / "failures.csv")] == ["broken"]


def test_a_failure_of_an_earlier_run_is_gone_from_the_table_when_the_scan_was_scored(scorer, torso_paths, tmp_path):
    out, content = tmp_path / "out", torso_paths[0].read_bytes()
    torso_paths[0].write_bytes(b"no scan")
    score_cases(scorer, find_cases(torso_paths), TWO, out)
    torso_paths[0].write_bytes(content)
    score_cases(scorer, find_cases(torso_paths[:1]), TWO, out)
    score_cases(scorer, find_cases(torso_paths[1:]), TWO, out)
    assert rows(out / "failures.csv") == [] and len(rows(out / "scores.csv")) == 6


def test_a_record_of_an_earlier_run_that_was_damaged_is_a_failure_and_not_left_out_silently(
    scorer, torso_paths, tmp_path
):
    out = tmp_path / "out"
    score_cases(scorer, find_cases(torso_paths[:1]), TWO, out)
    (out / "cases" / "case0" / "scores.json").write_text("{")
    result = score_cases(scorer, find_cases(torso_paths[1:]), TWO, out)
    (row,) = rows(out / "failures.csv")
    assert row["case"] == "case0" and "is damaged; score its scan again" in row["reason"]
    with pytest.raises(CasesFailedError):
        result.raise_failures()
    score_cases(scorer, find_cases(torso_paths[:1]), TWO, out)
    assert rows(out / "failures.csv") == [] and len(rows(out / "scores.csv")) == 6


def test_other_settings_are_refused_by_name_and_change_nothing(scorer, torso_paths, tmp_path):
    out, cases = tmp_path / "out", find_cases(torso_paths)
    score_cases(scorer, cases[:1], TWO, out)
    before = (out / "scores.csv").read_bytes()
    other = AbnormalityList.from_names(["Lung nodule"])
    for given, options, difference in (
        (cases[1:], {"prompts": "pair"}, "prompts single, now pair"),
        (cases[1:], {"kind": "bank"}, "score final, now bank"),
        (cases[1:], {"kind": "bank", "overwrite": True}, "score final, now bank"),
        (cases[:1], {"list": other}, "list"),
    ):
        chosen = options.pop("list", TWO)
        with pytest.raises(UsageError, match=difference):
            score_cases(scorer, given, chosen, out, **options)
        assert (out / "scores.csv").read_bytes() == before
    assert score_cases(scorer, cases[:1], TWO, out, kind="bank", overwrite=True).done == 1


def test_a_folder_with_other_files_is_refused_and_stays_as_it_is(scorer, torso_paths, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "scores.csv").write_text("my,own,table\n")
    for work in (
        lambda: score_cases(scorer, find_cases(torso_paths), TWO, out),
        lambda: embed_cases(scorer, find_cases(torso_paths), out),
        lambda: index_cases(scorer, find_cases(torso_paths), out),
    ):
        with pytest.raises(UsageError, match="holds other files"):
            work()
    assert [path.name for path in out.iterdir()] == ["scores.csv"]
    assert (out / "scores.csv").read_text() == "my,own,table\n"


def test_folders_of_different_kinds_are_not_mixed(scorer, torso_paths, tmp_path):
    cases = find_cases(torso_paths)
    score_cases(scorer, cases, TWO, tmp_path / "scores")
    with pytest.raises(UsageError, match="holds scores and no index"):
        index_cases(scorer, cases, tmp_path / "scores")


def test_a_scan_that_changed_is_scored_again(scorer, torso_paths, tmp_path):
    out, cases = tmp_path / "out", find_cases(torso_paths)
    score_cases(scorer, cases, TWO, out)
    torso_paths[1].write_bytes(torso_paths[0].read_bytes())
    assert score_cases(scorer, cases, TWO, out).done == 1
    table = rows(out / "scores.csv")
    assert [row["score"] for row in table[2:4]] == [row["score"] for row in table[:2]]


def replace_alike(path, content):
    """Put other content in the place of a file, of the same length and time."""
    status = path.stat()
    assert len(content) == status.st_size
    other = path.with_name(".other")
    other.write_bytes(content)
    other.replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewrite_alike(path, content):
    """The same in place, so that the file keeps its number."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [replace_alike, rewrite_alike])
def test_a_scan_that_was_replaced_by_one_of_the_same_size_and_time_is_done_again(scorer, torso_paths, tmp_path, change):
    paths = [tmp_path / "0.nii", tmp_path / "1.nii"]  # not compressed: all of one size
    for path, compressed in zip(paths, torso_paths, strict=False):
        path.write_bytes(gzip.decompress(compressed.read_bytes()))
    cases, again, index = find_cases(paths[:1]), Scorer.from_pretrained("phantom", device="cpu"), tmp_path / "index"
    before = scorer.score(paths[0], TWO), again.score(paths[0], TWO)
    score_cases(scorer, cases, TWO, tmp_path / "out")
    embed_cases(scorer, cases, tmp_path / "embedded")
    index_cases(scorer, cases, index)
    change(paths[0], paths[1].read_bytes())
    (row, *_) = score_cases(scorer, cases, TWO, tmp_path / "out").scores[0]["scores"]
    expected = scorer.score(paths[1], TWO).scores[0].score
    assert row["score"] == expected != before[0].scores[0].score
    assert again.score(paths[0], TWO).scores[0].score == expected
    assert embed_cases(scorer, cases, tmp_path / "embedded").done == 1
    assert index_cases(scorer, cases, index).changed == 1


def test_a_copy_with_other_file_numbers_keeps_its_scores(scorer, torso_paths, tmp_path):
    """As from a backup, or behind another network mount."""
    cases, index = find_cases(torso_paths), tmp_path / "index"
    score_cases(scorer, cases, TWO, tmp_path / "out")
    embed_cases(scorer, cases, tmp_path / "embedded")
    index_cases(scorer, cases, index)
    states = [case.state() for case in cases]
    for path in torso_paths:
        shutil.copy2(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
    assert not set(states) & {case.state() for case in cases}
    assert score_cases(scorer, cases, TWO, tmp_path / "out").resumed == 3
    assert embed_cases(scorer, cases, tmp_path / "embedded").resumed == 3
    assert index_cases(scorer, cases, index).unchanged == 3


def test_a_scan_whose_voxels_lie_in_another_file_is_done_again_when_that_one_changes(scorer, torso_paths, tmp_path):
    read = [SimpleITK.ReadImage(str(path)) for path in torso_paths[:2]]
    image, other = (SimpleITK.GetImageFromArray(SimpleITK.GetArrayFromImage(one)) for one in read)
    image.SetSpacing(read[0].GetSpacing())
    for name, data in (("a.mhd", "a.raw"), ("b.nhdr", "b.raw")):
        SimpleITK.WriteImage(image, str(tmp_path / name))
        cases, out = find_cases([tmp_path / name]), tmp_path / f"out {name}"
        score_cases(scorer, cases, TWO, out)
        assert score_cases(scorer, cases, TWO, out).resumed == 1
        (tmp_path / data).write_bytes(SimpleITK.GetArrayFromImage(other).tobytes())
        assert score_cases(scorer, cases, TWO, out).done == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b"[" * 100_000, "score", "flags", "settings"],
    ids=lambda content: content[:9],
)
def test_a_damaged_record_is_made_again(scorer, torso_paths, tmp_path, content):
    cases, out = find_cases(torso_paths[:1]), tmp_path / "out"
    score_cases(scorer, cases, TWO, out)
    (record,) = out.glob("cases/*/scores.json")
    kept, table = json.loads(record.read_text()), (out / "scores.csv").read_bytes()
    if content == "score":
        kept["scores"][0]["score"] = float("nan")
    if content == "flags":
        kept["flags"] = None
    if content == "settings":
        del kept["scan"]["fingerprint"]
    record.write_bytes(content if isinstance(content, bytes) else json.dumps(kept).encode())
    assert score_cases(scorer, cases, TWO, out).done == 1
    assert (out / "scores.csv").read_bytes() == table


@pytest.mark.parametrize("part", ["embed_image", "embed_text", "bank"])
def test_numbers_that_are_not_finite_reach_no_table_and_no_cache(torso_paths, tmp_path, monkeypatch, part):
    scorer, out = Scorer.from_pretrained("phantom", device="cpu"), tmp_path / "out"
    owner, name = (scorer.model.bank, "forward") if part == "bank" else (scorer.model, part)
    whole = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: whole(*arguments) * float("nan"))
    result = score_cases(scorer, find_cases(torso_paths[:1]), TWO, out)
    assert "not finite" in result.failures[0].reason and not rows(out / "scores.csv")
    monkeypatch.undo()
    assert score_cases(scorer, find_cases(torso_paths[:1]), TWO, out).done == 1


def test_a_scan_that_was_put_away_keeps_its_scores(scorer, torso_paths, tmp_path):
    out, cases = tmp_path / "out", find_cases(torso_paths)
    score_cases(scorer, cases, TWO, out)
    torso_paths[1].unlink()
    assert score_cases(scorer, cases, TWO, out).resumed == 3


def test_a_run_goes_on_from_another_folder(scorer, torso_paths, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    score_cases(scorer, find_cases(["scans"]), TWO, out)
    monkeypatch.chdir(tmp_path / "scans")
    assert score_cases(scorer, find_cases(["../scans"]), TWO, out).resumed == 3


def test_an_overwriting_run_that_was_cut_off_goes_on(scorer, torso_paths, tmp_path, monkeypatch):
    out, cases = tmp_path / "out", find_cases(torso_paths)
    score_cases(scorer, cases, TWO, out, files=CaseFiles(reports=("html",)))
    embed = scorer.embed

    def cut_off(path, **options):
        if path == torso_paths[1]:
            raise KeyboardInterrupt
        return embed(path, **options)

    monkeypatch.setattr(scorer, "embed", cut_off)
    with pytest.raises(KeyboardInterrupt):
        score_cases(scorer, cases, TWO, out, kind="bank", overwrite=True)
    assert not list(out.rglob("report.html"))  # no page shows the old scores beside the new ones
    monkeypatch.setattr(scorer, "embed", embed)
    result = score_cases(scorer, cases, TWO, out, kind="bank")
    assert (result.done, result.resumed) == (2, 1)


def test_a_record_without_the_mark_does_not_get_a_scan_past_the_checks(scorer, no_chest, tmp_path):
    out, cases = tmp_path / "out", find_cases([no_chest])
    score_cases(scorer, cases, TWO, out, force=True)
    path = out / "cases" / "flat" / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"flags": ["values-not-hu"]}))  # as before 0.2
    result = score_cases(scorer, cases, TWO, out)
    assert result.resumed == 0 and result.failures[0].refused


def test_scores_of_another_calibration_are_not_mixed_with_these(torso_paths, tmp_path):
    folder = shutil.copytree(open_weights("phantom").folder, tmp_path / "weights")
    cases, out = find_cases(torso_paths), tmp_path / "out"
    score_cases(Scorer.from_pretrained(folder, device="cpu", cache=False), cases[:1], TWO, out)
    entry = {"prompt": "There is Emphysema", "style": "single", "score": "final", "threshold": 0.1}
    rows_ = {"Emphysema": entry | {"n": 10, "positives": 5}}
    (folder / "calibration.json").write_text(json.dumps({"version": 1, "abnormalities": rows_}))
    with pytest.raises(UsageError, match="calibration None, now"):
        score_cases(Scorer.from_pretrained(folder, device="cpu", cache=False), cases, TWO, out)


def test_a_scan_that_does_not_fit_into_memory_has_code_5(scorer, torso_paths, tmp_path, monkeypatch):
    def too_large(path, **options):
        raise MemoryError

    monkeypatch.setattr(scorer, "embed", too_large)
    result = score_cases(scorer, find_cases(torso_paths[:1]), TWO, tmp_path / "out")
    assert result.failures[0].code == 5 and "unexpected" not in result.failures[0].reason


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 8 GB"),
        RuntimeError("Exception thrown in SimpleITK: Failed to allocate memory for image."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_whatever_says_that_memory_ran_out_has_code_5(scorer, torso_paths, tmp_path, monkeypatch, error):
    def fails(path, **options):
        raise error

    monkeypatch.setattr(scorer, "embed", fails)
    result = score_cases(scorer, find_cases(torso_paths[:1]), TWO, tmp_path / "out")
    assert result.failures[0].code == 5 and "does not fit into memory" in result.failures[0].reason


def test_a_missing_package_ends_the_run(scorer, torso_paths, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "isal", None)
    with pytest.raises(ModuleNotFoundError):
        score_cases(scorer, find_cases(torso_paths), TWO, tmp_path / "out")


def test_shards_cover_every_case_once_and_gather_into_one_table(scorer, torso_paths, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cases = find_cases(torso_paths)
    score_cases(scorer, cases, TWO, whole)
    done = [score_cases(scorer, cases, TWO, parts, shard=Shard.parse(f"{n}/2")).done for n in (1, 2)]
    assert done == [2, 1] and (parts / "scores.1-of-2.csv").exists()
    assert score_cases(scorer, cases, TWO, parts).done == 0
    assert (parts / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""])
def test_a_shard_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_embeddings_of_other_scans_join_those_of_earlier_runs(scorer, torso_paths, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other" / torso_paths[0].name
    other.parent.mkdir()
    shutil.copy(torso_paths[1], other)  # another scan of the same name
    embed_cases(scorer, find_cases(torso_paths[:2]), out)
    for given, done in ((torso_paths[2:], 1), ([other], 1), ([other], 0), (torso_paths[:1], 0)):
        assert embed_cases(scorer, find_cases(given), out).done == done
    manifest = {row["case"]: row["path"] for row in rows(out / "manifest.csv")}
    assert set(manifest.values()) == {str(path) for path in (*torso_paths, other)}
    assert {path.stem for path in (out / "embeddings").iterdir()} == set(manifest)


def test_embeddings_of_other_settings_are_not_mixed(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    exact, reference = scorer, Scorer.from_pretrained("phantom", device="cpu", cache=False, fidelity="reference")
    embed_cases(exact, find_cases(torso_paths[:1]), out)
    with pytest.raises(UsageError, match=r"other weights or settings .*exact.*now .*reference"):
        embed_cases(reference, find_cases(torso_paths[1:2]), out)
    assert [row["case"] for row in rows(out / "manifest.csv")] == ["case0"]
    assert embed_cases(reference, find_cases(torso_paths[:1]), out).done == 1


def test_embeddings_are_written_once_each_with_a_manifest(scorer, torso_paths, tmp_path):
    out = tmp_path / "out"
    cases = find_cases(torso_paths)
    assert embed_cases(scorer, cases, out).done == 3
    assert embed_cases(scorer, cases, out).resumed == 3
    (first, *_) = rows(out / "manifest.csv")
    with np.load(out / first["embedding"], allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["image"], scorer.embed(torso_paths[0]).image)


def test_a_bug_in_one_case_does_not_stop_the_rest(scorer, torso_paths, tmp_path, monkeypatch):
    original = scorer.embed

    def fails_once(path, **options):
        if path == torso_paths[0]:
            raise ZeroDivisionError("division by zero")
        return original(path, **options)

    monkeypatch.setattr(scorer, "embed", fails_once)
    result = score_cases(scorer, find_cases(torso_paths), TWO, tmp_path / "out")
    assert result.done == 2 and "unexpected ZeroDivisionError" in result.failures[0].reason


@pytest.mark.parametrize("written", [False, True])
def test_a_run_that_is_cut_off_while_a_record_is_written_has_done_what_has_one(
    scorer, torso_paths, tmp_path, monkeypatch, written
):
    out, cases = tmp_path / "out", find_cases(torso_paths)

    def cut_off(path, content):
        if path.parent.name == "case1" and not written:
            raise KeyboardInterrupt
        write_json(path, content)
        if path.parent.name == "case1":
            raise KeyboardInterrupt

    monkeypatch.setattr("brgsa.batch.score.write_json", cut_off)
    with pytest.raises(KeyboardInterrupt, match=f"{1 + written} of 3 done"):
        score_cases(scorer, cases, TWO, out)
    monkeypatch.undo()
    assert len({row["case"] for row in rows(out / "scores.csv")}) == 1 + written
    assert score_cases(scorer, cases, TWO, out).resumed == 1 + written


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_leaves_valid_files_and_goes_on_later(torso_paths, tmp_path, stop, in_process):
    """A real process, a real signal: of the keyboard, of a cluster."""
    folder, out = torso_paths[0].parent, tmp_path / "out"
    for n in range(3, 40):
        (folder / f"case{n}.nii.gz").write_bytes(torso_paths[n % 3].read_bytes())
    command = [sys.executable, "-m", "brgsa", "score", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ)
    wait(lambda: len(list(out.glob("cases/*/scores.json"))) >= 2 or process.poll() is not None)
    process.send_signal(stop)
    errors = process.communicate(timeout=LONGEST_WAIT)[1]
    assert process.returncode == 130, errors
    done = len(rows(out / "scores.csv")) // 18
    assert "Traceback" not in errors
    assert errors.rstrip().endswith(f"brgsa: error: cancelled: {done} of 40 done; the same command goes on")
    assert 2 <= done < 40 and json.loads((out / "run.json").read_text())["scored"] == done
    assert not list(out.rglob(".brgsa-*"))
    finished = in_process("score", folder, "--out", out)
    assert finished.returncode == 0, finished.stderr
    assert f"{40 - done} scored, {done} were done before" in finished.stderr
    assert len(rows(out / "scores.csv")) == 40 * 18
