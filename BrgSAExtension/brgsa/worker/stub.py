"""A worker with made-up scores: `python -m brgsa.worker.stub`.

It speaks the whole protocol without torch, numpy or weights, so that the way from the panel to the table and back can
be tried on any machine; the self-test of the Slicer module uses it where BRGSA_STUB is set. A score depends on the
prompt alone.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from brgsa.abnormalities import Abnormality
from brgsa.worker.job import Job, RefusedError
from brgsa.worker.protocol import NOT_AVAILABLE
from brgsa.worker.server import Worker, protocol_streams

NOTICE = "stub: the scores are made up"


class StubScorer:
    """Has of `brgsa.scoring.Scorer` what the worker uses."""

    def prepare(self, path: str | os.PathLike, *, force: bool = False, on_progress) -> str | os.PathLike:
        """Return the path: nothing is read."""
        return path

    def embed(self, path: str | os.PathLike, *, case: str, on_progress) -> str:
        """Report some progress; return the case's name, which is all that is kept of a scan."""
        for step in range(5):
            on_progress(step / 5, "encoding the scan")
        return case

    def score_embedding(self, case: str, abnormalities: Iterable[Abnormality], *, prompts: str, kind: str):
        """Return made-up scores with the `to_dict` of `ScanScores`."""
        rows = [_row(each) for each in abnormalities]
        content = {
            "version": 1,
            "case": case,
            "path": "",
            "notice": NOTICE,
            "scores": rows,
            "findings": [],
            "flags": [],
            "messages": [],
            "settings": {"weights": "stub", "prompts": prompts, "score": kind, "device": "none", "precision": "fp32"},
            "seconds": {},
        }
        return SimpleNamespace(to_dict=lambda: content)


class StubWorker(Worker):
    """The worker with the stub in place of the model."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._handlers["weights/info"] = lambda job: {
            "weights": {"name": "phantom", "checksum": "stub"},
            "licence": "",
        }

    def open_scorer(self, job: Job) -> StubScorer:
        self._scorer = (("stub",), StubScorer())
        return self._scorer[1]

    def _check(self, job: Job) -> Mapping[str, Any]:
        return {"findings": []}

    def _heatmap(self, job: Job) -> Mapping[str, Any]:
        self.warm(job)
        raise RefusedError(NOT_AVAILABLE, "heat maps are not available from the stub.")

    def _report(self, job: Job) -> Mapping[str, Any]:
        self.warm(job)
        raise RefusedError(NOT_AVAILABLE, "reports are not available from the stub.")


def _row(abnormality: Abnormality) -> dict[str, Any]:
    score, threshold = _score(abnormality.prompts[0]), abnormality.threshold
    positive = None if threshold is None else score > threshold
    return {"name": abnormality.name, "score": score, "probability": None, "threshold": threshold, "positive": positive}


def _score(prompt: str) -> float:
    return hashlib.sha256(prompt.encode()).digest()[0] / 255


if __name__ == "__main__":
    sys.exit(StubWorker(*protocol_streams()).run())
