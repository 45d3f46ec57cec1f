"""One request to the worker: its fields, its progress, its end."""

import json
import threading
from collections.abc import Mapping
from typing import IO, Any

from brgsa.errors import BrgSAError


class CancelledError(BaseException):
    """The other side no longer wants the answer; no failure, so that nobody who notes failures takes it for one."""


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
        values: the fields of the request, checked; see `protocol.REQUESTS`.
    """

    def __init__(self, number: int, name: str, values: Mapping[str, Any], channel: Channel):
        self.id = number
        self.name = name
        self.values = values
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


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy's numbers, paths, tuples inside mappings."""
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "items"):
        return dict(value)
    return str(value)
