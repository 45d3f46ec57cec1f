"""One request to the worker: its fields, its progress, its end."""

import json
import threading
from collections.abc import Mapping
from typing import IO, Any

from brgsa.errors import BrgSAError, UsageError


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

    def flag(self, key: str) -> bool:
        """Return a field that is true or false, false where it is missing.

        Raises:
            UsageError: it is something else.
        """
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise UsageError(f'the request "{self.name}" needs "{key}" as true or false')
        return value


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy's numbers, paths, tuples inside mappings."""
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "items"):
        return dict(value)
    return str(value)
