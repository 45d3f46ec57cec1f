"""The wheel holds everything: installed alone, outside the repository, every stage of the work runs from it."""

import csv
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from waiting import LONGEST_WAIT

from brgsa.abnormalities import AbnormalityList

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "BrgSAExtension", "BrgSATraining")


def run(*command, folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"BRGSA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder to work in, and the scripts of an environment that holds the wheel and the packages it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    passed_over = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:  # a build leaves its traces where it runs
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=passed_over)
        else:
            shutil.copy(source, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source", folder=folder)
    (wheel,) = folder.glob("brgsa-*.whl")
    shutil.rmtree(folder / "source")
    venv.create(folder / "env", symlinks=os.name != "nt")
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(*pip, "--python", scripts / "python", "install", "--no-deps", "--no-index", wheel, folder=folder)
    # The packages that the wheel needs are taken from here, without what makes this checkout importable.
    (home,) = (folder / "env").rglob("site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (home / "packages.pth").write_text("\n".join(packages), encoding="utf-8")
    (folder / "work").mkdir()
    return folder / "work", scripts


def test_every_stage_runs_from_the_wheel_alone(installed):
    folder, scripts = installed
    brgsa, training = scripts / "brgsa", scripts / "brgsa-training"
    where = run(scripts / "python", "-c", "import brgsa; print(brgsa.__file__)", folder=folder)
    assert str(scripts.parent) in where
    run(training, "phantom", "generate", "--count", 2, "--grid", "full", "--out", "phantoms", folder=folder)
    run(brgsa, "score", "phantoms/volumes", "--out", "scores", folder=folder)
    rows = list(csv.DictReader((folder / "scores" / "scores.csv").open(encoding="utf-8", newline="")))
    names = AbnormalityList.preset("ct-rate-18").names
    cases = sorted({row["case"] for row in rows})
    assert len(cases) == 2 and len(rows) == 2 * len(names)

    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["case", *names], [cases[0], *([0] * len(names))], [cases[1], *([1] * len(names))]])
    evaluate = ["evaluate", "--benchmark", "ct-rate-18", "--scores", "scores/scores.csv", "--labels", "labels.csv"]
    run(training, *evaluate, "--out", "evaluation", folder=folder)
    assert (folder / "evaluation" / "report.html").exists()

    run(training, "preprocess", "folder", "phantoms/volumes", "--out", "volumes", folder=folder)
    data = ["--data.cache", "volumes", "--data.captions", "phantoms/captions.json"]
    data += ["--data.validation_split", "null", "--data.validation_share", 0, "--training.batch_size", 2]
    data += ["--data.vocabulary", Path(where.strip()).parent / "data" / "weights" / "phantom" / "vocab.txt"]
    plan = run(training, "pretrain", "--config", "brgsa", *data, "--dry-run", folder=folder)
    assert "steps" in plan
