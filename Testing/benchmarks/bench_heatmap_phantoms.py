"""Do the heat maps of weights lie on the lesions? Digital phantoms with known lesion masks.

    python Testing/benchmarks/bench_heatmap_phantoms.py [--count 10] [--weights phantom]

What is measured: brgsa_training/phantom/localization.py.
"""

import argparse

import numpy as np
from tqdm import tqdm

from brgsa.scoring import Scorer
from brgsa_training.phantom.localization import trials
from brgsa_training.phantom.prevalence import labels

SEEDS_FROM = 9_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10, help="phantoms per abnormality (default %(default)s)")
    parser.add_argument("--weights", default="phantom")
    parser.add_argument("--severity", type=float, default=1.0)
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.weights, device="cpu", precision="fp32", cache=False)
    names = list(labels())
    seeds = range(SEEDS_FROM, SEEDS_FROM + options.count)
    notice = scorer.weights.notice or "trained"
    print(f"\n{options.count} phantoms per abnormality, severity {options.severity:g}; {options.weights}: {notice}")
    for method in ("rollout", "similarity"):
        measured = list(
            tqdm(
                trials(scorer, names, seeds, method, options.severity),
                total=len(names) * len(seeds),
                desc=method,
                unit="phantom",
            )
        )
        print(f"\n{method}\n")
        print("| abnormality | mask / body | mass ratio | other words | shuffled | hits | other words | chance |")
        print("|---|---|---|---|---|---|---|---|")
        rows = []
        for name in dict.fromkeys(trial.abnormality for trial in measured):
            rows.append(np.mean([row(trial) for trial in measured if trial.abnormality == name], axis=0))
            print_row(name, rows[-1])
        print_row(f"mean of {len(rows)}", np.mean(rows, axis=0))
        better = sum(own > max(other, mixed, 1) for _, own, other, mixed, *_ in rows)
        print(f"\nhigher mass than with other words, shuffled and even: {better} of {len(rows)}")


def row(trial):
    return trial.chance, trial.own, trial.other_words, trial.shuffled, trial.hit, trial.other_hit


def print_row(name, values):
    chance, own, other, mixed, hit, other_hit = values
    print(
        f"| {name} | {chance:.1%} | {own:.2f} | {other:.2f} | {mixed:.2f} "
        f"| {hit:.0%} | {other_hit:.0%} | {chance:.0%} |"
    )


if __name__ == "__main__":
    main()
