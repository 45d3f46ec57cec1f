"""Demonstration weights: make phantoms, train a small model on what their reports say, measure it on fresh phantoms.

Training sees volumes and sentences only. True labels serve to choose the checkpoint (validation phantoms) and to
measure the result (test phantoms, which decide nothing). Run again with the same options to go on after an
interruption.

OUT/recipe.json             the options                OUT/weights    the weights folder with its card
OUT/first-stage, OUT/run    checkpoints and losses     OUT/auroc.csv    the table
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brgsa.files import write_csv
from brgsa.files.output_folder import output_folder
from brgsa.model import BrgSAModel
from brgsa.prompts import PromptTokenizer
from brgsa.weights.folder import open_weights, remove_weights, save_weights
from brgsa_training.phantom.curriculum import train_in_stages
from brgsa_training.phantom.demonstration_card import demonstration_card
from brgsa_training.phantom.output_folder import claim
from brgsa_training.phantom.prevalence import labels
from brgsa_training.phantom.training_set import PhantomRecipe, phantom_set, write_vocabulary
from brgsa_training.phantom.zero_shot import auroc_summary, auroc_table, aurocs, phantom_scores


@dataclass(frozen=True)
class Demonstration:
    """A weights folder, and what it scored on the test phantoms: scores and labels, (N, abnormalities)."""

    weights: Path
    scores: np.ndarray
    labels: np.ndarray

    def lines(self) -> list[str]:
        """The table of AUROC and its two means."""
        return [*auroc_table(self.scores, self.labels), auroc_summary(self.scores, self.labels)]


def train_demonstration(recipe: PhantomRecipe, out: Path, workers: int = 1) -> Demonstration:
    """Make phantoms, train on them, choose the checkpoint on validation phantoms, measure it on test phantoms.

    Raises:
        UsageError: `out` holds something else or a run with other options, another run works in it, or the recipe does
            not fit the phantoms.
    """
    with output_folder(out, "demonstration weights"):
        goes_on = (out / "recipe.json").exists()
        claim(out, "recipe.json", recipe.to_dict())
        return _train(recipe, out, workers, goes_on)


def _train(recipe: PhantomRecipe, out: Path, workers: int, goes_on: bool) -> Demonstration:
    started, config = time.perf_counter(), recipe.phantoms
    train_seeds, validation_seeds, test_seeds = config.seeds()
    train, validation = (phantom_set(seeds, config, workers) for seeds in (train_seeds, validation_seeds))
    vocabulary = out / "vocab.txt"
    write_vocabulary(vocabulary, train.studies)
    recipe.out, recipe.data.vocabulary = str(out / "run"), str(vocabulary)
    tokenizer = PromptTokenizer(vocabulary, recipe.model.text_length)

    def judge(model: BrgSAModel) -> float:
        scores = phantom_scores(model, tokenizer, validation.volumes)
        return 1 - float(np.nanmean(aurocs(scores, validation.labels)))

    made = time.perf_counter()
    result = train_in_stages(recipe, out, train, validation, judge, resume=True)
    trained = time.perf_counter()
    model = open_weights(result.weights).load_model()
    test = phantom_set(test_seeds, config, workers)
    scores = phantom_scores(model, tokenizer, test.volumes)
    write_csv(
        out / "auroc.csv",
        ("abnormality", "positives", "auroc"),
        zip(labels(), test.labels.sum(0).tolist(), aurocs(scores, test.labels).round(4).tolist(), strict=True),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seconds = made - started, trained - made
    machine = f"{os.cpu_count()} processor cores ({torch.get_num_threads()} for the training)"
    machine += ", counted since its last interruption" if goes_on else ""
    weights = out / "weights"
    if not weights.exists():  # else they are from an earlier run with these options, which would give the same
        card = demonstration_card(recipe, result, scores, test.labels, parameters, seconds, machine)
        save_weights(weights, model, vocabulary, train.volumes.plan, card, recipe.weights.licence)
    remove_weights(result.weights)  # the same with a card that knows less
    return Demonstration(weights, scores, test.labels)
