"""Time one query of `brgsa similar` against indices of random unit vectors, 768 numbers each as in the released model.

python Testing/benchmarks/bench_similar.py [--vectors 10000 100000]

A query is `ScanIndex.nearest`: the search without loading weights and without encoding. Every index is written to a
temporary folder (6 kB per vector), opened, and asked once before the clock starts, so that its files are in memory.
"""

import argparse
import os
import resource
import tempfile
import time

import numpy as np

from brgsa.batch.index import write_index
from brgsa.batch.search import ScanIndex
from brgsa.files.output_folder import output_folder

WIDTH = 768
PART = 10_000


def random_rows(count, seed=0):
    """Yield parts of two equal matrices of random unit vectors."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, PART):
        rows = rng.standard_normal((min(PART, count - start), WIDTH), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield rows, rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--folder", help="for the temporary indices (default: the system's)")
    arguments = parser.parse_args()
    print(
        f"threads: {os.environ.get('OMP_NUM_THREADS', 'all')} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(
        "\n| vectors | query, ms: median | best | worst | processor ms | open, s | own row first | peak memory, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for count in arguments.vectors:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            scans = [(f"case-{n:07d}", f"/scans/{n:07d}.nii.gz", "", "") for n in range(count)]
            about = {"weights": "random", "weights_checksum": "", "embedding_size": WIDTH}
            with output_folder(folder, "index") as held:
                write_index(held, about, scans, random_rows(count))
            started = time.perf_counter()
            index = ScanIndex.open(folder)
            opened = time.perf_counter() - started
            rows = np.random.default_rng(1).integers(0, count, arguments.queries)
            queries = [np.array(index.matrices["direct"][row], np.float64) for row in rows]
            index.nearest("direct", queries[0], 5)
            seconds, used, first = [], time.process_time(), 0
            for row, query in zip(rows, queries, strict=True):
                started = time.perf_counter()
                hits = index.nearest("direct", query, 5)
                seconds.append(time.perf_counter() - started)
                first += hits[0].row == row
            used = (time.process_time() - used) / len(queries)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            median, best, worst = (1000 * value for value in (np.median(seconds), min(seconds), max(seconds)))
            print(
                f"| {count:,} | {median:.1f} | {best:.1f} | {worst:.1f} | {1000 * used:.1f} | {opened:.2f} "
                f"| {first} of {len(queries)} | {peak:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
