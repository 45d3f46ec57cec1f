"""The panel's end of `brgsa worker`: starts the process, sends requests, hands out answers, ends the process.

Nothing here blocks and nothing here knows Qt: whoever owns a client calls `poll()` every few hundredths of a second on
the main thread, and callbacks run inside that call.
"""

import contextlib
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from brgsa.worker.protocol import CANCELLED, PROTOCOL_VERSION

from .launch import Launch, kill_group, start

ENDED = "worker-ended"
LONGEST_LINE = 4_000_000  # characters; a result with a thousand abnormalities has about 200,000


@dataclass(frozen=True)
class Limits:
    """Seconds that the worker gets.

    Attributes:
        start: for its first sign of life.
        cancel: for ending work that was cancelled; then it is killed with its children.
        silence: without any message while work is pending; it is pinged in between, so only a process that hangs
            as a whole is silent.
        exit: for ending by itself after its input was closed.
    """

    start: float = 60.0
    cancel: float = 3.0
    silence: float = 60.0
    exit: float = 1.0


@dataclass
class Request:
    """A request under way. Callbacks: `done(values)`, `failed(code, message, values)`, `progress(fraction, stage)`."""

    id: int
    name: str
    done: Callable[[dict[str, Any]], None]
    failed: Callable[[str, str, dict[str, Any]], None]
    progress: Callable[[float, str], None]
    kill_at: float | None = field(default=None)


class WorkerClient:
    """One worker process and the requests that it is working on. A process that ended is started again when needed.

    Args:
        launch: called for each start; says what to start.
        log: called with each line for the log panel.
        limits: see `Limits`.
        clock: seconds, rising.
    """

    def __init__(
        self,
        launch: Callable[[], Launch],
        log: Callable[[str], None] = lambda line: None,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.monotonic,
    ):
        self._launch = launch
        self._log = log
        self._limits = limits
        self._clock = clock
        self._process: subprocess.Popen | None = None
        self._incoming: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self._outgoing: queue.Queue[str | None] = queue.Queue()
        self._pending: dict[int, Request] = {}
        self._last_id = 0
        self._ready = False
        self._heard = self._started = self._pinged = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def busy(self) -> bool:
        return bool(self._pending)

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process else None

    def request(
        self,
        name: str,
        done: Callable[[dict[str, Any]], None],
        failed: Callable[[str, str, dict[str, Any]], None],
        progress: Callable[[float, str], None] = lambda fraction, stage: None,
        **values: Any,
    ) -> int:
        """Send a request and return its id. Exactly one of `done` and `failed` is called, from `poll()`.

        Raises:
            OSError: the worker cannot be started; the message says why.
        """
        if not self._pending:
            self.poll()  # it may have died since, and what reads its pipes may not have seen it yet
            if self._process is not None and self._process.poll() is not None:
                self._finish(self._exit_reason(self._process))
        if self._process is None:
            self._start()
        self._last_id += 1
        self._pending[self._last_id] = Request(self._last_id, name, done, failed, progress)
        if len(self._pending) == 1:
            self._heard = self._clock()
        self._send(id=self._last_id, request=name, **values)
        return self._last_id

    def cancel(self, request_id: int) -> None:
        """Ask the worker to drop a request; after `Limits.cancel` seconds it is killed instead."""
        request = self._pending.get(request_id)
        if request and request.kill_at is None:
            request.kill_at = self._clock() + self._limits.cancel
            self._last_id += 1
            self._send(id=self._last_id, request="cancel", target=request_id)

    def poll(self) -> None:
        """Hand out what has arrived and see whether the worker still lives."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(queue.Empty):
            while self._process is process:
                kind, text = self._incoming.get_nowait()
                if kind == "log":
                    self._log(text)
                elif text is None:
                    self._finish(self._exit_reason(process))
                else:
                    self._hear(text)
        if self._process is process:
            self._watch()

    def close(self) -> None:
        """End the worker: first by closing its input, then by force. Pending requests fail as cancelled."""
        process = self._process
        if process is None:
            return
        self._outgoing.put(None)
        self._finish("the worker was stopped", code=CANCELLED, kill=False)
        try:
            process.wait(self._limits.exit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill_group(process)

    def _start(self) -> None:
        launch = self._launch()
        process = start(launch)
        self._process, self._ready = process, False
        self._incoming, self._outgoing = queue.Queue(), queue.Queue()
        self._started = self._heard = self._pinged = self._clock()
        # Three threads, so that neither a full pipe nor a silent process can ever stop the main thread.
        for target, args in (
            (_read_lines, (process.stdout, "message", self._incoming)),
            (_read_lines, (process.stderr, "log", self._incoming)),
            (_write_lines, (process.stdin, self._outgoing)),
        ):
            threading.Thread(target=target, args=args, daemon=True).start()
        self._log(f"started worker (process {process.pid}): {' '.join(launch.args)}")

    def _send(self, **values: Any) -> None:
        self._outgoing.put(json.dumps(values, ensure_ascii=True) + "\n")

    def _hear(self, line: str) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("event"), str):
            if line.strip():
                self._log(f"the worker printed: {line.strip()[:300]}")
            return
        self._heard = self._clock()
        event, request = message.pop("event"), self._pending.get(message.pop("id", None))
        if event == "hello":
            self._ready = True
            if message.get("protocol") != PROTOCOL_VERSION:
                self._finish(
                    f"the worker speaks version {message.get('protocol')} of the protocol, this panel version "
                    f"{PROTOCOL_VERSION}. Install BrgSA again"
                )
        elif event == "pong":
            return
        elif request is None:
            what = message.get("message") or f"{event}, of an earlier request"
            self._log(f"ignored from the worker: {str(what)[:300]}")
        elif event == "progress":
            if request.kill_at is None:
                self._call(request.progress, _fraction(message.get("fraction")), str(message.get("stage", "")))
        elif event in ("result", "error"):
            del self._pending[request.id]
            if request.kill_at is not None:
                self._call(request.failed, CANCELLED, "cancelled", {})
            elif event == "result":
                self._call(request.done, message)
            else:
                code, text = str(message.pop("code", "unexpected")), str(message.pop("message", "no reason given"))
                self._call(request.failed, code, text, message)

    def _watch(self) -> None:
        now = self._clock()
        if not self._ready:
            if now - self._started > self._limits.start:
                self._finish(f"the worker did not start within {self._limits.start:g} seconds")
            elif any(request.kill_at is not None for request in self._pending.values()):
                self._finish("the worker was stopped")
            return
        if any(request.kill_at is not None and now > request.kill_at for request in self._pending.values()):
            self._finish("the worker did not stop when asked and was ended")
        elif self._pending and now - self._heard > self._limits.silence:
            self._finish(f"the worker did not answer for {self._limits.silence:g} seconds and was ended")
        elif self._pending and now - self._pinged > self._limits.silence / 6:
            self._pinged = now
            self._last_id += 1
            self._send(id=self._last_id, request="ping")

    def _finish(self, reason: str, code: str = ENDED, kill: bool = True) -> None:
        """Let go of the process; requests that were cancelled end as such, the others fail with `reason`."""
        process, self._process = self._process, None
        self._outgoing.put(None)
        if kill and process:
            kill_group(process)
        self._log(reason)
        pending, self._pending = list(self._pending.values()), {}
        for request in pending:
            if request.kill_at is not None:
                self._call(request.failed, CANCELLED, "cancelled", {})
            else:
                self._call(request.failed, code, f"{reason}.", {})

    def _exit_reason(self, process: subprocess.Popen) -> str:
        try:
            code = process.wait(0.2)
        except subprocess.TimeoutExpired:
            return "the worker closed its output"
        for line in self._drain_log():
            self._log(line)
        if code is not None and code < 0:
            return f"the worker was ended by signal {-code}" + (" (out of memory?)" if code == -signal.SIGTERM else "")
        return f"the worker ended with code {code}"

    def _drain_log(self) -> list[str]:
        lines = []
        with contextlib.suppress(queue.Empty):
            while True:
                lines.append(self._incoming.get_nowait()[1] or "")
        return lines

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            # One failing slot must not lose the messages behind it.
            import traceback

            self._log(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def _read_lines(stream: IO[str], kind: str, target: queue.Queue) -> None:
    try:
        while line := stream.readline(LONGEST_LINE):
            target.put((kind, line.rstrip("\n")))
    except (OSError, ValueError):
        pass
    finally:
        if kind == "message":
            target.put((kind, None))
        with contextlib.suppress(OSError):
            stream.close()


def _write_lines(stream: IO[str], source: queue.Queue) -> None:
    try:
        while (line := source.get()) is not None:
            stream.write(line)
            stream.flush()
    except (OSError, ValueError):
        pass
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.close()


def _fraction(value: Any) -> float:
    return min(1.0, max(0.0, float(value))) if isinstance(value, (int, float)) else 0.0
