"""Scoring many scans on a Ray cluster. All machines have to see scans, weights and results under the same paths."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brgsa.abnormalities import AbnormalityList
from brgsa.batch.loop import BatchResult
from brgsa.batch.score import SCORES, Shard, score_cases
from brgsa.ct.cases import Case
from brgsa.files.output_folder import require_output
from brgsa.scoring import Scorer
from brgsa_training.cluster.session import answer, connect, result_of

SHARDS_PER_WORKER = 8


def score_on_ray(
    weights: str,
    cases: Sequence[Case],
    abnormalities: AbnormalityList,
    out: str | os.PathLike,
    *,
    workers: int = 1,
    gpus_per_worker: float = 0.0,
    scorer_options: dict[str, Any] | None = None,
    **options: Any,
) -> BatchResult:
    """Do what `brgsa.batch.score.score_cases` does: shards of the cases go to workers that keep their model.

    The results are gathered here at the end; a case that failed on a worker is tried once more then.

    Args:
        weights: name or folder, see `Scorer.from_pretrained`.
        workers: models that are held at a time.
        gpus_per_worker: GPUs that each of them gets; may be a part of one.
        scorer_options: further arguments of `Scorer.from_pretrained`.
        options: of `score_cases`.

    Raises:
        SetupError: Ray is not installed or cannot be reached; or see `Scorer.from_pretrained`.
        UsageError, BrgSAError: see `score_cases`.
    """
    require_output(out, SCORES)
    ray = connect()
    out, cases = Path(out).absolute(), list(cases)
    scorer = Scorer.from_pretrained(weights, **(scorer_options or {}))  # before the workers: an error has one line here
    count = min(len(cases), workers * SHARDS_PER_WORKER)

    class Worker:
        def __init__(self):
            self.scorer = Scorer.from_pretrained(weights, **(scorer_options or {}))

        def __call__(self, row: dict) -> dict:
            shard = Shard(int(row["id"]) + 1, count)
            return answer(lambda: score_cases(self.scorer, cases, abnormalities, out, shard=shard, **options).done)

    shards = ray.data.range(count, override_num_blocks=count)
    scored = shards.map(Worker, concurrency=min(workers, count), num_gpus=gpus_per_worker)
    done = sum(result_of(row) for row in tqdm(scored.iter_rows(), "score", count, unit="shard", disable=None))
    result = score_cases(scorer, cases, abnormalities, out, **(options | {"overwrite": False}))
    return BatchResult(result.scores, result.failures, done + result.done, result.resumed - done)
