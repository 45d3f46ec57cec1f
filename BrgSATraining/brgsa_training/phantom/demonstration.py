"""Demonstration weights: make phantoms, train a small model on what their reports say, measure it on fresh phantoms.

Training sees volumes and sentences only. True labels serve to choose the checkpoint (validation phantoms) and to
measure the result (test phantoms, looked at once).

OUT/first-stage, OUT/run    checkpoints and losses     OUT/weights    the weights folder with its card
OUT/auroc.csv    the table
"""

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from brgsa.abnormalities import AbnormalityList
from brgsa.errors import UsageError
from brgsa.files import atomic_open, write_csv
from brgsa.model import BrgSAModel
from brgsa.preprocess import PreprocessingPlan
from brgsa.prompts import PromptTokenizer
from brgsa.weights import open_weights, save_weights
from brgsa_training.data.arrays import ArrayVolumes
from brgsa_training.data.captions import Study, studies_of
from brgsa_training.phantom.demonstration_card import demonstration_card
from brgsa_training.phantom.generate import captions_of, case_name
from brgsa_training.phantom.phantom import COARSE, WINDOW_HU, make_labels, make_report, make_volumes
from brgsa_training.phantom.prevalence import labels
from brgsa_training.phantom.vocabulary import word_pieces
from brgsa_training.phantom.zero_shot import auroc_summary, auroc_table, aurocs, prompts, zero_shot_scores
from brgsa_training.pretrain.material import material
from brgsa_training.pretrain.recipe import Recipe, ScheduleConfig, StartConfig
from brgsa_training.pretrain.trainer import Trainer

# First seeds of the training, validation and test phantoms. The first and the last are those of `phantom generate`
# --seed 1 and 2; the second lies far behind those of --seed 0.
SEEDS_FROM = 10_000_000, 6_000_000, 20_000_000
PER_JOB = 25
WARMUP_STEPS = 100  # of the first stage


@dataclass
class PhantomConfig:
    """What is learned from.

    Attributes:
        train, validation, test: how many phantoms.
        rows: voxels kept of the Posterior axis, from the middle; a body does not fill it.
        report_sentences: sentences of the report beside the summary, at most; a caption is drawn from both.
        long_steps, long_sentences: before the training that the rest of the recipe describes, a first stage of this
            many steps whose captions have up to this many sentences, at a constant rate.
        mean, std: of the model's input, see `PreprocessingPlan`.
    """

    train: int = 8000
    validation: int = 500
    test: int = 2000
    rows: int = 48
    report_sentences: int = 2
    long_steps: int = 300
    long_sentences: int = 8
    mean: float = -0.5
    std: float = 0.5

    def seeds(self) -> tuple[range, range, range]:
        """Seeds of the training, validation and test phantoms."""
        counts = (self.train, self.validation, self.test)
        return tuple(range(start, start + count) for start, count in zip(SEEDS_FROM, counts, strict=True))


@dataclass
class DemonstrationRecipe(Recipe):
    """A training recipe and the phantoms that it trains on."""

    phantoms: PhantomConfig = field(default_factory=PhantomConfig)


def phantom_volumes(seeds: Sequence[int], config: PhantomConfig, workers: int = 1) -> ArrayVolumes:
    """Make coarse phantoms on the grid of the weights, in memory."""
    rows = slice((COARSE.shape[1] - config.rows) // 2, (COARSE.shape[1] + config.rows) // 2)
    shape = (COARSE.shape[0], config.rows, COARSE.shape[2])
    voxels = np.empty((len(seeds), *shape), np.uint8)
    jobs = [seeds[at : at + PER_JOB] for at in range(0, len(seeds), PER_JOB)]
    with tqdm(total=len(seeds), desc="phantoms", unit="phantom") as bar:
        for at, made in enumerate(_made(jobs, workers)):
            voxels[at * PER_JOB : at * PER_JOB + len(made)] = made[:, :, rows]
            bar.update(len(made))
    return as_volumes(voxels, seeds, config)


def as_volumes(voxels: np.ndarray, seeds: Sequence[int], config: PhantomConfig) -> ArrayVolumes:
    """The volumes of `make_volumes`, cut to the grid of the weights, as training reads them."""
    low, high = WINDOW_HU
    plan = PreprocessingPlan(
        spacing=COARSE.spacing, shape=voxels.shape[1:], clip_hu=WINDOW_HU, mean=config.mean, std=config.std
    )
    names = [case_name(seed) for seed in seeds]
    return ArrayVolumes(voxels, plan, names, slope=(high - low) / 255, intercept=low)


def phantom_studies(seeds: Sequence[int], config: PhantomConfig) -> list[Study]:
    """One study per phantom: its summary, and a few sentences of its report that affirm something."""
    sentences = {}
    for seed in tqdm(seeds, desc="reports", unit="report"):
        _, report = make_report(seed)
        affirming = [sentence for sentence in report.sentences if sentence in report.positive]
        chosen = np.random.default_rng((seed, 1)).permutation(len(affirming))[: config.report_sentences]
        said = [*report.summary, *(affirming[at] for at in chosen)] or report.impression
        sentences[case_name(seed)] = captions_of(said)
    return studies_of(sentences)


@dataclass(frozen=True)
class Demonstration:
    """A weights folder, and what it scored on the test phantoms: scores and labels, (N, abnormalities)."""

    weights: Path
    scores: np.ndarray
    labels: np.ndarray

    def lines(self) -> list[str]:
        """The table of AUROC and its two means."""
        return [*auroc_table(self.scores, self.labels), auroc_summary(self.scores, self.labels)]


def first_stage(recipe: DemonstrationRecipe, out: Path) -> DemonstrationRecipe:
    """The recipe of the first stage: long captions, which tell much about a scan.

    They cannot be the only ones: a scan with many abnormalities has a longer caption, so the model learns to tell how
    long a caption is, and short prompts then fit scans with few abnormalities whatever they ask for.
    """
    return replace(
        recipe,
        out=str(out),
        data=replace(recipe.data, sentences=recipe.phantoms.long_sentences),
        schedule=ScheduleConfig("constant", min(WARMUP_STEPS, recipe.phantoms.long_steps // 3)),
        training=replace(recipe.training, steps=recipe.phantoms.long_steps),
    )


def train_demonstration(recipe: DemonstrationRecipe, out: Path, workers: int = 1) -> Demonstration:
    """Make phantoms, train on them, choose the checkpoint on validation phantoms, measure it on test phantoms.

    Raises:
        UsageError: `out` holds something already, or the recipe does not fit the phantoms.
    """
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Choose an empty or a new folder.")
    started, config = time.perf_counter(), recipe.phantoms
    train_seeds, validation_seeds, test_seeds = config.seeds()
    studies, held_out = phantom_studies(train_seeds, config), phantom_studies(validation_seeds, config)
    vocabulary = out / "run" / "vocab.txt"
    _write_vocabulary(vocabulary, studies)
    recipe.out, recipe.data.vocabulary = str(out / "run"), str(vocabulary)
    volumes = phantom_volumes(train_seeds, config, workers)
    validation, truth = phantom_volumes(validation_seeds, config, workers), make_labels(validation_seeds)
    tokenizer = PromptTokenizer(vocabulary, recipe.model.text_length)

    def judge(model: BrgSAModel) -> float:
        return 1 - float(np.nanmean(aurocs(zero_shot_scores(model, tokenizer, validation, prompts()), truth)))

    made = time.perf_counter()
    first = first_stage(recipe, out / "first-stage")
    start = Trainer(first, material(first, volumes, studies, validation, held_out), judge=judge).run().weights
    recipe = replace(recipe, start=StartConfig(weights=str(start)))
    result = Trainer(recipe, material(recipe, volumes, studies, validation, held_out), judge=judge).run()
    trained = time.perf_counter()
    model = open_weights(result.weights).load_model()
    test = phantom_volumes(test_seeds, config, workers)
    scores, truth = zero_shot_scores(model, tokenizer, test, prompts()), make_labels(test_seeds)
    write_csv(
        out / "auroc.csv",
        ("abnormality", "positives", "auroc"),
        zip(labels(), truth.sum(0).tolist(), aurocs(scores, truth).round(4).tolist(), strict=True),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seconds = made - started, trained - made
    machine = f"{os.cpu_count()} processor cores ({torch.get_num_threads()} for the training)"
    card = demonstration_card(recipe, result, scores, truth, parameters, seconds, machine, SEEDS_FROM)
    shutil.rmtree(result.weights)  # the same with a card that knows less
    folder = save_weights(out / "weights", model, vocabulary, volumes.plan, card, recipe.weights.licence)
    return Demonstration(folder, scores, truth)


def _write_vocabulary(path: Path, studies: Sequence[Study]) -> None:
    """Pieces for the words of the captions and of every prompt that comes with brgsa."""
    said = [sentence for study in studies for sentence in study.sentences]
    presets = [AbnormalityList.preset(name) for name in AbnormalityList.presets()]
    asked = [prompt for preset in presets for row in preset for prompt in (*row.prompts, *row.negative_prompts)]
    with atomic_open(path, "w") as file:
        file.writelines(f"{piece}\n" for piece in word_pieces([*said, *asked]))


def _made(jobs: Sequence[Sequence[int]], workers: int) -> Iterator[np.ndarray]:
    if workers == 1:
        yield from map(make_volumes, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make_volumes, jobs)
