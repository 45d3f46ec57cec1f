"""The JSON-lines server that 3D Slicer talks to: `brgsa worker`.

Reads one request a line from standard input, writes one message a line to what was standard output when it started;
whatever else the process prints goes to standard error. It keeps the model and the last scan's embedding, so that a
changed list of abnormalities costs only its new prompts. It ends when its standard input ends, whatever it is doing.

docs/worker-protocol.md describes the messages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from brgsa import __version__
from brgsa.errors import BrgSAError, OutOfMemoryError, SetupError, UsageError, first_line
from brgsa.protocol import (
    CANCELLED,
    ERROR_CODES,
    MEMORY_SUGGESTIONS,
    NO_SCAN,
    PROTOCOL_VERSION,
    UNEXPECTED,
)

if TYPE_CHECKING:
    from brgsa.abnormalities import Abnormality, AbnormalityList
    from brgsa.scoring import PreparedScan, ScanEmbedding, ScanScores, Scorer

# Memory that scoring takes, in multiples of the size of the weights: 3.5 GB for the 0.8 GB of the released model's size
# (`brgsa.doctor`).
GPU_MEMORY_FACTOR = 4

# So many new prompts are encoded in one thread, see `one_thread`.
FEW_PROMPTS = 4

# Seconds that running work has to end by itself after the other side has gone.
GRACE = 1.5


class CancelledError(Exception):
    """The other side no longer wants the answer."""


class RefusedError(BrgSAError):
    """A request that is understood but cannot be served; `code` says why."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Channel:
    """Writes messages, one JSON object a line, from any thread."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **values: Any) -> None:
        """Write one message; nothing happens when nobody reads any more."""
        line = json.dumps({"event": event, **values}, ensure_ascii=True, allow_nan=False, default=_plain)
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return


class Job:
    """One request that is being worked on.

    Attributes:
        id: what the answers carry.
        values: the fields of the request.
    """

    def __init__(self, request: Mapping[str, Any], channel: Channel):
        self.id = request["id"]
        self.name = request["request"]
        self.values = request
        self.cancelled = threading.Event()
        self._channel = channel

    def progress(self, fraction: float, stage: str) -> None:
        """Report progress, or end the work if the request was cancelled.

        Raises:
            CancelledError: it was.
        """
        self.check()
        self._channel.send("progress", id=self.id, fraction=round(float(fraction), 4), stage=stage)

    def check(self, *_: Any) -> None:
        """End the work if the request was cancelled.

        Raises:
            CancelledError: it was.
        """
        if self.cancelled.is_set():
            raise CancelledError

    def text(self, key: str, default: str | None = None) -> str:
        """Return a field that must be text.

        Raises:
            UsageError: it is missing or something else.
        """
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise UsageError(f'the request "{self.name}" needs "{key}" as text')
        return value


class Worker:
    """Answers requests one after the other; `cancel`, `ping` and the end of input are heeded at once.

    Args:
        requests: stream of request lines.
        answers: stream for message lines.
        end: called with an exit code when the input has ended and running work did not stop within `GRACE` seconds.
    """

    def __init__(self, requests: IO[str], answers: IO[str], end: Callable[[int], Any] = os._exit):
        self._requests = requests
        self._channel = Channel(answers)
        self._end = end
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._jobs: dict[Any, Job] = {}
        self._finished = threading.Event()
        self._scorer: tuple[tuple[str, ...], Scorer] | None = None
        self._scan: tuple[str, PreparedScan, ScanEmbedding] | None = None
        self._scored: set[Abnormality] = set()
        self._handlers: dict[str, Callable[[Job], Mapping[str, Any]]] = {
            "doctor": self._doctor,
            "check": self._check,
            "score": self._score,
            "rescore": self._rescore,
            "heatmap": self._heatmap,
            "weights/list": self._weights_list,
            "weights/info": self._weights_info,
            "weights/verify": self._weights_verify,
            "weights/import": self._weights_import,
            "weights/delete": self._weights_delete,
            "cache/clear": self._cache_clear,
        }

    def run(self) -> int:
        """Serve until the input ends; return the exit code."""
        self._channel.send("hello", protocol=PROTOCOL_VERSION, version=__version__, pid=os.getpid())
        threading.Thread(target=self._read, daemon=True).start()
        while (job := self._queue.get()) is not None:
            self._serve(job)
            self._jobs.pop(job.id, None)
        self._finished.set()
        return 0

    def _read(self) -> None:
        """Take in requests until the input ends, then see to it that the process ends too."""
        try:
            for line in self._requests:
                if line.strip():
                    self._accept(line)
        finally:
            for job in list(self._jobs.values()):
                job.cancelled.set()
            self._queue.put(None)
            if not self._finished.wait(GRACE):
                self._end(0)

    def _accept(self, line: str) -> None:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("request"), str):
            self._fail(None, "usage", 'not a request. Send one JSON object a line with "id" and "request".')
            return
        name, number = request["request"], request.get("id")
        if type(number) is not int:
            self._fail(None, "usage", f'the request "{name[:40]}" has no whole number as "id".')
        elif name == "ping":
            self._channel.send("pong", id=number)
        elif name == "cancel":
            if job := self._jobs.get(request.get("target")):
                job.cancelled.set()
        elif name not in self._handlers:
            known = ", ".join(sorted(self._handlers))
            self._fail(number, "usage", f'no request is called "{name[:40]}". Requests: {known}, ping, cancel.')
        elif number in self._jobs:
            self._fail(number, "usage", f"request {number} is being worked on already. Give each its own id.")
        else:
            self._jobs[number] = Job(request, self._channel)
            self._queue.put(self._jobs[number])

    def _serve(self, job: Job) -> None:
        try:
            job.progress(0.0, "starting")
            self._channel.send("result", id=job.id, **self._handlers[job.name](job))
        except CancelledError:
            self._fail(job.id, CANCELLED, "cancelled")
        except RefusedError as error:
            self._fail(job.id, error.code, str(error))
        except (OutOfMemoryError, MemoryError) as error:
            self._forget_scorer()
            message = str(error) or "the machine ran out of memory. Close other programs."
            self._fail(job.id, ERROR_CODES[5], message, suggestions=MEMORY_SUGGESTIONS)
        except ImportError as error:
            package = (error.name or "").partition(".")[0] or first_line(error)
            self._fail(job.id, ERROR_CODES[4], _import_message(package, error), package=package)
        except BrgSAError as error:
            self._fail(job.id, ERROR_CODES[error.exit_code], str(error))
        except Exception as error:
            traceback.print_exc()
            self._fail(job.id, UNEXPECTED, f"unexpected {type(error).__name__}: {first_line(error)}. See the log.")

    def _fail(self, number: int | None, code: str, message: str, **more: Any) -> None:
        self._channel.send("error", id=number, code=code, message=message, **more)

    def _doctor(self, job: Job) -> Mapping[str, Any]:
        from brgsa.doctor import diagnose

        return {"doctor": diagnose()}

    def _check(self, job: Job) -> Mapping[str, Any]:
        from brgsa.checks import check_ct
        from brgsa.ct import read_ct

        job.progress(0.1, "reading")
        volume = read_ct(job.text("path"))
        job.progress(0.5, "checking the input")
        return {"findings": [vars(finding) for finding in check_ct(volume)]}

    def _score(self, job: Job) -> Mapping[str, Any]:
        abnormalities = _abnormalities(job)
        options = {"prompts": job.text("prompts", "single"), "kind": job.text("kind", "final")}
        path, scan = job.text("path"), job.text("scan")
        scorer = self._open_scorer(job)
        self._scan = None

        def progress(fraction: float, stage: str) -> None:
            job.progress(0.3 + 0.65 * fraction, stage)

        with cancel_points(scorer, job):
            prepared = scorer.prepare(path, on_progress=progress)
            embedding = scorer.embed(prepared, case=job.text("case", "scan"), on_progress=progress)
        job.progress(0.95, "comparing with the prompts")
        scores = scorer.score_embedding(embedding, abnormalities, **options)
        self._scan, self._scored = (scan, prepared, embedding), set(abnormalities)
        return _result(scan, scores)

    def _rescore(self, job: Job) -> Mapping[str, Any]:
        scan, _, embedding, scorer = self._warm(job)
        options = {"prompts": job.text("prompts", "single"), "kind": job.text("kind", "final")}
        abnormalities = _abnormalities(job)
        new = {each for each in abnormalities if each not in self._scored}
        with one_thread() if len(new) <= FEW_PROMPTS else contextlib.nullcontext():
            scores = scorer.score_embedding(embedding, abnormalities, **options)
        self._scored |= new
        return _result(scan, scores)

    def _heatmap(self, job: Job) -> Mapping[str, Any]:
        _, prepared, _, scorer = self._warm(job)
        path, method = job.text("path"), job.text("method", "rollout")
        abnormality = _abnormality(job.values.get("abnormality"))
        from brgsa.heatmap import heatmaps
        from brgsa.heatmap_file import save_heatmap

        def progress(fraction: float, stage: str) -> None:
            job.progress(0.95 * fraction, stage)

        with cancel_points(scorer, job):
            (heat,) = heatmaps(scorer, prepared, [abnormality], method, progress)
        job.progress(0.95, "writing the heat map")
        save_heatmap(path, heat.volume, prepared.volume)
        x, y, z = heat.maximum_lps
        return {"path": path, "maximum": [-x, -y, z], "method": method}

    def _warm(self, job: Job) -> tuple[str, PreparedScan, ScanEmbedding, Scorer]:
        """The scan that is in memory, if it is the one that the request means."""
        scan = job.text("scan")
        if self._scan is None or self._scorer is None or self._scan[0] != scan:
            raise RefusedError(NO_SCAN, "this scan is not in memory. Score it first.")
        return *self._scan, self._scorer[1]

    def _open_scorer(self, job: Job) -> Scorer:
        """The scorer with the request's weights and options: the one in memory, or a new one."""
        from brgsa.weights import open_weights

        weights = job.text("weights", "phantom")
        device, precision = job.text("device", "auto"), job.text("precision", "auto")
        job.progress(0.02, "checking the weights")
        opened = open_weights(weights)
        key = (opened.checksum, device, precision)
        if self._scorer and self._scorer[0] == key:
            return self._scorer[1]
        self._forget_scorer()
        job.progress(0.05, "loading PyTorch")
        from brgsa.scoring import Scorer

        if warning := memory_warning(device, opened.describe()["bytes"]):
            job.progress(0.14, warning)
        job.progress(0.15, "loading the weights")
        self._scorer = (key, Scorer.from_pretrained(weights, device=device, precision=precision))
        return self._scorer[1]

    def _forget_scorer(self) -> None:
        """Give the memory of the model back."""
        self._scorer = self._scan = None
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _weights_list(self, job: Job) -> Mapping[str, Any]:
        from brgsa.weights import registry

        rows = [
            {"name": row.name, "description": row.description, "licence": row.licence, "how_to_get": row.how_to_get}
            | {"shipped": row.folder is not None}
            for row in registry().values()
        ]
        return {"weights": rows}

    def _weights_info(self, job: Job) -> Mapping[str, Any]:
        from brgsa.weights import open_weights

        weights = open_weights(job.text("weights"))
        return {"weights": weights.describe(), "licence": (weights.folder / "LICENSE").read_text(encoding="utf-8")}

    def _weights_verify(self, job: Job) -> Mapping[str, Any]:
        from brgsa.weights import open_weights, verify

        job.progress(0.1, "reading every file of the weights")
        weights = open_weights(job.text("weights"))
        return {"problems": verify(weights.folder, fresh=True), "checksum": weights.checksum}

    def _weights_import(self, job: Job) -> Mapping[str, Any]:
        from brgsa.weights import import_bundle, import_released

        source, folder = Path(job.text("source")), job.text("out")
        if source.suffix.lower() == ".zip":
            job.progress(0.1, "unpacking the bundle")
            return {"folder": str(import_bundle(source, folder))}
        stages = iter((0.1, 0.5, 0.7))

        def on_stage(stage: str) -> None:
            job.progress(next(stages, 0.9), stage)

        return {"folder": str(import_released(source, job.text("text"), folder, on_stage))}

    def _weights_delete(self, job: Job) -> Mapping[str, Any]:
        import shutil

        from brgsa.weights import CHECKSUMS, DATA

        folder = Path(job.text("folder"))
        if not (folder / CHECKSUMS).is_file() or not (folder / "model.safetensors").is_file():
            raise UsageError(f"{folder} is no weights folder, so nothing was deleted.")
        if DATA in folder.resolve().parents:
            raise UsageError("the demonstration weights are part of the package and stay.")
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        self._forget_scorer()
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise SetupError(f"cannot delete {folder} ({first_line(error)}). Delete it by hand.") from error
        return {"bytes": size}

    def _cache_clear(self, job: Job) -> Mapping[str, Any]:
        from brgsa.cache import EmbeddingCache

        return {"removed": EmbeddingCache().clear()}


def _abnormalities(job: Job) -> AbnormalityList:
    """The list of a request: `abnormalities` holds dicts as the JSON format of abnormality lists has them."""
    from brgsa.abnormalities import AbnormalityList

    rows = job.values.get("abnormalities")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f'the request "{job.name}" needs "abnormalities" as a list of objects')
    return AbnormalityList(job.text("list", "custom"), tuple(map(_abnormality, rows)))


def _abnormality(row: Any) -> Abnormality:
    """One abnormality of a request."""
    from brgsa.abnormalities import Abnormality

    try:
        return Abnormality(**row)
    except TypeError as error:
        raise UsageError(f"an abnormality cannot be used: {first_line(error)}") from error


def _result(scan: str, scores: ScanScores) -> dict[str, Any]:
    return {"scan": scan, "scores": scores.to_dict()}


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy's numbers, paths, tuples inside mappings."""
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "items"):
        return dict(value)
    return str(value)


def _import_message(package: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {package} is missing. Install the packages in Setup."
    return f"the Python package {package} is damaged ({first_line(error)}). Remove it and install it again in Setup."


@contextlib.contextmanager
def cancel_points(scorer: Scorer, job: Job) -> Iterator[None]:
    """Let a cancel take effect before every layer of the image encoder.

    A whole block of the full-size model takes two seconds on two cores.
    """
    model = getattr(scorer, "model", None)
    layers = [] if model is None else [layer for layer in model.modules() if not list(layer.children())]
    hooks = [layer.register_forward_pre_hook(job.check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread.

    A prompt is a few tokens, so threads gain nothing; but where other programs keep the processor busy they wait for
    each other at every layer: 1.05 s instead of 0.13 s for a prompt of the full-size model on two busy cores.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def memory_warning(device: str, weights_bytes: int) -> str | None:
    """What to say before a model is loaded onto an accelerator that has too little free memory for it."""
    import torch

    from brgsa.device import choose_device

    device = choose_device(device)
    if not device.startswith("cuda"):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    needed = GPU_MEMORY_FACTOR * weights_bytes
    if free >= needed:
        return None
    return f"warning: {free / 1e9:.1f} GB of the memory of {device} are free, about {needed / 1e9:.1f} GB are needed"


def protocol_streams() -> tuple[IO[str], IO[str]]:
    """Take this process's pipes for the protocol: the streams of requests and of messages.

    Libraries print; from here on what they print goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(os.dup(0), "r", encoding="utf-8", errors="replace", newline="\n"), answers


def main() -> int:
    """Serve the panel on this process's own pipes."""
    streams = protocol_streams()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return Worker(*streams).run()


if __name__ == "__main__":
    sys.exit(main())
