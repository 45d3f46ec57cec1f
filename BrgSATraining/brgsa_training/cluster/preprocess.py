"""Filling a cache from a Ray cluster. All machines have to see the scans and the cache under the same paths."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from brgsa.preprocess import PreprocessingPlan
from brgsa_training.cluster.session import answer, connect, result_of
from brgsa_training.data.cache import CachedCase
from brgsa_training.data.preprocess import Failure, Job, PreprocessResult, preprocess, preprocess_scan
from brgsa_training.data.scan import Scan

SCANS_PER_BLOCK = 8


def preprocess_on_ray(
    scans: Sequence[Scan], folder: str | os.PathLike, plan: PreprocessingPlan, fidelity: str = "exact"
) -> PreprocessResult:
    """Do what `data.preprocess.preprocess` does, with one task of a Ray cluster per few scans.

    Raises:
        SetupError: Ray is not installed or cannot be reached.
        UsageError, BrgSAError: see `preprocess`.
    """
    connect()
    return preprocess(scans, Path(folder).absolute(), plan, fidelity, spread=_spread)


def _spread(jobs: Iterator[Job]) -> Iterator[CachedCase | Failure]:
    ray = connect()
    todo = list(jobs)
    if not todo:
        return
    shared = ray.put(todo)

    def work(row: dict) -> dict:
        return answer(lambda: preprocess_scan(*ray.get(shared)[int(row["id"])]))

    blocks = max(1, len(todo) // SCANS_PER_BLOCK)
    for row in ray.data.range(len(todo), override_num_blocks=blocks).map(work).iter_rows():
        yield result_of(row)
