"""Pairs of a volume and a caption, drawn anew in every epoch, and batches of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from brgsa.errors import InputError
from brgsa.preprocess import PreprocessingPlan
from brgsa_training.data.augmentation import Augmentation, random_crop
from brgsa_training.data.captions import CaptionTokenizer, Study, draw_sentences
from brgsa_training.data.sampler import Key


class Volumes(Protocol):
    """Where volumes come from: `VolumeCache` or `ArrayVolumes`. HU = volume * slope + intercept."""

    plan: PreprocessingPlan
    shape: tuple[int, int, int]
    slope: float
    intercept: float
    cases: Mapping[str, Any]

    def volume(self, case: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Pair:
    """A volume (X, Y, Z) in the type in which it is stored, and the word pieces of its caption."""

    study: str
    case: str
    voxels: np.ndarray
    ids: list[int]


@dataclass
class Batch:
    """B pairs: voxels (B, 1, X, Y, Z) as stored, word pieces and mask (B, T), and the names of the cases."""

    voxels: Tensor
    ids: Tensor
    mask: Tensor
    cases: list[str]


class PairDataset:
    """One pair per study and epoch: a random reconstruction, a random crop of it, and a random caption.

    All draws depend on (seed, epoch, study) only: not on the number of processes, and not on where a run was cut.

    Args:
        volumes: where volumes come from.
        studies: what to draw from.
        tokenizer: of captions.
        crop: voxels (X, Y, Z) of the training crop; None for whole volumes, as the released validation has it.
        sentences: fewest and most sentences of a caption; (5, 5) in the released recipe.
        augmentation: further random changes.
        seed: of all draws.

    Raises:
        InputError: the crop is larger than the volumes.
    """

    def __init__(
        self,
        volumes: Volumes,
        studies: Sequence[Study],
        tokenizer: CaptionTokenizer,
        *,
        crop: tuple[int, int, int] | None = None,
        sentences: tuple[int, int] = (5, 5),
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ):
        self.volumes, self.studies, self.tokenizer = volumes, list(studies), tokenizer
        self.shape = tuple(crop or volumes.shape)
        self.sentences, self.seed = sentences, seed
        self.augmentation = augmentation if augmentation and augmentation.probability > 0 else None
        if any(side > whole for side, whole in zip(self.shape, volumes.shape, strict=True)):
            raise InputError(
                f"a crop of {self.shape} voxels is larger than the volumes of {volumes.shape}. "
                "Lower data.crop or use another cache."
            )
        # Augmented volumes are HU already.
        self.slope, self.intercept = (1.0, 0.0) if self.augmentation else (volumes.slope, volumes.intercept)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of the voxels in a batch."""
        if self.augmentation:
            return torch.float32
        stored = self.volumes.volume(self.studies[0].cases[0]).dtype
        return torch.from_numpy(np.empty(0, stored)).dtype

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, key: Key) -> Pair:
        """The pair of `key` = (epoch, number of the study).

        Raises:
            InputError: a damaged volume, or a study without a word.
        """
        epoch, number = key
        study = self.studies[number]
        rng = np.random.default_rng((self.seed, epoch, number))
        case = study.cases[int(rng.integers(len(study.cases)))]
        crop_seed, change_seed = (int(seed) for seed in rng.integers(2**32, size=2, dtype=np.uint64))
        ids = self.tokenizer.encode(draw_sentences(study.sentences, *self.sentences, rng))
        if not ids:
            raise InputError(
                f"the study {study.name} has an empty caption after cleaning. Use sentences of two words or more."
            )
        voxels = random_crop(self.volumes.volume(case), self.shape, crop_seed)
        if self.augmentation:
            hu = voxels.astype(np.float32) * np.float32(self.volumes.slope) + np.float32(self.volumes.intercept)
            voxels = self.augmentation.apply(hu, change_seed)
        return Pair(study.name, case, voxels, ids)

    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """Put pairs into one batch; a memory-mapped volume is read here, straight to its place."""
        voxels = torch.empty((len(pairs), 1, *self.shape), dtype=self.dtype)
        for row, pair in zip(voxels, pairs, strict=True):
            row[0].numpy()[...] = pair.voxels
        return self.batch(voxels, pairs)

    def batch(self, voxels: Tensor, pairs: Sequence[Pair]) -> Batch:
        """Make a batch of pairs whose volumes lie in `voxels`, (B, 1, X, Y, Z), already."""
        ids, mask = self.tokenizer.pad_rows([pair.ids for pair in pairs])
        return Batch(voxels, torch.from_numpy(ids), torch.from_numpy(mask), [pair.case for pair in pairs])


def to_model_input(voxels: Tensor, plan: PreprocessingPlan, slope: float = 1.0, intercept: float = 0.0) -> Tensor:
    """Scale voxels as `brgsa.preprocess.to_input` does, on the device where they are; float32 of the same shape.

    HU = voxels * slope + intercept. The order of operations repeats the released transform (docs/method.md c.3).
    """
    low, high = plan.clip_hu
    x = voxels.to(torch.float32, copy=True)
    if slope != 1:
        x.mul_(slope)
    if intercept:
        x.add_(intercept)
    x.clamp_(low, high)
    return x.sub_(low).div_(high - low).mul_(2).sub_(1).sub_(plan.mean).div_(plan.std)
