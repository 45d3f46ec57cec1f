"""Volumes alone, for pretraining the image encoder; the interface of `PairDataset` without captions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from brgsa_training.data.augmentation import random_crop
from brgsa_training.data.captions import CaptionTokenizer, Study
from brgsa_training.data.pairs import Batch, Pair, PairDataset, Volumes
from brgsa_training.data.sampler import Key


class VolumeDataset(PairDataset):
    """Every volume once per epoch, cropped at random; `studies` are the cases.

    Args:
        volumes, crop, seed: see `PairDataset`.
    """

    def __init__(self, volumes: Volumes, *, crop: tuple[int, int, int] | None = None, seed: int = 0):
        studies = [Study(case, (case,), ()) for case in sorted(volumes.cases)]
        super().__init__(volumes, studies, _NoCaptions(), crop=crop, seed=seed)

    def __getitem__(self, key: Key) -> Pair:
        epoch, number = key
        (case,) = self.studies[number].cases
        seed = int(np.random.default_rng((self.seed, epoch, number)).integers(2**32, dtype=np.uint64))
        return Pair(case, case, random_crop(self.volumes.volume(case), self.shape, seed), [])

    def batch(self, voxels: Tensor, pairs: Sequence[Pair]) -> Batch:
        nothing = torch.empty((len(pairs), 0), dtype=torch.int64)
        return Batch(voxels, nothing, nothing, [pair.case for pair in pairs])


class _NoCaptions(CaptionTokenizer):
    def __init__(self):
        pass
