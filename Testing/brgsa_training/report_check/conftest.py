"""Phantoms with reports, the shipped weights and the command line, for the tests of the report check."""

import nibabel
import numpy as np
import pytest

from brgsa.abnormalities import AbnormalityList
from brgsa.scoring import Scorer
from brgsa_training import cli
from brgsa_training.phantom.grid import Grid
from brgsa_training.phantom.phantom import make_phantom
from brgsa_training.summarize.vocabulary import load_vocabulary

SEEDS = (3, 5, 8, 13)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Four phantoms on disk: (path of the scan, path of its report, the phantom)."""
    folder, made = tmp_path_factory.mktemp("phantoms"), []
    grid = Grid((48, 48, 48))
    for seed in SEEDS:
        phantom = make_phantom(seed, grid)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.grid.affine
        nibabel.save(nibabel.Nifti1Image(phantom.voxels, affine), folder / f"phantom{seed}.nii.gz")
        (folder / f"phantom{seed}.txt").write_text(" ".join(phantom.report.sentences), encoding="utf-8")
        made.append((folder / f"phantom{seed}.nii.gz", folder / f"phantom{seed}.txt", phantom))
    return made


@pytest.fixture(scope="session")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu", precision="fp32", cache=False)


@pytest.fixture(scope="session")
def vocabulary():
    return load_vocabulary()


@pytest.fixture(scope="session")
def ct_rate():
    return AbnormalityList.preset("ct-rate-18")


@pytest.fixture
def run(capsys):
    def call(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
