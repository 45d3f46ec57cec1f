"""The claims of the paper re-tested on phantoms: with and without the bank, with and without summaries.

Every variant of a recipe is trained with several seeds on the same phantoms for the same number of steps. Validation
phantoms choose the checkpoint; test phantoms serve for nothing else. Run again with the same options to go on after an
interruption, and with more seeds to add them.

OUT/study.json             the options
OUT/phantoms/*.npy         voxels of the training, validation and test phantoms
OUT/runs/VARIANT/seed-S    result.json, scores.npz, weights, log.txt
OUT/study.md, .csv, .png   the tables and the picture, see `study_report`
"""

import contextlib
import dataclasses
import json
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from brgsa.errors import OutOfMemoryError
from brgsa.files import atomic_folder, atomic_open, write_json
from brgsa.files.output_folder import output_folder
from brgsa.model import BrgSAModel
from brgsa.processes import kill_workers, process_pool
from brgsa.prompts import PromptTokenizer
from brgsa.weights.folder import open_weights
from brgsa_training.data.captions import draw_sentences
from brgsa_training.evaluate.modality_gap import AFTER, BEFORE, bank_usage, measure_gap
from brgsa_training.phantom.curriculum import train_in_stages
from brgsa_training.phantom.output_folder import claim
from brgsa_training.phantom.supervised import supervised_scores
from brgsa_training.phantom.training_set import PhantomRecipe, PhantomSet, phantom_set, save_voxels, write_vocabulary
from brgsa_training.phantom.zero_shot import (
    aurocs,
    image_embeddings,
    phantom_scores,
    prompts,
    text_embeddings,
    zero_shot_scores,
)
from brgsa_training.pretrain.checkpoint import remove_run
from brgsa_training.pretrain.command import parse

VERSION = 1
RECIPE = "phantom-study"
NO_BANK = {"loss.reconstruction": 0.0, "loss.bank_contrastive": 0.0}  # what is left is the loss of CLIP
NO_SUMMARIES = {"phantoms.captions": "report"}
# Name in the tables -> what it changes of the recipe.
VARIANTS = {"brgsa": {}, "no bank": NO_BANK, "no summaries": NO_SUMMARIES, "neither": NO_BANK | NO_SUMMARIES}
CEILING = "labels"
SETS = ("train", "validation", "test")
Sets = tuple[PhantomSet, PhantomSet, PhantomSet]  # to train on, to choose the checkpoint, to measure
Measured = tuple[dict[str, np.ndarray], dict[str, Any]]
_steps_done: Any = None  # of all runs together; set in every worker process


@dataclass(frozen=True)
class Options:
    """What decides the result of a study. None stands for the value of the recipe."""

    recipe: str = RECIPE
    seeds: int = 3
    steps: int | None = None
    long_steps: int | None = None
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    version: int = VERSION

    def lasting(self) -> dict[str, Any]:
        """The options that a study keeps; seeds can be added to it, each is a run of its own."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "seeds"}

    def variant(self, name: str = "brgsa", seed: int = 0) -> PhantomRecipe:
        """The recipe of a row of the study with these options."""
        changes = {
            "training.seed": seed,
            "training.steps": self.steps,
            "phantoms.long_steps": self.long_steps,
            "phantoms.train": self.train,
            "phantoms.validation": self.validation,
            "phantoms.test": self.test,
            **VARIANTS.get(name, {}),
        }
        options = [f"--{key}={value}" for key, value in changes.items() if value is not None]
        return parse(["--config", self.recipe, *options], PhantomRecipe)[0]


@dataclass(frozen=True)
class Run:
    """One training of a study."""

    name: str
    seed: int
    folder: Path

    @property
    def result(self) -> Path:
        return self.folder / "result.json"


def runs_of(options: Options, out: Path) -> list[Run]:
    """All runs of a study, one seed of every recipe before the next seed."""
    return [
        Run(name, seed, out / "runs" / name.replace(" ", "-") / f"seed-{seed}")
        for seed in range(options.seeds)
        for name in (*VARIANTS, CEILING)
    ]


def run_study(options: Options, out: Path, jobs: int = 1, threads: int = 1) -> list[Run]:
    """Train and measure what is not there yet, and return all runs.

    Args:
        jobs: runs at a time, each in a process of its own.
        threads: of each.

    Raises:
        UsageError: the folder holds something else, or a study with other options, or another study is at work in it.
        OutOfMemoryError: a training was killed.
    """
    with output_folder(out, "study"):
        claim(out, "study.json", options.lasting())
        config = options.variant().phantoms
        for name, seeds in zip(SETS, config.seeds(), strict=True):
            if not voxels_path(out, name).is_file():
                save_voxels(voxels_path(out, name), seeds, config, max(jobs, threads))
        runs = runs_of(options, out)
        missing = [run for run in runs if not run.result.is_file()]
        for run in runs:
            if run not in missing:
                _remove_checkpoints(run)  # of a run that was killed when all else was done
        steps = config.long_steps + options.variant().training.steps
        done = multiprocessing.get_context("spawn").Value("q", 0)
        with (
            tqdm(total=len(missing) * steps, desc="study", unit="step") as bar,
            process_pool(jobs, _start_worker, (threads, done)) as pool,
        ):
            waiting = [pool.submit(train_and_measure, run, options, out) for run in missing]
            try:
                while waiting:
                    time.sleep(0.5)
                    bar.update(done.value - bar.n)
                    for job in [job for job in waiting if job.done()]:
                        job.result()
                        waiting.remove(job)
            except BrokenProcessPool as error:
                raise OutOfMemoryError(
                    "a training was killed, most likely for lack of memory. "
                    f"Run again with --jobs {max(1, jobs // 2)}; finished trainings are kept."
                ) from error
            except BaseException:
                kill_workers(pool)  # a training goes on from its checkpoint
                raise
        return runs


def voxels_path(out: Path, name: str) -> Path:
    """File of the voxels of a set of phantoms."""
    return out / "phantoms" / f"{name}.npy"


class _Progress:
    """Adds the steps of one run to the bar of all runs: at every validation, and what is left when the run is done."""

    def __init__(self, recipe: PhantomRecipe):
        self.left, self.part = recipe.phantoms.long_steps + recipe.training.steps, recipe.training.validate_every

    def validated(self, _: float) -> None:
        self._add(min(self.part, self.left))

    def done(self) -> None:
        self._add(self.left)

    def _add(self, steps: int) -> None:
        self.left -= steps
        if _steps_done is not None:
            with _steps_done.get_lock():
                _steps_done.value += steps


def train_and_measure(run: Run, options: Options, out: Path) -> None:
    """One run of a study from phantoms to `result.json`, in a process of its own."""
    started = time.perf_counter()
    run.folder.mkdir(parents=True, exist_ok=True)
    with (
        (run.folder / "log.txt").open("a", encoding="utf-8") as log,
        contextlib.redirect_stderr(log),
        contextlib.redirect_stdout(log),
    ):
        recipe = options.variant(run.name, run.seed)
        sets = tuple(
            phantom_set(seeds, recipe.phantoms, voxels=voxels_path(out, name))
            for name, seeds in zip(SETS, recipe.phantoms.seeds(), strict=True)
        )
        vocabulary = run.folder / "vocab.txt"
        write_vocabulary(vocabulary, sets[0].studies)
        recipe.data.vocabulary = str(vocabulary)
        measured, progress = _supervised if run.name == CEILING else _with_words, _Progress(recipe)
        scores, facts = measured(run, recipe, sets, progress)
        progress.done()
        with atomic_open(run.folder / "scores.npz", "wb") as file:
            np.savez(file, **scores)
    write_json(run.result, {"name": run.name, "seed": run.seed, "seconds": time.perf_counter() - started, **facts})
    _remove_checkpoints(run)


def _remove_checkpoints(run: Run) -> None:
    """Remove the folders of the two stages of a run whose result is written."""
    for stage in ("first-stage", "run"):
        remove_run(run.folder / stage)


def _supervised(run: Run, recipe: PhantomRecipe, sets: Sets, progress: _Progress) -> Measured:
    """Logits of the test phantoms, which stand in the place of `direct` scores."""
    logits, macro = supervised_scores(recipe, *sets, on_validation=progress.validated)
    return {"direct": logits}, {"validation_auroc": macro}


def _with_words(run: Run, recipe: PhantomRecipe, sets: Sets, progress: _Progress) -> Measured:
    """Scores of the test phantoms by kind, and what else there is to say of the run."""
    train, validation, test = sets
    has_bank = recipe.loss.bank_contrastive > 0 or recipe.loss.reconstruction > 0
    kind = "final" if has_bank else "direct"
    tokenizer = PromptTokenizer(recipe.data.vocabulary, recipe.model.text_length)

    def judge(model: BrgSAModel) -> float:
        scores = phantom_scores(model, tokenizer, validation.volumes, kind)
        macro = float(np.nanmean(aurocs(scores, validation.labels)))
        progress.validated(macro)
        return 1 - macro

    result = train_in_stages(recipe, run.folder, train, validation, judge, resume=True)
    model = open_weights(result.weights).load_model()
    image, asked = image_embeddings(model, test.volumes), text_embeddings(model, tokenizer, prompts())
    kinds = ("direct", "final") if has_bank else ("direct",)
    scores = {kind: zero_shot_scores(model, image, asked, kind) for kind in kinds}
    facts = {
        "validation_auroc": 1 - result.judgement,
        "best_step": result.best_step,
        **_alignment(model, image, text_embeddings(model, tokenizer, captions(test, recipe)), has_bank),
    }
    if not (run.folder / "weights").exists():  # else an earlier run was killed after it had copied the same ones
        with atomic_folder(run.folder / "weights") as temporary:
            shutil.copytree(result.weights, temporary, dirs_exist_ok=True)
    return scores, facts


def captions(phantoms: PhantomSet, recipe: PhantomRecipe) -> list[str]:
    """One caption per phantom, drawn as in training, the same for every seed of the training."""
    fewest, most = recipe.data.fewest_sentences, recipe.data.sentences
    return [
        " ".join(draw_sentences(study.sentences, fewest, most, np.random.default_rng((number, 1))))
        for number, study in enumerate(phantoms.studies)
    ]


@torch.inference_mode()
def _alignment(model: BrgSAModel, image: torch.Tensor, text: torch.Tensor, has_bank: bool) -> dict[str, Any]:
    """The gap between test phantoms and their captions, and the use of the bank."""
    patients = tuple(str(number) for number in range(len(image)))
    gaps = [measure_gap(image.cpu().numpy(), text.cpu().numpy(), patients, BEFORE)]
    usage = {}
    if has_bank:
        gaps.append(measure_gap(model.bank(image).cpu().numpy(), model.bank(text).cpu().numpy(), patients, AFTER))
        for modality, embeddings in (("image", image), ("text", text)):
            usage[modality] = vars(bank_usage(model.bank.weights(embeddings).double().cpu().numpy()))
    return {"gaps": gaps, "bank": usage}


def _start_worker(threads: int, done: Any) -> None:
    global _steps_done
    _steps_done = done
    torch.set_num_threads(threads)


def read_scores(runs: Sequence[Run]) -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Scores by kind and the facts of every run."""
    read = []
    for run in runs:
        with np.load(run.folder / "scores.npz", allow_pickle=False) as stored:
            read.append(({kind: stored[kind] for kind in stored.files}, json.loads(run.result.read_text("utf-8"))))
    return read
