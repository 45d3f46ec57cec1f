"""Do heat maps lie on the lesions? Measured on digital phantoms, whose lesion masks are known.

Each phantom has one abnormality. The mass of a map inside the mask (grown by 12 mm) is divided by the mass that a map
which is even over the body would have there: 1 is no better than knowing where the body is. Compared with

* other words: the map of an abnormality that is not there, on the same phantom;
* shuffled: the same map with its patches inside the body in random order.

Pointing game: is the map's maximum inside the grown mask? Chance is the mask's share of the body.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brgsa.abnormalities import Abnormality
from brgsa.ct.volume import CTVolume
from brgsa.heatmap import attention_rollout, patch_similarity, to_scan
from brgsa.preprocess import ModelGrid, grid_to_ct, to_grid, to_input
from brgsa.prompts import prompt_sets
from brgsa.scoring import Scorer
from brgsa_training.phantom.phantom import COARSE, make_phantom

GROWN_MM = 12.0
BODY_HU = -700.0  # lungs included, air around the body not
_LEAST_SHARE = 0.2  # of a patch inside the body, for the patch to be shuffled


@dataclass(frozen=True)
class Trial:
    """One phantom with one abnormality.

    Attributes:
        abnormality: what the phantom has.
        own, other_words, shuffled: mass ratios of the map of its own words, of other words, and of its own, shuffled.
        hit, other_hit: whether the maximum of the first two maps lies in the mask.
        chance: the mask's share of the body.
    """

    abnormality: str
    own: float
    other_words: float
    shuffled: float
    hit: bool
    other_hit: bool
    chance: float


def trials(
    scorer: Scorer, names: Sequence[str], seeds: Sequence[int], method: str = "rollout", severity: float = 1.0
) -> Iterator[Trial]:
    """Measure one phantom per abnormality and seed. The other words are those of the name half the list away.

    Args:
        names: at least two abnormalities that phantoms can show.
        seeds: of the patients; choose ones that the weights were not trained on.
        method: "rollout" or "similarity".
        severity: 0.35 to 1.
    """
    texts = {name: _text(scorer, name) for name in names}
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(names):
        other = names[(number + len(names) // 2) % len(names)]
        for seed in seeds:
            phantom = make_phantom(seed, COARSE, masks=True, present={name: severity})
            scan = CTVolume(phantom.voxels, COARSE.spacing, COARSE.affine, source=None)
            hu, grid = to_grid(scan, scorer.weights.plan)
            volume = torch.from_numpy(to_input(hu, scorer.weights.plan))[None]
            body = _body(phantom.voxels) & (grid_to_ct(np.ones(grid.shape, np.float32), grid) > 0)
            mask = _grown(phantom.masks[name]) & body
            if not mask.any():
                continue  # the lesion is too small for this grid
            own, others = _METHODS[method](scorer, volume, [texts[name], texts[other]])
            maps = (own, others, _shuffled(own, _body(hu), generator))
            (mass, hit), (other_mass, other_hit), (mixed_mass, _) = (_measure(each, grid, mask, body) for each in maps)
            yield Trial(name, mass, other_mass, mixed_mass, hit, other_hit, float(mask.sum() / body.sum()))


def _rollout(scorer: Scorer, volume: Tensor, texts: Sequence[Tensor]) -> list[Tensor]:
    return list(attention_rollout(scorer.model, volume, texts))


def _similarity(scorer: Scorer, volume: Tensor, texts: Sequence[Tensor]) -> list[Tensor]:
    return [each - each.min() for each in patch_similarity(scorer.model, volume, texts)]


_METHODS: dict[str, Callable[[Scorer, Tensor, Sequence[Tensor]], list[Tensor]]] = {
    "rollout": _rollout,
    "similarity": _similarity,
}


def _text(scorer: Scorer, name: str) -> Tensor:
    vectors = torch.from_numpy(scorer.embed_texts(prompt_sets(Abnormality(name), "single")[0]))
    return F.normalize(vectors, dim=-1).mean(0)


def _body(hu: np.ndarray) -> np.ndarray:
    """Voxels with tissue on both sides along every axis: body and lungs without the air around, bool (X, Y, Z)."""
    tissue = hu > BODY_HU
    inside = np.ones(hu.shape, bool)
    for axis in range(3):
        forward = np.logical_or.accumulate(tissue, axis)
        backward = np.flip(np.logical_or.accumulate(np.flip(tissue, axis), axis), axis)
        inside &= forward & backward
    return inside


def _grown(lesion: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(lesion, np.ones((3, 3, 3), bool), iterations=round(GROWN_MM / COARSE.spacing[0]))


def _shuffled(patches: Tensor, body: np.ndarray, generator: torch.Generator) -> Tensor:
    """The patches that touch the body in random order."""
    share = F.adaptive_avg_pool3d(torch.from_numpy(body).float()[None, None], patches.shape)[0, 0]
    inside, mixed = (share > _LEAST_SHARE).nonzero(as_tuple=True), patches.clone()
    mixed[inside] = patches[inside][torch.randperm(len(inside[0]), generator=generator)]
    return mixed


def _measure(patches: Tensor, grid: ModelGrid, mask: np.ndarray, body: np.ndarray) -> tuple[float, bool]:
    """Mass inside the mask over that of an even map of the body, and whether the maximum is in the mask."""
    values = to_scan(patches, grid) * body
    share = values[mask].sum() / max(float(values.sum()), 1e-12)
    return float(share / (mask.sum() / body.sum())), bool(mask.flat[values.argmax()])
