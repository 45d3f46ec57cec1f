"""What a recipe trains on: volumes, studies and the vocabulary, opened and checked against each other."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from brgsa.errors import InputError, UsageError
from brgsa_training.data.cache import VolumeCache
from brgsa_training.data.captions import CaptionTokenizer, Study, read_studies, warn_of_unused
from brgsa_training.data.pairs import PairDataset, Volumes
from brgsa_training.pretrain.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """Pairs to train on, pairs to validate on (None for no validation), and the tokenizer of their captions."""

    train: PairDataset
    validation: PairDataset | None
    tokenizer: CaptionTokenizer

    @property
    def fingerprint(self) -> str:
        """Stands for studies, their cases and sentences, so that a run goes on with the data it began with."""
        digest = hashlib.sha256()
        for pairs in filter(None, (self.train, self.validation)):
            for study in pairs.studies:
                digest.update(json.dumps([study.name, study.cases, study.sentences]).encode())
            digest.update(b"|")
        return digest.hexdigest()


def open_material(recipe: Recipe) -> Material:
    """Open the cache, captions and vocabulary that a recipe names.

    Raises:
        UsageError: the recipe names none.
        InputError: they cannot be read or do not belong together.
        SetupError: the vocabulary cannot be read.
    """
    data = recipe.data
    for name in ("cache", "captions"):
        if not getattr(data, name):
            raise UsageError(f"the recipe has no data.{name}. Give --data.{name} PATH.")
    cache = _open_cache(recipe, data.cache)
    studies = read_studies(data.captions, data.split, cache.cases)
    validation_cache = _open_cache(recipe, data.validation_cache) if data.validation_cache else cache
    if data.validation_split:
        held_out = read_studies(data.captions, data.validation_split, validation_cache.cases)
        _require_other_patients(studies, held_out, cache, validation_cache)
    else:
        studies, held_out = set_aside(studies, cache, data.validation_share)
    if validation_cache is cache:
        warn_of_unused(cache.cases, [*studies, *held_out])
    else:
        warn_of_unused(cache.cases, studies)
        warn_of_unused(validation_cache.cases, held_out)
    return material(recipe, cache, studies, validation_cache, held_out)


def material(
    recipe: Recipe,
    volumes: Volumes,
    studies: Sequence[Study],
    validation_volumes: Volumes | None = None,
    validation_studies: Sequence[Study] = (),
) -> Material:
    """Make the pairs of a recipe from volumes and studies that are at hand."""
    data = recipe.data
    vocabulary = data.vocabulary or (Path(recipe.start.text) / "vocab.txt" if recipe.start.text else None)
    if vocabulary is None:
        raise UsageError("the recipe has no data.vocabulary. Give --data.vocabulary vocab.txt, or --start.text FOLDER.")
    if not 1 <= data.fewest_sentences <= data.sentences:
        raise UsageError("data.fewest_sentences has to be between 1 and data.sentences.")
    tokenizer = CaptionTokenizer(vocabulary, recipe.model.text_length)
    sentences, seed = (data.fewest_sentences, data.sentences), recipe.training.seed
    train = PairDataset(
        volumes,
        studies,
        tokenizer,
        crop=data.crop,
        sentences=sentences,
        augmentation=data.augmentation,
        seed=seed,
    )
    held_out = None
    if validation_studies:
        held_out = PairDataset(
            validation_volumes or volumes, validation_studies, tokenizer, sentences=sentences, seed=seed
        )
    for pairs in filter(None, (train, held_out)):
        if any(side % patch for side, patch in zip(pairs.shape, recipe.model.patch_size, strict=True)):
            raise UsageError(
                f"volumes of {pairs.shape} voxels are not a multiple of the patch {tuple(recipe.model.patch_size)}. "
                "Change data.crop, model.patch_size or the cache."
            )
    return Material(train, held_out, tokenizer)


def set_aside(studies: Sequence[Study], volumes: Volumes, share: float) -> tuple[list[Study], list[Study]]:
    """Split studies into those to train on and those to validate on, by patient.

    A checksum of the patient's name decides, so a patient stays on its side when others come or go.
    """
    train, held_out = [], []
    for study in studies:
        patients = _patients(study, volumes)
        number = int(hashlib.sha256(min(patients).encode()).hexdigest()[:8], 16) / 16**8
        (held_out if number < share else train).append(study)
    if share > 0 and len(held_out) < 2:
        raise InputError(
            f"{len(studies)} studies are too few to set {share:g} of them aside. Raise data.validation_share."
        )
    return train, held_out


def _open_cache(recipe: Recipe, folder: str) -> VolumeCache:
    cache, data = VolumeCache.open(folder), recipe.data
    for name, wanted, found in (
        ("shape", data.shape, cache.plan.shape),
        ("spacing", data.spacing, cache.plan.spacing),
    ):
        if wanted is not None and tuple(wanted) != tuple(found):
            raise UsageError(
                f"{folder} was made with another plan: data.{name} is {tuple(wanted)}, the cache has {tuple(found)}. "
                "Preprocess again into a new folder, or change the recipe."
            )
    return cache


def _require_other_patients(train: Iterable[Study], held_out: Iterable[Study], *volumes: Volumes) -> None:
    ours = {patient for study in train for patient in _patients(study, volumes[0])}
    shared = ours & {patient for study in held_out for patient in _patients(study, volumes[1])}
    if shared:
        log.warning("%d patients are in training and in validation, for example %s", len(shared), min(shared))


def _patients(study: Study, volumes: Volumes) -> set[str]:
    return {getattr(volumes.cases[case], "patient", study.name) for case in study.cases}
