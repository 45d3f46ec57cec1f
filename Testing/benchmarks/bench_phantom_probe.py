"""How visible each abnormality is at the coarse resolution: AUROC of a small supervised network on fresh phantoms.

    python Testing/benchmarks/bench_phantom_probe.py [--train 1500] [--test 500] [--epochs 8] [--seed 0]

A ceiling for training with words, not a goal: the network sees the true labels. Takes a few minutes on one core.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm import tqdm

from brgsa_training.phantom.phantom import make_labels, make_volumes
from brgsa_training.phantom.prevalence import prevalences

TEST_SEEDS_FROM = 5_000_000
# Rows of the coarse grid (Posterior axis) that a body can reach.
BODY_ROWS = slice(8, 56)


class Probe(nn.Module):
    """Four strided convolutions, mean and maximum over space, one linear layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        widths = (16, 32, 64, 64)
        layers, width_in = [], 1
        for width in widths:
            layers += [nn.Conv3d(width_in, width, 3, stride=2, padding=1), nn.BatchNorm3d(width), nn.ReLU()]
            width_in = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width_in, outputs)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """(B, 1, X, Y, Z) in [-1, 1] to (B, abnormalities) logits."""
        features = self.features(volumes)
        return self.head(torch.cat([features.mean((2, 3, 4)), features.amax((2, 3, 4))], 1))


def volumes_of(seeds: range) -> torch.Tensor:
    return torch.from_numpy(np.stack([make_volumes([seed])[0][:, BODY_ROWS] for seed in tqdm(seeds, unit="phantom")]))


def batch_of(volumes: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return volumes[index].float().div_(127.5).sub_(1)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    started = time.perf_counter()
    train_seeds = range(options.seed * 100_000, options.seed * 100_000 + options.train)
    test_seeds = range(TEST_SEEDS_FROM, TEST_SEEDS_FROM + options.test)
    volumes, labels = volumes_of(train_seeds), torch.from_numpy(make_labels(train_seeds)).float()
    test_volumes, test_labels = volumes_of(test_seeds), make_labels(test_seeds)
    made = time.perf_counter() - started
    model = Probe(labels.shape[1])
    steps = options.epochs * (len(volumes) // 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    loss_of = nn.BCEWithLogitsLoss()
    for _ in tqdm(range(options.epochs), unit="epoch"):
        for index in torch.randperm(len(volumes)).split(16)[: len(volumes) // 16]:
            loss = loss_of(model(batch_of(volumes, index)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(batch_of(test_volumes, i)) for i in torch.arange(len(test_volumes)).split(50)])
    print(f"{'abnormality':38} group   positives  AUROC")
    aurocs = []
    for column, row in enumerate(prevalences()):
        truth = test_labels[:, column]
        aurocs.append(roc_auc_score(truth, scores[:, column].numpy()) if 0 < truth.sum() < len(truth) else np.nan)
        print(f"{row.name:38} {row.group:7} {int(truth.sum()):9}  {aurocs[-1]:.3f}")
    top = sorted(aurocs, reverse=True)[:5]
    print(f"macro {np.nanmean(aurocs):.3f}, five strongest {np.mean(top):.3f}, loss {loss.item():.3f}")
    print(f"{made:.0f} s to make the phantoms, {time.perf_counter() - started - made:.0f} s to train and test")


if __name__ == "__main__":
    main()
