"""Time retrieval over 3,039 and over 25,000 pairs of embeddings (768 numbers).

python Testing/benchmarks/bench_retrieval.py [--pairs 3039 25000]
"""

import argparse
import os
import resource
import time

import numpy as np

from brgsa_training.evaluate.pairs import unit
from brgsa_training.evaluate.retrieval import nearest, pair_ranks, recall_hits

WIDTH = 768


def pairs(n, seed=0):
    """Return unit image and text embeddings that share a part, so that ranks are neither all first nor random."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, WIDTH), dtype=np.float32)
    sides = []
    for _ in range(2):
        side = rng.standard_normal((n, WIDTH), dtype=np.float32)
        side *= 3
        side += shared
        sides.append(unit(side))
    return sides


def timed(function, *arguments):
    """Return the result and the seconds that passed, with the processor's seconds over all threads."""
    start, used = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, f"{time.perf_counter() - start:.2f} ({time.process_time() - used:.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, nargs="+", default=[3039, 25000])
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'all')} of {os.cpu_count()} cores\n")
    print(
        "| pairs | both directions, s (processor s) | R@10 | nearest 50 volumes, s (processor s) | peak memory, MiB |"
    )
    print("|---|---|---|---|---|")
    for n in parser.parse_args().pairs:
        image, text = pairs(n)
        (better, ties, _, _), ranked = timed(pair_ranks, text, image)
        recall = recall_hits(better, ties, [10]).mean()
        _, near = timed(nearest, image, image, 50, np.arange(n))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {n:,} | {ranked} | {recall:.3f} | {near} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
