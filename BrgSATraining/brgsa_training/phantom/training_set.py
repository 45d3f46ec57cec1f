"""Phantoms as training takes them: volumes on the model's grid, captions, truth, and the recipe that says which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from brgsa.abnormalities import AbnormalityList
from brgsa.errors import UsageError
from brgsa.files import atomic_open, atomic_path
from brgsa.preprocess import PreprocessingPlan
from brgsa.processes import process_pool
from brgsa_training.data.arrays import ArrayVolumes
from brgsa_training.data.captions import Study, studies_of
from brgsa_training.phantom.generate import captions_of, case_name
from brgsa_training.phantom.phantom import COARSE, WINDOW_HU, make_labels, make_report, make_volumes
from brgsa_training.phantom.vocabulary import word_pieces
from brgsa_training.pretrain.recipe import Recipe

# First seeds of the training, validation and test phantoms. The first and the last are those of `phantom generate`
# --seed 1 and 2; the second lies far behind those of --seed 0.
SEEDS_FROM = 10_000_000, 6_000_000, 20_000_000
PER_JOB = 25


@dataclass
class PhantomConfig:
    """What is learned from.

    Attributes:
        train, validation, test: how many phantoms.
        test_from: first seed of the test phantoms.
        rows: voxels kept of the Posterior axis, from the middle; a body does not fill it.
        captions: what a caption is drawn from: `affirmed`, the summary and sentences of the report that affirm
            something; `report-and-summary`, the whole report and the summary, as the released captions have it; or
            `report`, the report alone.
        report_sentences: of captions `affirmed`, sentences of the report, at most.
        long_steps, long_sentences: before the training that the rest of the recipe describes, a first stage of this
            many steps whose captions have up to this many sentences, at a constant rate; 0 steps for none.
        mean, std: of the model's input, see `PreprocessingPlan`.
    """

    train: int = 8000
    validation: int = 500
    test: int = 2000
    test_from: int = SEEDS_FROM[2]
    rows: int = 48
    captions: Literal["affirmed", "report-and-summary", "report"] = "affirmed"
    report_sentences: int = 2
    long_steps: int = 300
    long_sentences: int = 8
    mean: float = -0.5
    std: float = 0.5

    def seeds(self) -> tuple[range, range, range]:
        """Seeds of the training, validation and test phantoms."""
        counts = (self.train, self.validation, self.test)
        starts = (*SEEDS_FROM[:2], self.test_from)
        return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))


@dataclass
class PhantomRecipe(Recipe):
    """A training recipe and the phantoms that it trains on."""

    phantoms: PhantomConfig = field(default_factory=PhantomConfig)


@dataclass(frozen=True)
class PhantomSet:
    """Phantoms of N seeds: their volumes, what is said of them, and labels (N, abnormalities)."""

    volumes: ArrayVolumes
    studies: list[Study]
    labels: np.ndarray


def phantom_set(
    seeds: Sequence[int], config: PhantomConfig, workers: int = 1, voxels: Path | None = None
) -> PhantomSet:
    """Make the phantoms of some seeds.

    Args:
        voxels: a file made by `save_voxels` of the same seeds, mapped into memory instead of painting them again.

    Raises:
        UsageError: the file holds other phantoms.
    """
    if voxels is None:
        volumes = phantom_volumes(seeds, config, workers)
    else:
        stored = np.load(voxels, mmap_mode="r", allow_pickle=False)
        if len(stored) != len(seeds) or stored.shape[2] != config.rows:
            raise UsageError(f"{voxels} holds phantoms of other options. Choose another folder, or the same options.")
        volumes = as_volumes(stored, seeds, config)
    return PhantomSet(volumes, phantom_studies(seeds, config), make_labels(seeds))


def save_voxels(path: Path, seeds: Sequence[int], config: PhantomConfig, workers: int = 1) -> None:
    """Write the voxels of some seeds as .npy, (N, X, Y, Z) uint8."""
    shape = (len(seeds), COARSE.shape[0], config.rows, COARSE.shape[2])
    with atomic_path(path) as temporary:
        voxels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        _paint(voxels, seeds, config, workers)
        voxels.flush()


def phantom_volumes(seeds: Sequence[int], config: PhantomConfig, workers: int = 1) -> ArrayVolumes:
    """Make coarse phantoms on the grid of the weights, in memory."""
    voxels = np.empty((len(seeds), COARSE.shape[0], config.rows, COARSE.shape[2]), np.uint8)
    _paint(voxels, seeds, config, workers)
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
    """One study per phantom with the sentences that `config.captions` asks for."""
    sentences = {}
    for seed in tqdm(seeds, desc="reports", unit="report", delay=2):
        _, report = make_report(seed)
        if config.captions == "affirmed":
            affirming = [sentence for sentence in report.sentences if sentence in report.positive]
            chosen = np.random.default_rng((seed, 1)).permutation(len(affirming))[: config.report_sentences]
            said = [*report.summary, *(affirming[at] for at in chosen)] or report.impression
        else:
            said = [*report.sentences, *(report.summary if config.captions == "report-and-summary" else ())]
        sentences[case_name(seed)] = captions_of(said)
    return studies_of(sentences)


def write_vocabulary(path: Path, studies: Sequence[Study]) -> None:
    """Pieces for the words of the captions and of every prompt that comes with brgsa."""
    said = [sentence for study in studies for sentence in study.sentences]
    presets = [AbnormalityList.preset(name) for name in AbnormalityList.presets()]
    asked = [prompt for preset in presets for row in preset for prompt in (*row.prompts, *row.negative_prompts)]
    with atomic_open(path, "w") as file:
        file.writelines(f"{piece}\n" for piece in word_pieces([*said, *asked]))


def _paint(voxels: np.ndarray, seeds: Sequence[int], config: PhantomConfig, workers: int) -> None:
    rows = slice((COARSE.shape[1] - config.rows) // 2, (COARSE.shape[1] + config.rows) // 2)
    jobs = [seeds[at : at + PER_JOB] for at in range(0, len(seeds), PER_JOB)]
    with tqdm(total=len(seeds), desc="phantoms", unit="phantom") as bar:
        for at, made in enumerate(_made(jobs, workers)):
            voxels[at * PER_JOB : at * PER_JOB + len(made)] = made[:, :, rows]
            bar.update(len(made))


def _made(jobs: Sequence[Sequence[int]], workers: int) -> Iterator[np.ndarray]:
    if workers == 1:
        with threadpool_limits(1):  # the products are too small to share between threads
            yield from map(make_volumes, jobs)
        return
    with process_pool(workers, threadpool_limits, (1,)) as pool:
        yield from pool.map(make_volumes, jobs)
