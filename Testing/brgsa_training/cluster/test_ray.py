"""Work that Ray spreads gives the files that one machine gives."""

import csv
import importlib
import sys

import nibabel as nib
import numpy as np
import pytest

from brgsa.errors import SetupError
from brgsa.files.output_folder import output_folder
from brgsa.preprocess import PreprocessingPlan
from brgsa_training.cli import main
from brgsa_training.cluster.session import connect
from brgsa_training.data.cache import VolumeCache
from brgsa_training.data.folder import list_folder
from brgsa_training.data.preprocess import preprocess

PLAN = PreprocessingPlan(spacing=(6.0, 6.0, 6.0), shape=(16, 16, 16))


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        voxels = rng.integers(-1000, 800, (32, 32, 32)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-6.0, -6.0, 6.0, 1.0])), folder / f"c{number}.nii.gz")
    (folder / "bad.nii.gz").write_bytes(b"\x1f\x8b cut")
    return folder


@pytest.fixture
def local_ray():
    ray = pytest.importorskip("ray")
    connect()
    yield
    ray.shutdown()


@pytest.mark.slow
def test_the_cache_is_that_of_one_machine(scans, tmp_path, local_ray):
    from brgsa_training.cluster.preprocess import preprocess_on_ray

    listed = list_folder([scans])
    ours = preprocess_on_ray(listed, tmp_path / "ray", PLAN)
    theirs = preprocess(listed, tmp_path / "one", PLAN)
    assert (ours.done, ours.known) == (theirs.done, theirs.known) == (5, 0)
    assert ours.failures == theirs.failures and ours.failures[0].case == "bad"
    assert VolumeCache.open(tmp_path / "ray").cases == VolumeCache.open(tmp_path / "one").cases
    assert preprocess_on_ray(listed, tmp_path / "ray", PLAN).known == 5


@pytest.mark.slow
def test_the_scores_are_those_of_one_machine(scans, tmp_path, local_ray, capsys):
    score = importlib.import_module("brgsa.commands.main").main
    options = ["--abnormalities", "Lung nodule; Pleural effusion", "--precision", "fp32", "--force"]
    assert main(["score-on-ray", str(scans), "--out", str(tmp_path / "ray"), "--workers", "2", *options]) == 6
    assert "5 scored, 0 were done before, 0 refused, 1 failed" in capsys.readouterr().out
    assert score(["score", str(scans), "--out", str(tmp_path / "one"), *options]) == 6
    ours, theirs = (list(csv.reader((tmp_path / name / "scores.csv").open())) for name in ("ray", "one"))
    assert ours == theirs and len(ours) == 11


@pytest.mark.slow
def test_a_folder_in_use_is_one_sentence(scans, tmp_path, local_ray, capsys):
    with output_folder(tmp_path / "out", "scores"):
        assert main(["score-on-ray", str(scans), "--out", str(tmp_path / "out")]) == 2
    assert "is in use: process" in capsys.readouterr().err.splitlines()[-1]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SetupError, match=r"pip install 'brgsa\[cluster\]'"):
        connect()
