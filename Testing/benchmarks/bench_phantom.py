"""How many phantoms a core makes per second on each named grid.

python Testing/benchmarks/bench_phantom.py [--count 100] [--workers 1]
"""

import argparse
import time

from threadpoolctl import threadpool_limits

from brgsa.processes import process_pool
from brgsa_training.phantom.phantom import COARSE, FULL, make_phantom, make_volumes


def one(job) -> None:
    seed, grid = job
    make_volumes([seed], grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="coarse phantoms; a tenth as many full ones")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{'grid':24} {'workers':>7} {'wall ms each':>12} {'CPU ms each':>11} {'per second':>10}")
    for name, grid, count in (("coarse", COARSE, options.count), ("full", FULL, max(1, options.count // 10))):
        with threadpool_limits(1):  # as `phantom generate` and `train-demo` paint
            make_phantom(0, grid)
            started, cpu = time.perf_counter(), time.process_time()
            make_volumes(range(count), grid)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(
            f"{name + ' ' + str(grid.shape):24} {1:7} {seconds / count * 1e3:12.1f} {cpu / count * 1e3:11.1f} "
            f"{count / seconds:10.1f}"
        )
        with process_pool(options.workers, threadpool_limits, (1,)) as pool:
            list(pool.map(one, [(seed, grid) for seed in range(options.workers)]))
            started = time.perf_counter()
            list(pool.map(one, [(seed, grid) for seed in range(count)], chunksize=8))
            seconds = time.perf_counter() - started
        print(f"{name:24} {options.workers:7} {seconds / count * 1e3:12.1f} {'':11} {count / seconds:10.1f}")


if __name__ == "__main__":
    main()
