"""The study of bank and summaries: its runs, how they are cut and resumed, and its tables."""

import contextlib
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from waiting import wait

from brgsa.errors import UsageError
from brgsa.files.output_folder import MARK
from brgsa_training.cli import main
from brgsa_training.phantom import study as study_module
from brgsa_training.phantom.prevalence import labels, prevalences
from brgsa_training.phantom.study import CEILING, VARIANTS, Options, Run, captions, runs_of, train_and_measure
from brgsa_training.phantom.study_report import measure, write_study
from brgsa_training.phantom.training_set import PhantomConfig, phantom_set, phantom_studies, save_voxels
from brgsa_training.pretrain.trainer import Trainer

PHANTOMS = {"train": 16, "validation": 12, "test": 20, "long_steps": 2}
TRAINING = {"steps": 3, "validate_every": 2, "save_every": 2}


@pytest.fixture(scope="module")
def recipe_file(small_recipe):
    return small_recipe("phantom-study", PHANTOMS, TRAINING)


@pytest.fixture(scope="module")
def study(recipe_file, tmp_path_factory):
    """A finished study of one seed, its phantoms and its options, run in this process."""
    out, options = tmp_path_factory.mktemp("study"), Options(str(recipe_file), seeds=1)
    config = options.variant().phantoms
    for name, seeds in zip(("train", "validation", "test"), config.seeds(), strict=True):
        save_voxels(out / "phantoms" / f"{name}.npy", seeds, config)
    runs = runs_of(options, out)
    for run in runs:
        train_and_measure(run, options, out)
    return out, options, runs


def test_variants_differ_in_what_their_name_says_and_in_nothing_else(recipe_file):
    options = Options(str(recipe_file))
    recipes = {name: options.variant(name).to_dict() for name in VARIANTS}
    whole = recipes["brgsa"]
    assert (whole["loss"]["reconstruction"], whole["loss"]["bank_contrastive"]) == (0.5, 1.0)
    assert whole["phantoms"]["captions"] == "report-and-summary"
    for name, recipe in recipes.items():
        bank, summaries = name in ("brgsa", "no summaries"), name in ("brgsa", "no bank")
        assert (recipe["loss"]["bank_contrastive"] > 0) == (recipe["loss"]["reconstruction"] > 0) == bank
        assert recipe["phantoms"]["captions"] == ("report-and-summary" if summaries else "report")
        recipe["loss"] |= {key: whole["loss"][key] for key in ("reconstruction", "bank_contrastive")}
        recipe["phantoms"]["captions"] = whole["phantoms"]["captions"]
        assert recipe == whole


def test_no_caption_without_summaries_says_there_is_and_those_with_them_do():
    seeds = range(40)
    bare, whole = (
        [sentence for study in phantom_studies(seeds, PhantomConfig(captions=kind)) for sentence in study.sentences]
        for kind in ("report", "report-and-summary")
    )  # fmt: skip
    summary = {f"there is {name.lower()}" for name in labels()}
    assert not summary & set(bare)
    assert summary & set(whole) and set(bare) < set(whole)


def test_the_test_phantoms_of_the_study_serve_nothing_else(recipe_file):
    shipped, study = Options("phantom").variant().phantoms, Options().variant().phantoms
    used = set().union(*shipped.seeds(), *study.seeds()[:2])
    assert not used & set(study.seeds()[2])


def test_every_run_leaves_scores_gap_and_bank(study):
    _, _, runs = study
    for run in runs:
        facts = json.loads(run.result.read_text(encoding="utf-8"))
        with np.load(run.folder / "scores.npz", allow_pickle=False) as scores:
            kinds = {kind: scores[kind] for kind in scores.files}
        assert all(values.shape == (20, 30) and np.isfinite(values).all() for values in kinds.values())
        bank = run.name in ("brgsa", "no summaries")
        assert set(kinds) == ({"direct", "final"} if bank else {"direct"})
        if run.name != CEILING:
            assert len(facts["gaps"]) == (2 if bank else 1) and set(facts["bank"]) == (
                {"image", "text"} if bank else set()
            )
            assert (run.folder / "weights" / "model.safetensors").is_file() and not (run.folder / "run").exists()


def test_a_run_repeated_gives_the_same_scores(study, tmp_path):
    out, options, runs = study
    again = Run(runs[0].name, runs[0].seed, tmp_path / "again")
    train_and_measure(again, options, out)
    with np.load(runs[0].folder / "scores.npz") as first, np.load(again.folder / "scores.npz") as second:
        assert all((first[kind] == second[kind]).all() for kind in first.files)


def test_captions_of_the_gap_are_the_same_every_time_and_not_longer_than_in_training(study):
    out, options, _ = study
    recipe = options.variant()
    phantoms = phantom_set(recipe.phantoms.seeds()[2], recipe.phantoms, voxels=out / "phantoms" / "test.npy")
    drawn = captions(phantoms, recipe)
    assert drawn == captions(phantoms, recipe) and len(drawn) == 20
    for caption, each in zip(drawn, phantoms.studies, strict=True):
        assert any(caption.startswith(sentence) for sentence in each.sentences)


@pytest.fixture
def invented(tmp_path):
    """Runs of three seeds with invented scores, 200 phantoms, and their labels."""
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 30)) < 0.3).astype(np.uint8)
    runs = []
    for seed in range(3):
        for at, name in enumerate((*VARIANTS, CEILING)):
            run = Run(name, seed, tmp_path / name / str(seed))
            run.folder.mkdir(parents=True)
            scores = {"direct": truth * (1.5 - 0.3 * at) + rng.normal(size=truth.shape)}
            gap = {"centroid_distance": 0.5, "separability": 0.9, "cosine_margin": 0.2}
            facts = {"gaps": [], "bank": {}}
            if name != CEILING:
                facts["gaps"].append(gap | {"state": "before the bank (v, t)"})
            if name in ("brgsa", "no summaries"):
                scores["final"] = np.round(scores["direct"], 1)  # with ties
                facts["gaps"].append(gap | {"state": "after the bank (v_hat, t_hat)"})
                usage = {"rows": 256, "entropy": 5.0, "used_rows": 200.0, "dead_rows": 3}
                facts["bank"] = {"image": usage, "text": usage}
            np.savez(run.folder / "scores.npz", **scores)
            run.result.write_text(json.dumps(facts), encoding="utf-8")
            runs.append(run)
    return runs, truth


def test_areas_and_means_are_those_of_scikit_learn(invented):
    runs, truth = invented
    results = measure(runs, truth, resamples=5)
    for run in runs:
        with np.load(run.folder / "scores.npz") as scores:
            kind = "final" if "final" in scores.files else "direct"
            expected = [roc_auc_score(truth[:, a], scores[kind][:, a]) for a in range(30)]
        assert results.areas[run.name][run.seed, :, 0] == pytest.approx(expected, abs=1e-12)
    rare = [at for at, row in enumerate(prevalences()) if row.group == "rare"]
    assert results.mean("no bank", rare)[0] == pytest.approx(results.areas["no bank"][:, rare, 0].mean(), abs=1e-12)


def test_intervals_hold_the_mean_and_a_true_difference_is_seen(invented):
    runs, truth = invented
    results = measure(runs, truth, resamples=100)
    everything = range(30)
    low, high = np.percentile(results.mean("brgsa", everything)[1:], [2.5, 97.5])
    assert low < results.mean("brgsa", everything)[0] < high
    difference = results.mean("brgsa", everything) - results.mean("neither", everything)
    assert np.percentile(difference[1:], 2.5) > 0


def test_all_variants_meet_the_same_resamples(invented):
    runs, truth = invented
    for run in runs:
        if run.name == "neither":
            with np.load(run.folder.parents[1] / "no bank" / str(run.seed) / "scores.npz") as scores:
                np.savez(run.folder / "scores.npz", direct=scores["direct"])
    results = measure(runs, truth, resamples=50)
    first, second = (results.mean(name, range(30)) for name in ("no bank", "neither"))
    assert (first == second).all() and first.std() > 0


def test_the_tables_name_every_variant_abnormality_and_effect(invented, tmp_path):
    runs, truth = invented
    text = write_study(runs, truth, tmp_path / "out", "Invented.")
    for word in (*VARIANTS, CEILING, *labels(), "the bank, with summaries", "summaries, without the bank", "3 seeds"):
        assert word in text
    with (tmp_path / "out" / "study.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (5 + 2) * 3 * 30  # with the direct scores of the two that have a bank
    assert (tmp_path / "out" / "study.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "study.md").read_text(encoding="utf-8") == text


def test_other_options_and_other_folders_are_refused_in_one_line(study, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    assert main(["phantom", "study", "--out", str(tmp_path)]) == UsageError.exit_code
    out = tmp_path / "study"
    out.mkdir()
    (out / MARK).write_text('{"kind": "study"}', encoding="utf-8")
    (out / "study.json").write_text('{"seeds": 5}', encoding="utf-8")
    assert main(["phantom", "study", "--out", str(out)]) == UsageError.exit_code
    assert main(["phantom", "study", "--out", str(out), "--seeds", "0"]) == UsageError.exit_code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert "no study" in lines[0] and "other options (recipe, version, seeds)" in lines[1] and "--seeds 0" in lines[2]


@pytest.mark.parametrize("where", ["_alignment", "atomic_folder", "write_json", "_remove_checkpoints"])
def test_a_training_that_was_cut_when_it_was_done_is_not_done_again(study, tmp_path, monkeypatch, where):
    out, options, runs = study
    run = Run("brgsa", 0, tmp_path / "seed-0")

    def cut(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study_module, where, cut)
        with pytest.raises(KeyboardInterrupt):
            train_and_measure(run, options, out)
    assert (run.folder / "run").is_dir(), "no checkpoint goes before the result is written"
    monkeypatch.setattr(Trainer, "_one_step", cut)
    train_and_measure(run, options, out)
    assert not (run.folder / "run").exists() and not (run.folder / "first-stage").exists()
    first, again = (json.loads(one.result.read_text()) | {"seconds": 0} for one in (runs[0], run))
    assert first == again
    for name in ("scores.npz", "weights/model.safetensors"):
        assert (run.folder / name).read_bytes() == (runs[0].folder / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the trainings in /proc")
def test_a_study_that_is_killed_leaves_no_training_behind(recipe_file, tmp_path):
    out = tmp_path / "study"
    options = ["--recipe", str(recipe_file), "--seeds", "20", "--jobs", "1"]
    command = [sys.executable, "-m", "brgsa_training.cli", "phantom", "study", "--out", str(out), *options]
    study = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)

    def processes():
        """How many there are of the session that the study opened, without those that have ended."""
        count = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
                count += int(session) == study.pid and state != "Z"
        return count

    wait(lambda: list(out.glob("runs/*/*/log.txt")) or study.poll() is not None)
    assert processes() > 1
    study.kill()
    study.wait()
    wait(lambda: not processes())


@pytest.mark.slow
def test_the_command_adds_seeds_and_goes_on_where_it_was_cut(recipe_file, tmp_path, capsys):
    options = ["phantom", "study", "--out", str(tmp_path / "study"), "--recipe", str(recipe_file)]
    runs = tmp_path / "study" / "runs"
    assert main([*options, "--seeds", "1", "--jobs", "2"]) == 0
    one_seed = {path: path.read_bytes() for path in runs.rglob("result.json")}
    assert len(one_seed) == 5
    capsys.readouterr()
    options += ["--seeds", "2"]
    assert main([*options, "--jobs", "2"]) == 0
    first = capsys.readouterr().out
    results = sorted(runs.rglob("result.json"))
    assert len(results) == 10 and all(path.read_bytes() == content for path, content in one_seed.items())
    kept = {path: path.read_bytes() for path in results}
    kept.pop(results[0])
    results[0].unlink()
    assert main([*options, "--jobs", "1"]) == 0
    assert capsys.readouterr().out == first
    assert all(path.read_bytes() == content for path, content in kept.items()) and results[0].is_file()
