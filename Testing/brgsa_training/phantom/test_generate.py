"""Data sets of phantoms on disk, as the command line makes them."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from brgsa.ct.volume import read_ct
from brgsa.files.output_folder import MARK
from brgsa_training.cli import main
from brgsa_training.phantom.generate import Plan, parse_split
from brgsa_training.phantom.phantom import COARSE, make_phantom
from brgsa_training.phantom.prevalence import labels

SMALL = ["--grid", "32,32,32"]


def generate(out: Path, *options: str) -> int:
    return main(["phantom", "generate", "--out", str(out), *options])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "set"
    assert generate(out, "--count", "10", "--seed", "2", "--masks", "--workers", "1", *SMALL) == 0
    return out


def test_the_files_agree_with_each_other_and_with_the_phantoms(made):
    manifest, truth = rows(made / "manifest.csv"), rows(made / "labels.csv")
    severity, reports = rows(made / "severity.csv"), rows(made / "reports.csv")
    captions = json.loads((made / "captions.json").read_text())
    assert len(manifest) == len(truth) == len(severity) == len(reports) == 10
    for entry, label, degree, report in zip(manifest, truth, severity, reports, strict=True):
        assert entry["case"] == label["case"] == degree["case"] == report["case"]
        path = made / entry["volume"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
        present = [name for name in labels() if label[name] == "1"]
        assert present == [name for name in labels() if float(degree[name]) > 0]
        assert {file.name for file in (made / "masks" / entry["case"]).glob("*")} == {f"{n}.nii.gz" for n in present}
        caption = captions[entry["split"]][entry["case"]]
        assert caption["images"] == [entry["volume"]]
        assert [s for s in caption["processed_report"] if s.startswith("there is ")][-len(present) :] == [
            f"there is {name.lower()}" for name in present
        ] or not present
        assert report["findings"]
        assert report["impression"]


def test_volumes_and_masks_lie_on_each_other_in_the_patient(made):
    entry = next(e for e in rows(made / "manifest.csv") if (made / "masks" / e["case"]).exists())
    volume = read_ct(made / entry["volume"])
    phantom = make_phantom(int(entry["seed"]), parse("32,32,32"), masks=True)
    assert np.array_equal(volume.voxels, phantom.voxels)
    for name, mask in phantom.masks.items():
        stored = read_ct(made / "masks" / entry["case"] / f"{name}.nii.gz")
        assert np.array_equal(stored.voxels.astype(bool), mask)
        assert np.allclose(stored.affine, volume.affine)


def parse(text: str):
    from brgsa_training.phantom.grid import parse_grid

    return parse_grid(text)


def test_captions_without_summary_lack_only_the_summary(made):
    full = json.loads((made / "captions.json").read_text())
    short = json.loads((made / "captions_without_summary.json").read_text())
    for split, cases in full.items():
        for case, entry in cases.items():
            without = short[split][case]["processed_report"]
            assert entry["processed_report"][: len(without)] == without
            assert all(s.startswith("there is ") for s in entry["processed_report"][len(without) :])


def test_splits_have_the_sizes_asked_for(made):
    captions = json.loads((made / "captions.json").read_text())
    assert {split: len(cases) for split, cases in captions.items()} == {"train": 8, "valid": 1, "test": 1}
    splits = Plan(1000, 0, COARSE.shape, parse_split("a=0.333,b=0.667"), False).splits()
    assert splits.count("a") == 333
    assert len(set(splits[:20])) == 2


def test_the_number_of_workers_changes_nothing(made, tmp_path):
    out = tmp_path / "again"
    assert generate(out, "--count", "10", "--seed", "2", "--masks", "--workers", "2", *SMALL) == 0
    assert content(out) == content(made)


def test_an_interrupted_run_goes_on_where_it_stopped(made, tmp_path):
    out = tmp_path / "cut"
    assert generate(out, "--count", "10", "--seed", "2", "--masks", "--workers", "1", *SMALL) == 0
    kept = sorted((out / "volumes").glob("*"))
    for path in [*kept[5:], out / "manifest.csv", out / "captions.json"]:
        path.unlink()
    before = kept[0].stat().st_mtime_ns
    assert generate(out, "--count", "10", "--seed", "2", "--masks", "--workers", "1", *SMALL) == 0
    assert kept[0].stat().st_mtime_ns == before
    assert content(out) == content(made)


def test_another_seed_gives_other_patients(made, tmp_path):
    assert generate(tmp_path / "b", "--count", "2", "--seed", "3", "--workers", "1", *SMALL) == 0
    seeds = {row["seed"] for row in rows(tmp_path / "b" / "manifest.csv")}
    assert seeds.isdisjoint(row["seed"] for row in rows(made / "manifest.csv"))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--count", "0"], 2, "--count 0"),
        (["--count", "-4"], 2, "--count -4"),
        (["--count", "1", "--grid", "huge"], 2, "--grid 'huge'"),
        (["--count", "1", "--seed", "-1"], 2, "--seed -1"),
        (["--count", "1", "--workers", "0"], 2, "--workers 0"),
        (["--count", "1", "--split", "train=0.5"], 2, "--split 'train=0.5'"),
        (["--count", "1", "--split", "train"], 2, "--split 'train'"),
        (["--count", "1", "--split", "a=nan,b=1"], 2, "--split"),
    ],
)
def test_a_senseless_option_is_named_in_one_line_and_nothing_is_written(tmp_path, capsys, options, code, message):
    assert generate(tmp_path / "out", *options) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_folder_made_with_other_options_is_refused_and_left_alone(made, capsys):
    before = content(made)
    assert generate(made, "--count", "11", "--seed", "2", "--masks", *SMALL) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "count" in error
    assert content(made) == before


def test_a_folder_with_other_things_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert generate(tmp_path, "--count", "1") == 2
    assert "holds other files and no phantoms" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_plan_is_named(tmp_path, capsys):
    (tmp_path / MARK).write_text('{"kind": "phantoms"}')
    (tmp_path / "plan.json").write_text("{")
    assert generate(tmp_path, "--count", "1") == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "plan.json" in error


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert generate(tmp_path / "file" / "out", "--count", "1") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot write" in error


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_ends_the_run_in_one_line_and_the_next_run_goes_on(tmp_path, capfd, workers):
    out = tmp_path / "out"
    options = ["--count", "3", "--workers", workers, *SMALL]
    # A file where the folder of volumes should be stands for a disk that refuses new files.
    out.mkdir()
    assert generate(tmp_path / "plan", *options) == 0
    for name in (MARK, "plan.json"):
        (out / name).write_bytes((tmp_path / "plan" / name).read_bytes())
    (out / "volumes").write_text("")
    assert generate(out, *options) == 1
    assert "cannot write" in capfd.readouterr().err.splitlines()[-1]
    assert not (out / "manifest.csv").exists()
    (out / "volumes").unlink()
    assert generate(out, *options) == 0
    assert content(out) == content(tmp_path / "plan")
