"""A score is the same on every computer; what was computed in less than fp32 says so."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from brgsa import AbnormalityList, Scorer
from brgsa.abnormalities import Abnormality
from brgsa.commands.main import main
from brgsa.device import choose_precision, computing
from brgsa.errors import UsageError
from brgsa.heatmap import heatmaps

TWO = AbnormalityList.from_names(["Lung nodule", "Emphysema"])
BACKENDS = torch.backends

# What an old processor without AVX computes with, in two threads.
OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OMP_NUM_THREADS": "2",
}


@pytest.fixture(scope="module")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu", cache=False)


def values(scores):
    return [row.score for row in scores.scores]


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_fp32_is_the_default_and_there_is_no_precision_that_a_processor_chooses(scorer):
    assert scorer.precision == "fp32"
    with pytest.raises(UsageError, match=r"unknown precision 'auto'\. Choose one of fp32, bf16, fp16"):
        choose_precision("auto", "cpu")


def test_an_old_processor_gives_the_same_scores_but_for_rounding(scorer, torso_path, tmp_path):
    command = [sys.executable, "-m", "brgsa", "score", str(torso_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--device", "cpu", "--abnormalities", "Lung nodule; Emphysema"],
        env=os.environ | OLD_PROCESSOR,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [float(row["score"]) for row in rows(tmp_path / "out" / "scores.csv")]
    assert found == pytest.approx(values(scorer.score(torso_path, TWO)), abs=2e-6)  # six decimals are written


def allow_less_by_the_old_names():
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cudnn.allow_tf32 = True


def allow_less_by_the_new_names():
    if not hasattr(BACKENDS, "fp32_precision"):
        pytest.skip("this version of torch has the old names only")
    BACKENDS.mkldnn.matmul.fp32_precision = "bf16"
    BACKENDS.cuda.matmul.fp32_precision = "tf32"


def forbid():
    torch.set_float32_matmul_precision("highest")
    if hasattr(BACKENDS, "fp32_precision"):
        BACKENDS.mkldnn.matmul.fp32_precision = BACKENDS.cuda.matmul.fp32_precision = "ieee"


@pytest.fixture(params=[allow_less_by_the_old_names, allow_less_by_the_new_names])
def less_allowed(request):
    """torch may compute products of fp32 matrices in TF32 and bf16."""
    request.param()
    yield
    forbid()


def allowed():
    """What torch may compute fp32 in, by all of its names."""
    if not hasattr(BACKENDS, "fp32_precision"):
        return [torch.get_float32_matmul_precision(), BACKENDS.cudnn.allow_tf32]
    owners = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)
    return [owner.fp32_precision for owner in (*owners, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv)]


def test_what_the_process_allows_torch_changes_no_score_and_is_as_it_was_afterwards(scorer, torso_path, less_allowed):
    before = allowed()
    with computing("cpu"):
        inside = allowed()
    loose = Scorer.from_pretrained("phantom", device="cpu", cache=False)
    with torch.autocast("cpu", torch.bfloat16):
        scores = loose.score(torso_path, TWO)
        heat = [next(iter(heatmaps(loose, loose.prepare(torso_path), TWO))).patches]
    assert allowed() == before and not set(before) <= {"none", "ieee", "highest", False}
    assert set(inside) <= {"ieee", "highest", False}
    with computing("cpu"):
        assert values(scores) == values(scorer.score(torso_path, TWO))
        heat.append(next(iter(heatmaps(scorer, scorer.prepare(torso_path), TWO))).patches)
    np.testing.assert_array_equal(*heat)


def test_an_error_leaves_torch_as_it_was(less_allowed):
    before = allowed()
    with pytest.raises(KeyError), computing("cpu"):
        raise KeyError
    assert allowed() == before


def test_settings_of_the_computer_do_not_reach_the_scores():
    names = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "PYTORCH_MPS_FAST_MATH")
    program = f"import os, brgsa.device; print([name for name in {names} if name in os.environ])"
    environment = os.environ | dict.fromkeys(names, "BF16")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_bf16_is_emulated_where_a_processor_has_none(torso_path):
    half = Scorer.from_pretrained("phantom", device="cpu", precision="bf16", cache=False)
    with BACKENDS.mkldnn.flags(enabled=False):  # what has bf16 instructions in torch for a CPU
        emulated = half.score(torso_path, TWO)
    assert values(emulated) == pytest.approx(values(half.score(torso_path, TWO)), abs=0.005)


def test_a_gpu_without_bf16_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UsageError, match=r"cuda:1 computes no bf16\. Use --precision fp16 or fp32"):
        choose_precision("bf16", "cuda:1")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_output_says_what_it_was_computed_in(torso_path, tmp_path, capfd, precision):
    options = ["--precision", precision, "--device", "cpu"]
    listed = ["--abnormalities", "Lung nodule; Emphysema", "--report", "html"]
    assert main(["score", str(torso_path), "--out", str(tmp_path / "scores"), *listed, *options]) == 0
    table, _ = capfd.readouterr()
    assert ("computed in bf16" in table) == (precision == "bf16")
    case = tmp_path / "scores" / "cases" / "torso"
    for record in (case / "scores.json", tmp_path / "scores" / "run.json"):
        assert json.loads(record.read_text(encoding="utf-8"))["settings"]["precision"] == precision
    assert {row["precision"] for row in rows(tmp_path / "scores" / "scores.csv")} == {precision}
    assert f"precision {precision}" in (case / "report.html").read_text(encoding="utf-8")

    assert main(["embed", str(torso_path), "--out", str(tmp_path / "embedded"), *options]) == 0
    assert [row["precision"] for row in rows(tmp_path / "embedded" / "manifest.csv")] == [precision]

    index = str(tmp_path / "index")
    assert main(["index", str(torso_path), "--out", index, *options]) == 0
    capfd.readouterr()
    assert main(["similar", "--text", "There is emphysema", "--index", index, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["precision"] == precision


def test_an_abnormality_list_gets_no_other_scores_beside_another(scorer, torso_path):
    """Prompts are encoded several at a time, padded to the longest: that is rounding, and no more."""
    long = Abnormality("Long", prompts=(" ".join(["nodule"] * 60),))
    alone = scorer.score(torso_path, TWO)
    scorer._texts.clear()
    beside = scorer.score(torso_path, AbnormalityList("three", (*TWO, long)))
    assert values(beside)[:2] == pytest.approx(values(alone), abs=1e-6)
