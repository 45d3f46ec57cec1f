"""What the worker answers about similar cases: it searches an index, makes one, and lists the files of a hit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgsa.errors import SetupError, UsageError
from brgsa.worker.job import Job
from brgsa.worker.scan import ScanRequests, cancel_points

if TYPE_CHECKING:
    import numpy

    from brgsa.batch.search import ScanIndex


def similar(job: Job, memory: ScanRequests) -> Mapping[str, Any]:
    """The scans of an index that are most like the scan in memory, or that fit a text best."""
    top, text = job.values["top"], job.values["text"]
    if (text is None) == (job.values["scan"] is None):
        raise UsageError('the request "similar" needs either "scan" or "text"')
    from brgsa.batch.search import ScanIndex, similar_to_embedding, similar_to_text

    index = ScanIndex.open(job.values["index"])
    own: list[int] = []
    if text is None:
        own = _own_rows(index, job)
        image = _image(index, job, memory)
        job.progress(0.95, "searching")
        hits, notes = similar_to_embedding(index, image, top, own), []
        weights = memory.warm(job)[1].weights
    else:
        scorer = memory.open_scorer(job)
        _require_weights(index, scorer)
        job.progress(0.95, "searching")
        hits, weights = similar_to_text(index, scorer, job.values["text"], top), scorer.weights
        notes = scorer.tokenizer.warnings([text])
    return {
        "hits": [hit.to_dict(rank) for rank, hit in enumerate(hits, 1)],
        "scans": len(index),
        "precision": index.about["precision"],
        "left_out": [index.case(row).name for row in own],
        "notice": weights.notice,
        "notes": notes,
    }


def update(job: Job, memory: ScanRequests) -> Mapping[str, Any]:
    """Make an index of the scans in a folder, or add them to one."""
    inputs, folder = job.values["inputs"], job.values["index"]
    if not inputs:
        raise UsageError('the request "index" needs at least one file or folder as "inputs"')
    force = job.values["force"]
    scorer = memory.open_scorer(job)
    from brgsa.batch.index import index_cases
    from brgsa.ct.cases import find_cases

    job.progress(0.3, "looking for scans")
    cases = find_cases(inputs)

    def progress(fraction: float, stage: str) -> None:
        job.progress(0.3 + 0.65 * fraction, stage)

    with cancel_points(scorer, job):
        result = index_cases(scorer, cases, folder, force=force, on_progress=progress)
    return {
        "scans": result.scans,
        "added": result.added,
        "changed": result.changed,
        "unchanged": result.unchanged,
        "moved": len(result.moved),
        "vanished": len(result.vanished),
        "failures": [{"case": failure.case, "reason": failure.reason} for failure in result.batch.failures],
    }


def series(job: Job) -> Mapping[str, Any]:
    """The files of a DICOM series in the order of its slices; "series" chooses one of several."""
    from brgsa.ct.dicom_series import choose_series

    chosen, _ = choose_series(Path(job.values["path"]), job.values["series"])
    return {"files": [str(image.path) for image in chosen.images]}


def _image(index: ScanIndex, job: Job, memory: ScanRequests) -> numpy.ndarray:
    """v of the scan in memory as the index has it: encoded again only where precision or fidelity differ."""
    scan, scorer = memory.warm(job)
    _require_weights(index, scorer)
    settings = (str(index.about.get("precision")), str(index.about.get("fidelity")))
    if settings == (scorer.precision, scorer.fidelity):
        return scan.embedding.image

    def progress(fraction: float, stage: str) -> None:
        job.progress(0.95 * fraction, stage)

    other = scorer.like(*settings)
    prepared = scan.prepared
    with cancel_points(other, job):
        if other.fidelity != scorer.fidelity:
            prepared = other.prepare(prepared.volume, force=True, on_progress=progress)
        return other.embed(prepared, on_progress=progress).image


def _own_rows(index: ScanIndex, job: Job) -> list[int]:
    """The rows that are the scan in memory, if the request says where it came from."""
    source = job.values["source"]
    if source is None:
        return []
    from brgsa.ct.cases import Case

    return index.rows_of(Case("", Path(source["path"]), source["series"]))


def _require_weights(index: ScanIndex, scorer: Any) -> None:
    made_with = index.about.get("weights_checksum")
    if scorer.weights.checksum != made_with:
        raise SetupError(
            f"the index was made with the weights {index.about.get('weights')} ({str(made_with)[:12]}), in use are "
            f"{scorer.weights.name} ({scorer.weights.checksum[:12]}), and their embeddings cannot be compared. "
            "Choose those weights and score the scan with them, or make another index."
        )
