"""One scan at a time from the scene to the scores: file out, request, answer. No widgets.

Everything is asynchronous: whoever owns a session calls `tick()` every few hundredths of a second on the main thread.
"""

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brgsa.abnormalities import AbnormalityList
from brgsa.worker.protocol import CANCELLED

from .volume_file import Snapshot, write_nrrd
from .worker_client import WorkerClient

LICENCE = "licence"  # code of a failure: the licence of the weights has not been accepted
DISK = "disk"  # code of a failure: the scan could not be written for the worker
SHIPPED = "phantom"  # weights of this project, whose licence is that of the code

Done = Callable[[dict[str, Any]], None]
Failed = Callable[[str, str, dict[str, Any]], None]
Progress = Callable[[float, str], None]
Stop = Callable[[], None]  # cancels a request


@dataclass(frozen=True)
class Options:
    """How to score; see `brgsa score --help`."""

    weights: str = SHIPPED
    device: str = "auto"
    precision: str = "fp32"
    prompts: str = "single"
    kind: str = "final"
    force: bool = False  # score even what the input checks refuse


@dataclass
class _Work:
    snapshot: Snapshot
    abnormalities: AbnormalityList | None  # None: only the input checks
    options: Options
    done: Done
    failed: Failed
    progress: Progress
    request: int | None = None
    folder: Path | None = None
    cancelled: bool = False


class Session:
    """Scores scans with one worker, and re-scores the last one when only the list has changed.

    Args:
        client: the worker.
        temporary_folder: where scans are written for the worker.
        accepted: whether the licence of the weights with this checksum was accepted.
    """

    def __init__(self, client: WorkerClient, temporary_folder: Callable[[], str], accepted: Callable[[str], bool]):
        self.client = client
        self._temporary_folder = temporary_folder
        self._accepted = accepted
        self._work: _Work | None = None
        self._written: queue.Queue[tuple[_Work, float | Exception | None]] = queue.Queue()
        self._warm: tuple[str, Options] | None = None
        self._rescoring = False
        self._next_rescore: tuple[AbnormalityList, Options, Done, Failed] | None = None

    @property
    def busy(self) -> bool:
        """Whether a scan is being scored or checked."""
        return self._work is not None

    @property
    def idle(self) -> bool:
        """Whether nothing at all is under way."""
        return not self.busy and not self.client.busy

    def is_warm(self, key: str, options: Options) -> bool:
        """Whether the worker has this scan's embedding with these weights, so that only prompts cost time."""
        return self._warm is not None and self.client.running and self._warm == (key, _machine(options))

    def score(
        self,
        snapshot: Snapshot,
        abnormalities: AbnormalityList | None,
        options: Options,
        done: Done,
        failed: Failed,
        progress: Progress,
    ) -> None:
        """Score a scan, or with `abnormalities` None only check it. Exactly one of `done` and `failed` is called.

        Raises:
            RuntimeError: a scan is being scored already.
        """
        if self.busy:
            raise RuntimeError("a scan is being scored already")
        work = _Work(snapshot, abnormalities, options, done, failed, progress)
        self._work = work
        if abnormalities is None:
            self._write(work)
            return
        progress(0.0, "starting")
        self._ask(work, "weights/info", self._on_weights, weights=options.weights)

    def rescore(self, abnormalities: AbnormalityList, options: Options, done: Done, failed: Failed) -> None:
        """Score the warm scan with another list. Of several calls in a row only the last one is worked on."""
        if self._rescoring:
            self._next_rescore = (abnormalities, options, done, failed)
            return
        if self._warm is None:
            failed("no-scan", "this scan is not in memory. Score it first.", {})
            return
        self._rescoring = True

        def finished(callback: Callable[[], None]) -> None:
            self._rescoring = False
            following, self._next_rescore = self._next_rescore, None
            callback()
            if following:
                self.rescore(*following)

        self._request(
            "rescore",
            lambda values: finished(lambda: done(values)),
            lambda code, message, more: finished(lambda: failed(code, message, more)),
            scan=self._warm[0],
            **_list(abnormalities),
            prompts=options.prompts,
            kind=options.kind,
        )

    def heatmap(
        self, key: str, name: str, abnormalities: AbnormalityList, done: Done, failed: Failed, progress: Progress
    ) -> Stop:
        """Ask where the model looks for one abnormality of the scan `key`; the answer names a file."""
        try:
            folder = tempfile.mkdtemp(prefix="brgsa-", dir=self._temporary_folder())
        except OSError as error:
            failed(DISK, f"cannot write the heat map to {self._temporary_folder()}: {error.strerror}.", {})
            return lambda: None

        def finished(callback: Callable[[], None]) -> None:
            try:
                callback()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        chosen = [each.to_dict() for each in abnormalities if each.name == name]
        return self.start(
            "heatmap",
            lambda values: finished(lambda: done(values)),
            lambda code, message, more: finished(lambda: failed(code, message, more)),
            progress,
            scan=key,
            abnormality=chosen[0] if chosen else {"name": name},
            path=str(Path(folder) / "heatmap.nrrd"),
        )

    def start(
        self, name: str, done: Done, failed: Failed, progress: Progress, options: Options | None = None, **values: Any
    ) -> Stop:
        """Send a request that may take long, and return what cancels it.

        Args:
            options: of a request that opens weights, whose licence must have been accepted; None for any other.
        """
        sent: list[int | None] = []

        def send() -> None:
            sent.append(self._request(name, done, failed, progress, **values))

        def on_weights(info: dict[str, Any]) -> None:
            if problem := self._licence_problem(info):
                failed(LICENCE, problem, info)
            else:
                send()

        if options is None:
            send()
        else:
            values |= {"weights": options.weights, "device": options.device, "precision": options.precision}
            sent.append(self._request("weights/info", on_weights, failed, weights=options.weights))

        def stop() -> None:
            for request in sent:
                if request is not None:
                    self.client.cancel(request)

        return stop

    def ask(
        self, name: str, done: Done, failed: Failed, progress: Progress = lambda fraction, stage: None, **values: Any
    ) -> int | None:
        """Send any other request of the protocol; return its id, or None when the worker cannot be started."""
        return self._request(name, done, failed, progress, **values)

    def cancel(self) -> None:
        """Stop what was started by `score`; `failed` is called with the code "cancelled"."""
        work = self._work
        if work is None or work.cancelled:
            return
        work.cancelled = True
        if work.request is not None:
            self.client.cancel(work.request)

    def tick(self) -> None:
        """Hand out what has happened since the last call."""
        try:
            while True:
                work, news = self._written.get_nowait()
                if work is not self._work:
                    continue
                if isinstance(news, float):
                    work.progress(0.1 * news, "writing the scan")
                elif work.cancelled:
                    self._end(work, work.failed, CANCELLED, "cancelled", {})
                elif isinstance(news, Exception):
                    self._end(work, work.failed, DISK, self._disk_message(work, news), {})
                else:
                    self._on_written(work)
        except queue.Empty:
            pass
        self.client.poll()

    def close(self) -> None:
        """End the worker and remove temporary files."""
        self.cancel()
        self.client.close()
        if self._work:
            self._end(self._work, self._work.failed, CANCELLED, "cancelled", {})

    def _on_weights(self, work: _Work, values: dict[str, Any]) -> None:
        if problem := self._licence_problem(values):
            self._end(work, work.failed, LICENCE, problem, values)
        else:
            self._write(work)

    def _licence_problem(self, info: dict[str, Any]) -> str | None:
        weights = info["weights"]
        if weights["name"] == SHIPPED or self._accepted(weights["checksum"]):
            return None
        return f"the licence of the weights {weights['name']} has not been accepted. Read and accept it in Setup."

    def _write(self, work: _Work) -> None:
        """Write the scan in a thread; `tick` hears of it."""
        try:
            work.folder = Path(tempfile.mkdtemp(prefix="brgsa-", dir=self._temporary_folder()))
        except OSError as error:
            self._end(work, work.failed, DISK, self._disk_message(work, error), {})
            return

        def on_progress(fraction: float) -> None:
            if work.cancelled:
                raise InterruptedError
            self._written.put((work, fraction))

        def write() -> None:
            try:
                write_nrrd(work.snapshot, work.folder / "scan.nrrd", on_progress)
                self._written.put((work, None))
            except Exception as error:
                self._written.put((work, error))

        threading.Thread(target=write, daemon=True).start()

    def _on_written(self, work: _Work) -> None:
        path = str(work.folder / "scan.nrrd")
        if work.abnormalities is None:
            weights = work.options.weights
            self._ask(
                work, "check", lambda work, values: self._end(work, work.done, values), path=path, weights=weights
            )
            return
        options, key = work.options, work.snapshot.key
        self._warm = None

        def scored(work: _Work, values: dict[str, Any]) -> None:
            self._warm = (key, _machine(options))
            self._end(work, work.done, values)

        self._ask(
            work,
            "score",
            scored,
            path=path,
            scan=key,
            case=work.snapshot.name,
            **_list(work.abnormalities),
            weights=options.weights,
            device=options.device,
            precision=options.precision,
            prompts=options.prompts,
            kind=options.kind,
            force=options.force,
        )

    def _ask(self, work: _Work, name: str, done: Callable[[_Work, dict[str, Any]], None], **values: Any) -> None:
        """Send a request that is part of the work."""
        base = 0.1 if name == "score" else 0.0

        def answered(values: dict[str, Any]) -> None:
            work.request = None
            if work is not self._work:
                return
            if work.cancelled:
                self._end(work, work.failed, CANCELLED, "cancelled", {})
            else:
                done(work, values)

        def failed(code: str, message: str, more: dict[str, Any]) -> None:
            work.request = None
            if work is self._work:
                self._end(work, work.failed, CANCELLED if work.cancelled else code, message, more)

        def progress(fraction: float, stage: str) -> None:
            if name == "score":
                work.progress(base + (1 - base) * fraction, stage)

        work.request = self._request(name, answered, failed, progress, **values)

    def _request(
        self,
        name: str,
        done: Done,
        failed: Failed,
        progress: Progress = lambda fraction, stage: None,
        **values: Any,
    ) -> int | None:
        try:
            return self.client.request(name, done, failed, progress, **values)
        except OSError as error:
            failed("setup", f"the worker cannot be started: {error}", {})
            return None

    def _end(self, work: _Work, callback: Callable[..., None], *args: Any) -> None:
        self._work = None
        if work.folder:
            shutil.rmtree(work.folder, ignore_errors=True)
        callback(*args)

    def _disk_message(self, work: _Work, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error)
        return (
            f"cannot write the scan to {work.folder or self._temporary_folder()}: {reason}. Free some space or choose "
            "another temporary folder in Edit, Application Settings, Modules."
        )


def _machine(options: Options) -> Options:
    """The options that decide whether an embedding can be used again."""
    return Options(options.weights, options.device, options.precision)


def _list(abnormalities: Iterable) -> dict[str, Any]:
    return {"list": abnormalities.name, "abnormalities": [each.to_dict() for each in abnormalities]}
