"""The JSON-lines server that 3D Slicer talks to: `brgsa worker`.

Reads one request a line from standard input, writes one message a line to what was standard output when it started;
whatever else the process prints goes to standard error. It keeps the model and the last scan's embedding, so that a
changed list of abnormalities costs only its new prompts. It ends when its standard input ends, whatever it is doing.

docs/worker-protocol.md describes the messages.
"""

import functools
import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, BinaryIO

from brgsa import __version__
from brgsa.errors import (
    REFUSED,
    BrgSAError,
    OutOfMemoryError,
    RefusedScanError,
    UsageError,
    first_line,
    is_out_of_memory,
)
from brgsa.worker import index as worker_index
from brgsa.worker import weights as worker_weights
from brgsa.worker.job import CancelledError, Channel, Job, RefusedError
from brgsa.worker.protocol import (
    CANCELLED,
    ERROR_CODES,
    HEAD,
    INVALID,
    LONGEST_LINE,
    MEMORY_SUGGESTIONS,
    PROTOCOL_VERSION,
    REQUESTS,
    UNEXPECTED,
    InvalidError,
    checked,
)
from brgsa.worker.scan import ScanRequests

# Seconds that running work has to end by itself after the other side has gone.
GRACE = 1.5


class Worker(ScanRequests):
    """Answers requests one after the other; `cancel`, `ping` and the end of input are heeded at once.

    Args:
        requests: lines with a request each, see `request_lines`.
        answers: stream for message lines.
        end: called with an exit code when the input has ended and running work did not stop within `GRACE` seconds.
    """

    def __init__(self, requests: Iterable[bytes], answers: IO[str], end: Callable[[int], Any] = os._exit):
        super().__init__()
        self._requests = requests
        self._channel = Channel(answers)
        self._end = end
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._jobs: dict[int, Job] = {}
        self._finished = threading.Event()
        self._handlers: dict[str, Callable[[Job], Mapping[str, Any]]] = {
            "doctor": worker_weights.doctor,
            "check": self._check,
            "score": self._score,
            "rescore": self._rescore,
            "heatmap": self._heatmap,
            "report": self._report,
            "similar": functools.partial(worker_index.similar, memory=self),
            "index": functools.partial(worker_index.update, memory=self),
            "series": worker_index.series,
            "weights/list": worker_weights.list_weights,
            "weights/info": worker_weights.describe,
            "weights/verify": worker_weights.verify_files,
            "weights/import": worker_weights.import_weights,
            "weights/delete": functools.partial(worker_weights.delete, forget=self.forget_scorer),
            "cache/clear": worker_weights.clear_cache,
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
                    self._answer(line)
        finally:
            for job in list(self._jobs.values()):
                job.cancelled.set()
            self._queue.put(None)
            if not self._finished.wait(GRACE):
                self._end(0)

    def _answer(self, line: bytes) -> None:
        """Take in one line; whatever is in it, the next one is read."""
        number = None
        try:
            head, request = _request(line)
            number = head["id"]
            self._accept(number, head["request"], request)
        except InvalidError as error:
            self._fail(number, INVALID, f"{error}.")
        except BrgSAError as error:
            self._fail(number, ERROR_CODES[error.exit_code], str(error))
        except Exception as error:
            traceback.print_exc()
            self._fail(number, UNEXPECTED, f"unexpected {type(error).__name__}: {first_line(error)}. See the log.")

    def _accept(self, number: int, name: str, request: Mapping[str, Any]) -> None:
        if name not in REQUESTS:
            known = ", ".join(sorted(REQUESTS))
            raise UsageError(f'no request is called "{name[:40]}". Requests: {known}.')
        values = checked(request, REQUESTS[name], f'the request "{name}"')
        if name == "ping":
            self._channel.send("pong", id=number)
        elif name == "cancel":
            if job := self._jobs.get(values["target"]):
                job.cancelled.set()
        elif number in self._jobs:
            raise UsageError(f"request {number} is being worked on already. Give each its own id.")
        else:
            self._jobs[number] = Job(number, name, values, self._channel)
            self._queue.put(self._jobs[number])

    def _serve(self, job: Job) -> None:
        try:
            job.progress(0.0, "starting")
            self._channel.send("result", id=job.id, **self._handlers[job.name](job))
        except CancelledError:
            self._fail(job.id, CANCELLED, "cancelled")
        except RefusedError as error:
            self._fail(job.id, error.code, str(error))
        except OutOfMemoryError as error:
            self._fail_for_memory(job, str(error))
        except ImportError as error:
            package = (error.name or "").partition(".")[0] or first_line(error)
            self._fail(job.id, ERROR_CODES[4], _import_message(package, error), package=package)
        except RefusedScanError as error:
            self._fail(job.id, REFUSED, str(error), findings=[vars(finding) for finding in error.findings])
        except BrgSAError as error:
            self._fail(job.id, ERROR_CODES[error.exit_code], str(error))
        except Exception as error:
            if is_out_of_memory(error):
                self._fail_for_memory(job, "the machine ran out of memory. Close other programs.")
                return
            if isinstance(error, OSError):  # a name that the system does not take, a folder that is closed
                where = f"{error.filename}: " if error.filename is not None else ""
                self._fail(job.id, ERROR_CODES[1], f"{where}{error.strerror or first_line(error)}. Correct the path.")
                return
            traceback.print_exc()
            self._fail(job.id, UNEXPECTED, f"unexpected {type(error).__name__}: {first_line(error)}. See the log.")

    def _fail_for_memory(self, job: Job, message: str) -> None:
        self.forget_scorer()
        self._fail(job.id, ERROR_CODES[5], message, suggestions=MEMORY_SUGGESTIONS)

    def _fail(self, number: int | None, code: str, message: str, **more: Any) -> None:
        one_line = " ".join(message.splitlines())  # a name may hold line breaks
        self._channel.send("error", id=number, code=code, message=one_line, **more)


def _request(line: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checked id and name of a request, and all its fields.

    Raises:
        InvalidError: the line holds none.
    """
    if len(line) > LONGEST_LINE:
        raise InvalidError(f"a line is longer than {LONGEST_LINE:,} bytes")
    try:
        request = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise InvalidError('not a request. Send one JSON object a line with "id" and "request"')
    return checked(request, HEAD, "a request"), request


def _import_message(package: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {package} is missing. Install the packages in Setup."
    return f"the Python package {package} is damaged ({first_line(error)}). Remove it and install it again in Setup."


def request_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream; of one that is too long only as much as shows that it is."""
    while line := stream.readline(LONGEST_LINE + 1):
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE + 1)
        yield line


def protocol_streams() -> tuple[Iterator[bytes], IO[str]]:
    """Take this process's pipes for the protocol: the lines of requests and the stream of messages.

    Libraries print; from here on what they print goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return request_lines(os.fdopen(os.dup(0), "rb")), answers


def main() -> int:
    """Serve the panel on this process's own pipes."""
    streams = protocol_streams()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return Worker(*streams).run()


if __name__ == "__main__":
    sys.exit(main())
