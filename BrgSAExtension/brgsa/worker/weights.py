"""What the worker answers about weights, the disk cache and this computer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brgsa.errors import UsageError
from brgsa.worker.job import Job


def doctor(job: Job) -> Mapping[str, Any]:
    from brgsa.doctor import diagnose

    return {"doctor": diagnose()}


def list_weights(job: Job) -> Mapping[str, Any]:
    from brgsa.weights.folder import registry

    rows = [
        {"name": row.name, "description": row.description, "licence": row.licence, "how_to_get": row.how_to_get}
        | {"shipped": row.folder is not None}
        for row in registry().values()
    ]
    return {"weights": rows}


def describe(job: Job) -> Mapping[str, Any]:
    from brgsa.weights.folder import open_weights

    weights = open_weights(job.values["weights"])
    return {
        "weights": weights.describe(),
        "licence": (weights.folder / "LICENSE").read_text(encoding="utf-8", errors="replace"),
    }


def verify_files(job: Job) -> Mapping[str, Any]:
    from brgsa.weights.folder import open_weights, verify

    job.progress(0.1, "reading every file of the weights")
    weights = open_weights(job.values["weights"])
    return {"problems": verify(weights.folder, fresh=True), "checksum": weights.checksum}


def import_weights(job: Job) -> Mapping[str, Any]:
    from brgsa.weights.folder import import_bundle, import_released

    source, folder = Path(job.values["source"]), job.values["out"]
    if source.suffix.lower() == ".zip":
        job.progress(0.1, "unpacking the bundle")
        return {"folder": str(import_bundle(source, folder))}
    if job.values["text"] is None:
        raise UsageError('to import a checkpoint the request "weights/import" needs "text", the text encoder\'s folder')
    stages = iter((0.1, 0.5, 0.7))

    def on_stage(stage: str) -> None:
        job.progress(next(stages, 0.9), stage)

    return {"folder": str(import_released(source, job.values["text"], folder, on_stage))}


def delete(job: Job, forget: Callable[[], None]) -> Mapping[str, Any]:
    from brgsa.weights.folder import remove_weights

    forget()
    size, left = remove_weights(job.values["folder"])
    return {"bytes": size, "left": left}


def clear_cache(job: Job) -> Mapping[str, Any]:
    from brgsa.files.embedding_cache import EmbeddingCache

    return {"removed": EmbeddingCache().clear()}
