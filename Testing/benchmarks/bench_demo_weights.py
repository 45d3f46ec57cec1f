"""Zero-shot AUROC of the demonstration weights on fresh phantoms, through files and `Scorer` as `brgsa score` does it.

python Testing/benchmarks/bench_demo_weights.py [--count 200] [--seed 30000000] [--grid coarse] [--weights phantom]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brgsa.abnormalities import AbnormalityList
from brgsa.scoring import Scorer
from brgsa_training.phantom.generate import write_nifti
from brgsa_training.phantom.grid import parse_grid
from brgsa_training.phantom.phantom import make_labels, make_phantom
from brgsa_training.phantom.prevalence import labels
from brgsa_training.phantom.zero_shot import auroc_summary, auroc_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=30_000_000, help="first seed; training used 10,000,000 and on")
    parser.add_argument("--grid", default="coarse")
    parser.add_argument("--weights", default="phantom")
    options = parser.parse_args()
    started, grid = time.perf_counter(), parse_grid(options.grid)
    scorer = Scorer.from_pretrained(options.weights, device="cpu", cache=False)
    wanted = AbnormalityList.from_names(labels())
    seeds, rows = range(options.seed, options.seed + options.count), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.nii.gz"
        for seed in tqdm(seeds, unit="phantom"):
            write_nifti(path, make_phantom(seed, grid).voxels, grid)
            rows.append([row.score for row in scorer.score(path, wanted).scores])
    scores, truth = np.array(rows), make_labels(seeds)
    print("\n".join(auroc_table(scores, truth)))
    print(auroc_summary(scores, truth))
    print(f"{options.count} phantoms from seed {options.seed}, {options.grid}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
