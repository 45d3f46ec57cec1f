"""Do the heat maps of the demonstration weights lie on the lesions? Digital phantoms with known lesion masks.

    python Testing/benchmarks/bench_heatmap_phantoms.py [--count 10] [--weights phantom]

Each phantom has one abnormality. The map's mass inside the mask (grown by 12 mm) is divided by the mass that a map
which is even over the body would have there: 1 is no better than knowing where the body is. Compared with

* other words: the map of an abnormality that is not there, on the same phantom;
* shuffled: the same map with its patches inside the body in random order.

Pointing game: is the map's maximum inside the grown mask? Chance is the mask's share of the body.
"""

import argparse

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch.nn import functional as F
from tqdm import tqdm

from brgsa.abnormalities import Abnormality
from brgsa.ct import CTVolume
from brgsa.heatmap import attention_rollout, patch_similarity, to_scan
from brgsa.preprocess import grid_to_ct, to_grid, to_input
from brgsa.prompts import prompt_sets
from brgsa.scoring import Scorer
from brgsa_training.phantom.phantom import COARSE, make_phantom
from brgsa_training.phantom.prevalence import labels

SEEDS_FROM = 9_000_000
GROWN_MM = 12.0
BODY_HU = -700.0  # lungs included, air around the body not


def rollout(model, volume, texts):
    return list(attention_rollout(model, volume, texts))


def similarity(model, volume, texts):
    maps = list(patch_similarity(model, volume, texts))
    return [each - each.min() for each in maps]


def body_of(hu):
    """Mask of the largest box that holds tissue in every slice direction: body and lungs without the air around."""
    tissue = hu > BODY_HU
    inside = np.ones(hu.shape, bool)
    for axis in range(3):
        forward = np.logical_or.accumulate(tissue, axis)
        backward = np.flip(np.logical_or.accumulate(np.flip(tissue, axis), axis), axis)
        inside &= forward & backward
    return inside


def shuffled(patches, body, generator):
    """The patches that touch the body in random order."""
    share = F.adaptive_avg_pool3d(torch.from_numpy(body).float()[None, None], patches.shape)[0, 0]
    inside, mixed = (share > 0.2).nonzero(as_tuple=True), patches.clone()
    mixed[inside] = patches[inside][torch.randperm(len(inside[0]), generator=generator)]
    return mixed


def measure(patches, grid, mask, body):
    """Mass inside the mask over that of an even map of the body, and whether the maximum is in the mask."""
    values = to_scan(patches, grid) * body
    mass = values[mask & body].sum() / max(values.sum(), 1e-12)
    return mass / ((mask & body).sum() / body.sum()), bool(mask.flat[values.argmax()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10, help="phantoms per abnormality (default %(default)s)")
    parser.add_argument("--weights", default="phantom")
    parser.add_argument("--severity", type=float, default=1.0)
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.weights, device="cpu", precision="fp32", cache=False)
    names = [name for name in labels() if name]
    texts = {}
    for name in names:
        vectors = torch.from_numpy(scorer.embed_texts(prompt_sets(Abnormality(name), "single")[0]))
        texts[name] = F.normalize(vectors, dim=-1).mean(0)
    generator = torch.Generator().manual_seed(0)
    structure = np.ones((3, 3, 3), bool)
    results = {}
    for number, name in enumerate(tqdm(names, unit="abnormality")):
        other = names[(number + len(names) // 2) % len(names)]
        for seed in range(SEEDS_FROM, SEEDS_FROM + options.count):
            phantom = make_phantom(seed, COARSE, masks=True, present={name: options.severity})
            lesion = phantom.masks[name].astype(bool)
            if not lesion.any():
                continue
            mask = binary_dilation(lesion, structure, iterations=round(GROWN_MM / COARSE.spacing[0]))
            scan = CTVolume(phantom.voxels, COARSE.spacing, COARSE.affine, source=None)
            hu, grid = to_grid(scan, scorer.weights.plan)
            volume = torch.from_numpy(to_input(hu, scorer.weights.plan))[None]
            body = body_of(phantom.voxels) & (grid_to_ct(np.ones(grid.shape, np.float32), grid) > 0)
            for method in (rollout, similarity):
                own, others = method(scorer.model, volume, [texts[name], texts[other]])
                maps = (own, others, shuffled(own, body_of(hu), generator))
                trial = [measure(each, grid, mask, body) for each in maps]
                chance = (mask & body).sum() / body.sum()
                results.setdefault((method.__name__, name), []).append((*trial, chance))

    notice = scorer.weights.notice or "trained"
    print(f"\n{options.count} phantoms per abnormality, severity {options.severity:g}; {options.weights}: {notice}")
    for method in ("rollout", "similarity"):
        print(f"\n{method}\n")
        print("| abnormality | mask / body | mass ratio | other words | shuffled | hits | other words | chance |")
        print("|---|---|---|---|---|---|---|---|")
        rows = []
        for name in names:
            trials = results.get((method, name))
            if not trials:
                continue
            ratios = [float(np.mean([trial[k][0] for trial in trials])) for k in range(3)]
            hits = [float(np.mean([trial[k][1] for trial in trials])) for k in range(2)]
            chance = float(np.mean([trial[3] for trial in trials]))
            rows.append((chance, *ratios, *hits, chance))
            print_row(name, rows[-1])
        print_row(f"mean of {len(rows)}", np.mean(rows, axis=0))
        better = sum(row[1] > max(row[2], row[3], 1) for row in rows)
        print(f"\nhigher mass than with other words, shuffled and even: {better} of {len(rows)}")


def print_row(name, row):
    mask, own, other, mixed, hit, other_hit, chance = row
    print(
        f"| {name} | {mask:.1%} | {own:.2f} | {other:.2f} | {mixed:.2f} | {hit:.0%} | {other_hit:.0%} | {chance:.0%} |"
    )


if __name__ == "__main__":
    main()
