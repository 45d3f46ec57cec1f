"""The commands, as typed."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from sklearn.metrics import f1_score

from brgsa.abnormalities import Abnormality
from brgsa.calibration import Calibration
from brgsa.prompts import prompt_sets
from brgsa.weights.folder import open_weights
from brgsa_training.cli import main
from brgsa_training.evaluate.benchmark import Benchmark
from brgsa_training.evaluate.bootstrap import released_indices
from brgsa_training.evaluate.paper import case_metrics

NAMES = ("Cardiomegaly", "Emphysema", "Lung nodule")
BENCHMARK = {
    "version": 1,
    "name": "three",
    "title": "Three abnormalities",
    "abnormalities": [{"name": name} for name in NAMES],
    "labels": list(NAMES),
    "case_column": "VolumeName",
    "case_pattern": Benchmark.load("ct-rate-18").case_pattern.pattern,
    "expected": {"cases": 3039},
    "source": "this test",
    "licence": "none",
    "get": "nowhere",
}


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """60 volumes of 20 patients with labels and scores, in different orders, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("three.json").write_text(json.dumps(BENCHMARK), encoding="utf-8")
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 3)
    cases = [f"valid_{p + 1}_{'aab'[i % 3]}_{i % 3 + 1 - (i % 3 == 2) * 2}" for i, p in enumerate(patients)]
    labels = (rng.random((20, 3)) < 0.4)[patients].astype(int)
    scores = np.round(rng.normal(size=(60, 3)) + labels, 6)
    write("labels.csv", ["VolumeName", *NAMES], [[f"{c}.nii.gz", *row] for c, row in zip(cases, labels, strict=True)])
    order = rng.permutation(60)
    write("scores.csv", ["case", *NAMES], [[cases[i], *scores[i]] for i in order])
    worse = scores + rng.normal(size=scores.shape)
    write("worse.csv", ["case", *NAMES], [[cases[i], *worse[i]] for i in order[::-1]])
    return cases, labels, scores


def write(path, header, rows):
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def rows_of(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(*arguments):
    return main([*map(str, arguments)])


def evaluate(*arguments):
    return run("evaluate", "--benchmark", "three.json", "--labels", "labels.csv", "--bootstraps", 30, *arguments)


def refused(capsys, code, *arguments):
    assert evaluate(*arguments) == code
    error = capsys.readouterr().err.strip()
    assert error.startswith("brgsa-training: error: ")
    assert "\n" not in error
    return error


def test_evaluate_writes_a_folder_and_prints_a_table(tables, capsys):
    assert evaluate("--scores", "scores.csv", "--compare", "worse.csv", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "60 cases (complete: 3,039)" in printed
    assert "Mean over abnormalities" in printed
    assert "Protocol honest" in printed
    expected = {"table.csv", "table.md", "table.tex", "report.html", "run.json", "cases.csv", "difference.csv"}
    assert {path.name for path in Path("out").iterdir() if not path.name.startswith(".")} == expected
    assert json.loads(Path("out/run.json").read_text(encoding="utf-8"))["patients"] == 20
    assert len(rows_of("out/table.csv")) == 4
    assert rows_of("out/difference.csv")[-1]["difference"]


def test_protocol_paper_prints_the_released_numbers_and_says_that_they_are_optimistic(tables, capsys):
    _, labels, scores = tables
    assert evaluate("--scores", "scores.csv", "--protocol", "paper", "--out", "out") == 0
    assert "optimistic" in capsys.readouterr().out
    recalls = [case_metrics(scores[drawn], labels[drawn])[0] for drawn in (released_indices(60, i) for i in range(30))]
    *rows, overall = rows_of("out/table.csv")
    for row, column in zip(rows, labels.T, strict=True):
        absent = np.zeros(60)
        expected = f1_score(column, absent, average="weighted", zero_division=0)
        assert float(row["weighted_f1_all_negative"]) == pytest.approx(expected)
        assert float(row["accuracy_all_negative"]) == pytest.approx(1 - column.mean())
    assert "Weighted F1, all absent" in Path("out/table.md").read_text(encoding="utf-8")
    assert float(overall["accuracy_all_negative"]) == pytest.approx(1 - labels.mean())
    assert overall["abnormality"] == "Overall"
    assert float(overall["recall_at_1_mean"]) == pytest.approx(np.mean(recalls), abs=1e-9)
    assert float(overall["recall_at_1_std"]) == pytest.approx(np.std(recalls, ddof=1), abs=1e-9)


def test_released_score_files_are_read_with_their_row_order(tables, capsys):
    cases, _, scores = tables
    order = np.random.default_rng(1).permutation(60)
    write("released.csv", range(3), scores[order])
    assert "--row-order" in refused(capsys, 2, "--scores", "released.csv")
    write("list.csv", ["Path", "TotalSegPath"], [[f"/data/{cases[i]}.nii.gz", "x"] for i in order])
    assert evaluate("--scores", "released.csv", "--row-order", "list.csv", "--out", "out") == 0
    assert evaluate("--scores", "scores.csv", "--out", "named") == 0
    first, second = rows_of("out/table.csv"), rows_of("named/table.csv")
    assert [float(row["auroc"]) for row in first] == pytest.approx([float(row["auroc"]) for row in second])


def test_one_per_study_and_labels_by_study(tables, capsys):
    assert evaluate("--scores", "scores.csv", "--one-per-study", "--out", "out") == 0
    assert "one scan per study: the first by name, 40 of 60" in capsys.readouterr().out
    seen = {row["VolumeName"].rsplit("_", 1)[0]: row for row in rows_of("labels.csv")}
    write("studies.csv", ["study", *NAMES], [[study, *list(row.values())[1:]] for study, row in seen.items()])
    arguments = ["--labels", "studies.csv", "--scores", "scores.csv"]
    assert "--join labels-by-study" in refused(capsys, 3, *arguments)
    assert evaluate(*arguments, "--join", "labels-by-study", "--out", "joined") == 0
    assert "60 cases" in capsys.readouterr().out


def test_an_abnormality_that_a_model_does_not_score_can_be_left_out(tables, capsys):
    rows = rows_of("scores.csv")
    write("two.csv", ["case", *NAMES[1:]], [[row["case"], *[row[name] for name in NAMES[1:]]] for row in rows])
    assert "--leave-out 'Cardiomegaly'" in refused(capsys, 3, "--scores", "two.csv")
    assert "not measured" in refused(capsys, 2, "--scores", "two.csv", "--leave-out", "Cyst")
    assert evaluate("--scores", "two.csv", "--leave-out", "Cardiomegaly", "--out", "out") == 0
    assert "Not measured: Cardiomegaly: left out on request" in capsys.readouterr().out
    assert len(rows_of("out/table.csv")) == 3


def test_missing_and_extra_cases_are_listed_or_refused(tables, capsys):
    rows = rows_of("scores.csv")
    write("some.csv", rows[0], [list(row.values()) for row in rows[2:]] + [["new", *([0.1] * 3)]])
    assert evaluate("--scores", "some.csv", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "Labels without score: 2: " in printed
    assert "Scores without labels: 1: new" in printed
    states = [row["state"] for row in rows_of("out/cases.csv")]
    assert (states.count("evaluated"), states.count("labels without score")) == (58, 2)
    assert "2 labelled cases have no score" in refused(capsys, 3, "--scores", "some.csv", "--strict")


def test_a_calibration_of_one_set_gives_thresholds_on_another(tables, capsys):
    weights = Path(__file__).parents[3] / "BrgSAExtension" / "brgsa" / "data" / "weights" / "phantom"
    shutil.copytree(weights, "weights")
    Path("weights/calibration.json").unlink(missing_ok=True)
    common = ["--benchmark", "three.json", "--weights", "weights", "--set", "development"]
    assert run("calibrate", *common, "--labels", "labels.csv", "--scores", "scores.csv") == 0
    assert "3 abnormalities fitted on development (60 cases)" in capsys.readouterr().out
    rows = rows_of("labels.csv")
    write("other.csv", rows[0], [list(row.values()) for row in rows[:45]])
    assert evaluate("--labels", "other.csv", "--scores", "scores.csv", "--calibration", "weights", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "fitted on development" in printed
    assert "WARNING" not in printed
    row = rows_of("out/table.csv")[0]
    assert row["sensitivity"] and row["brier"] and row["calibration_error"]
    assert evaluate("--scores", "scores.csv", "--calibration", "weights", "--out", "own") == 0
    assert "fitted on this very label file" in capsys.readouterr().out
    # As `brgsa score` writes them once the weights are calibrated.
    long = [[row["case"], name, row[name], 0.5] for row in rows_of("scores.csv") for name in NAMES]
    write("long.csv", ["case", "abnormality", "score", "threshold"], long)
    assert evaluate("--scores", "long.csv", "--weights", "weights", "--out", "long") == 0
    assert "fitted on this very label file" in capsys.readouterr().out
    options = ("--labels", "other.csv", "--scores", "long.csv", "--weights", "weights", "--out", "long")
    assert evaluate(*options) == 0
    assert "those of the score table, fitted on development" in capsys.readouterr().out
    assert evaluate("--scores", "long.csv", "--out", "long") == 0
    assert "does not say on what they were fitted" in capsys.readouterr().out


@pytest.mark.parametrize("style", ["single", "pair", "ensemble"])
def test_a_calibration_is_for_the_prompts_that_were_scored(tables, style):
    """As `run.json` beside the scores tells them, and as a scorer asks for them."""
    weights = Path(__file__).parents[3] / "BrgSAExtension" / "brgsa" / "data" / "weights" / "phantom"
    shutil.copytree(weights, "weights")
    Path("weights/calibration.json").unlink(missing_ok=True)
    scored = [Abnormality(NAMES[0]), Abnormality(NAMES[1], negative_prompts=("The lungs are clear",))]
    settings = {"prompts": style, "score": "final", "weights_checksum": open_weights("weights").checksum}
    run_json = {"settings": settings, "abnormalities": [row.to_dict() for row in scored]}
    Path("run.json").write_text(json.dumps(run_json), encoding="utf-8")
    arguments = ["--benchmark", "three.json", "--labels", "labels.csv", "--scores", "scores.csv"]
    assert run("calibrate", *arguments, "--weights", "weights") == 0
    calibration = Calibration.load("weights")
    for abnormality in scored:
        assert calibration.entry(abnormality.name, prompt_sets(abnormality, style), style, "final") is not None
    others = prompt_sets(Abnormality(NAMES[1]), style)
    assert (calibration.entry(NAMES[1], others, style, "final") is None) == (style == "pair")


def test_scores_of_other_weights_are_not_used_to_calibrate(tables, capsys):
    weights = Path(__file__).parents[3] / "BrgSAExtension" / "brgsa" / "data" / "weights" / "phantom"
    shutil.copytree(weights, "weights")
    settings = {"prompts": "single", "score": "final", "weights_checksum": "other"}
    Path("run.json").write_text(json.dumps({"settings": settings, "abnormalities": []}), encoding="utf-8")
    arguments = ["--benchmark", "three.json", "--labels", "labels.csv", "--scores", "scores.csv"]
    assert run("calibrate", *arguments, "--weights", "weights") == 2
    assert "other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, [], "--scores"),
        (2, ["--scores", "scores.csv", "--cache", "c"], "not 2"),
        (2, ["--scans", "x"], "--weights"),
        (2, ["--scores", "scores.csv", "--count", "5"], "--count"),
        (2, ["--scores", "scores.csv", "--label-column", "Cyst=x"], "--label-column"),
        (3, ["--scores", "missing.csv"], "missing.csv"),
        (3, ["--scores", "scores.csv", "--label-column", "Emphysema=emph"], "'emph'"),
        (3, ["--scores", "scores.csv", "--patients", "labels.csv"], "patient"),
        (3, ["--scores", "scores.csv", "--calibration", "."], "calibration.json"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line_and_write_nothing(tables, capsys, code, arguments, part):
    assert part in refused(capsys, code, *arguments, "--out", "out")
    assert not Path("out").exists()


def test_retrieve_and_modality_gap_write_their_folders(tables, capsys):
    cases, _, _ = tables
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 16)).astype(np.float32)
    np.savez("images.npz", cases=np.array(cases), embeddings=image, embeddings_from_bank=image)
    np.savez("texts.npz", cases=np.array(cases), embeddings=image + 3, embeddings_from_bank=image)
    pair = ["--images", "images.npz", "--texts", "texts.npz", "--bootstraps", 20]
    assert run("retrieve", *pair, "--benchmark", "three.json", "--labels", "labels.csv", "--out", "r") == 0
    rows = rows_of("r/table.csv")
    assert {row["direction"] for row in rows} == {"report to volume", "volume to report", "volume to volume"}
    assert all(row["pool"] == "60" and row["duplicates"] and row["definition"] for row in rows)
    assert all(row["value_lower"] for row in rows)
    assert run("retrieve", *pair, "--duplicates", "first", "--out", "f") == 0
    assert rows_of("f/table.csv")[0]["pool"] == "40"
    assert run("modality-gap", *pair, "--out", "g") == 0
    assert [row["separability"] for row in rows_of("g/table.csv")][1] < "0.7"
    assert Path("g/modality-gap.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert run("retrieve", "--images", "images.npz", "--out", "x") == 2
    assert "--reports" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_the_libraries_of_the_evaluation():
    heavy = "{'torch', 'numpy', 'matplotlib', 'sklearn', 'scipy'}"
    code = (
        "import sys; from brgsa_training.cli import main\n"
        "try: main(['evaluate', '--help'])\n"
        f"except SystemExit: print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
def test_the_phantom_benchmark_runs_on_the_demonstration_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", "--benchmark", "phantom", "--count", 12, "--out", "out") == 0
    first = rows_of("out/table.csv")
    assert "Phantoms are drawings" in capsys.readouterr().out
    assert run("evaluate", "--benchmark", "phantom", "--count", 12, "--out", "out") == 0
    assert rows_of("out/table.csv") == first
    assert run("evaluate", "--benchmark", "phantom", "--count", 13, "--out", "out") == 2


@pytest.mark.slow
def test_a_cache_gives_the_same_scores_as_the_scans_it_was_made_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("phantom", "generate", "--count", 6, "--out", "phantoms", "--workers", 1) == 0
    plan = Path(__file__).parents[3] / "BrgSAExtension/brgsa/data/weights/phantom/preprocessor_config.json"
    assert run("preprocess", "folder", "phantoms/volumes", "--plan", plan, "--out", "cache", "--workers", 1) == 0
    common = ["evaluate", "--benchmark", "phantom", "--labels", "phantoms/labels.csv", "--weights", "phantom"]
    assert run(*common, "--bootstraps", 5, "--cache", "cache", "--out", "a") == 0
    assert run(*common, "--bootstraps", 5, "--scans", "phantoms/volumes", "--out", "b") == 0
    first, second = (
        {(row["case"], row["abnormality"]): float(row["score"]) for row in rows_of(f"{out}/scores/scores.csv")}
        for out in "ab"
    )
    assert first.keys() == second.keys()
    assert max(abs(first[key] - second[key]) for key in first) < 1e-4


def test_a_volume_of_a_cache_that_fails_the_checks_is_scored_by_force_only_and_marked(tmp_path):
    from brgsa.abnormalities import AbnormalityList
    from brgsa_training.evaluate.score_source import score_cache

    phantoms, scans, cache = tmp_path / "phantoms", tmp_path / "scans", tmp_path / "cache"
    assert run("phantom", "generate", "--count", 2, "--out", phantoms, "--workers", 1) == 0
    shutil.copytree(phantoms / "volumes", scans)
    first, second = sorted(scans.iterdir())
    image = nibabel.load(sorted((phantoms / "volumes").iterdir())[0])
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.int16), image.affine), first)
    plan = Path(__file__).parents[3] / "BrgSAExtension/brgsa/data/weights/phantom/preprocessor_config.json"
    assert run("preprocess", "folder", scans, "--plan", plan, "--out", cache, "--workers", 1) == 0
    arguments = (
        "phantom",
        cache,
        AbnormalityList.from_names(["Emphysema"]),
        tmp_path / "out",
        "single",
        "final",
        "cpu",
    )
    names = [path.name.removesuffix(".nii.gz") for path in (first, second)]
    assert [row["case"] for row in rows_of(score_cache(*arguments))] == names[1:]
    (failure,) = rows_of(tmp_path / "out" / "failures.csv")
    assert failure["case"] == names[0] and failure["code"].startswith("refused: ")
    scored = rows_of(score_cache(*arguments, force=True))
    assert [row["case"] for row in scored] == names and scored[0]["flags"].startswith("forced ")
    assert rows_of(tmp_path / "out" / "failures.csv") == []
