"""Demonstration weights through the real command, with a model and data so small that it takes seconds."""

import csv

import numpy as np
import pytest

from brgsa.errors import CANCELLED_EXIT_CODE, UsageError
from brgsa.files import file_sha256
from brgsa.prompts import PromptTokenizer
from brgsa.scoring import Scorer
from brgsa.text import clean
from brgsa.weights.folder import open_weights, verify
from brgsa_training.cli import main
from brgsa_training.phantom import demonstration
from brgsa_training.phantom.phantom import make_report
from brgsa_training.phantom.prevalence import labels
from brgsa_training.phantom.training_set import PhantomConfig, PhantomRecipe, phantom_studies, phantom_volumes
from brgsa_training.phantom.vocabulary import word_pieces
from brgsa_training.phantom.zero_shot import auroc_summary, phantom_scores
from brgsa_training.pretrain.trainer import Trainer

PHANTOMS = {"train": 24, "validation": 30, "test": 40, "long_steps": 3}
TRAINING = {"steps": 4, "validate_every": 2, "save_every": 4}


@pytest.fixture(scope="module")
def recipe_file(small_recipe):
    return small_recipe("phantom", PHANTOMS, TRAINING)


@pytest.fixture(scope="module")
def run(recipe_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    assert main(["phantom", "train-demo", "--out", str(out), "--recipe", str(recipe_file), "--workers", "1"]) == 0
    return out


def test_the_command_makes_weights_that_say_what_they_are(run):
    weights = open_weights(run / "weights")
    assert verify(weights.folder, fresh=True) == []
    assert weights.trained and weights.notice.startswith("demonstration: ")
    card = (weights.folder / "README.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in card for name in labels())
    assert "40 fresh phantoms" in card and "seed 0" in card
    with (run / "auroc.csv").open(encoding="utf-8") as file:
        assert [row["abnormality"] for row in csv.DictReader(file)] == list(labels())


def test_the_table_agrees_with_the_scorer(run, tmp_path):
    from brgsa.abnormalities import AbnormalityList

    assert main(["phantom", "generate", "--count", "2", "--out", str(tmp_path / "ct"), "--workers", "1"]) == 0
    scorer = Scorer.from_pretrained(run / "weights", device="cpu", precision="fp32", cache=False)
    config = PhantomConfig()
    scores = phantom_scores(scorer.model, scorer.tokenizer, phantom_volumes(range(2), config))
    for number, path in enumerate(sorted((tmp_path / "ct" / "volumes").glob("*.nii.gz"))):
        rows = scorer.score(path, AbnormalityList.from_names(labels())).scores
        # training reads HU in 8 bits, the scorer whole numbers
        assert [row.score for row in rows] == pytest.approx(scores[number].tolist(), abs=5e-3)


@pytest.mark.parametrize("where", ["train_in_stages", "demonstration_card", "save_weights", "Demonstration"])
def test_a_run_that_was_cut_goes_on_to_the_same_weights(run, recipe_file, tmp_path, monkeypatch, where):
    command = ["phantom", "train-demo", "--out", str(tmp_path / "out"), "--recipe", str(recipe_file), "--workers", "1"]

    def cut(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demonstration, where, cut)
        assert main(command) == CANCELLED_EXIT_CODE
    monkeypatch.setattr(Trainer, "_one_step", Trainer._one_step if where == "train_in_stages" else cut)
    assert main(command) == 0
    for name in ("auroc.csv", "weights/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (run / name).read_bytes()
    card = (tmp_path / "out" / "weights" / "README.md").read_text(encoding="utf-8")
    assert ("since its last interruption" in card) == (where != "Demonstration")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run, recipe_file, tmp_path):
    digests = [file_sha256(run / "weights" / "model.safetensors")]
    for seed in ("0", "1"):
        out = tmp_path / seed
        options = ["--recipe", str(recipe_file), "--workers", "2", "--seed", seed]
        assert main(["phantom", "train-demo", "--out", str(out), *options]) == 0
        digests.append(file_sha256(out / "weights" / "model.safetensors"))
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_in_use_and_an_unknown_recipe_are_refused_in_one_line(run, capsys):
    (run.parent / "other").mkdir(exist_ok=True)
    (run.parent / "other" / "mine.txt").touch()
    assert main(["phantom", "train-demo", "--out", str(run.parent / "other")]) == UsageError.exit_code
    assert main(["phantom", "train-demo", "--out", str(run)]) == UsageError.exit_code
    assert main(["phantom", "train-demo", "--out", str(run / "new"), "--recipe", "nosuch"]) == UsageError.exit_code
    lines = capsys.readouterr().err.strip().splitlines()
    assert (
        len(lines) == 3
        and "holds other files" in lines[0]
        and "other options" in lines[1]
        and "phantom-quick" in lines[2]
    )


def test_no_patient_serves_two_purposes():
    groups = PhantomConfig(train=200_000, validation=200_000, test=200_000).seeds()
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_any_english_prompt_can_be_tokenized(tmp_path):
    pieces = word_pieces(["There is a Nodule.", "It measures 12 mm."])
    assert len(pieces) == len(set(pieces)) and "nodule" in pieces and "12" not in pieces
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    tokenizer = PromptTokenizer(tmp_path / "vocab.txt", 97)
    ids, _ = tokenizer.encode(["there is quixotic zebrawood 42"])
    assert tokenizer.unknown_id not in ids


def test_captions_are_the_summary_and_as_many_affirming_sentences_as_asked_for():
    for seed in range(20):
        present, report = make_report(seed)
        alone, more = (phantom_studies([seed], PhantomConfig(report_sentences=n))[0].sentences for n in (0, 2))
        if present:
            assert list(alone) == [f"there is {name.lower()}" for name in present]
            assert more[: len(alone)] == alone and len(alone) < len(more) <= len(alone) + 2
            affirming = {clean(sentence) for sentence in report.positive}
            assert set(more[len(alone) :]) <= affirming


def test_the_summary_line_counts_only_what_can_be_measured():
    scores = np.array([[0.1, 0.5], [0.2, 0.1], [0.8, 0.2], [0.9, 0.3]])
    truth = np.array([[0, 0], [0, 0], [1, 0], [1, 0]])
    assert auroc_summary(scores, truth).startswith("Macro AUROC over 1 abnormalities: 1.000.")


def test_the_recipes_that_come_with_the_repository_can_be_read():
    from brgsa_training.pretrain.command import parse

    for name in ("phantom", "phantom-quick"):
        recipe = parse(["--config", name], PhantomRecipe)[0]
        assert recipe.weights.notice.startswith("demonstration")
