"""HTTP/1.1 without encryption for the openai client, for servers on this machine or in this network.

The client's own transport takes about 1 ms of processor time per request, more than all other work on an answer; a
local vLLM or SGLang server is faster than that. This one does only what the client needs: POST or GET with a body in
memory, connections kept open, answers by length, in chunks or up to the end of the connection. It uses no proxy.
"""

import asyncio
import importlib
import re
from typing import Any

import openai

# openai 1 and 2 are built on httpx, openai 3 on httpx2; both have these classes.
http: Any = importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


class PlainHTTPTransport(http.AsyncBaseTransport):  # type: ignore[misc, name-defined]
    """A transport for `http.AsyncClient` that keeps its connections open between requests.

    Raises:
        http.ConnectError, http.ReadError, http.RemoteProtocolError, http.ConnectTimeout, http.ReadTimeout: as the
            client's own transport does, so that openai reports them as usual.
    """

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def handle_async_request(self, request: Any) -> Any:
        timeout = request.extensions.get("timeout", {})
        body = await request.aread()
        target = request.url.raw_path.decode("ascii")
        lines = [f"{request.method} {target} HTTP/1.1"]
        lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in request.headers.raw]
        message = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

        place = (request.url.host, request.url.port or 80)
        idle = self._idle.setdefault(place, [])
        while idle and idle[-1].closed:
            idle.pop()
        connection = idle.pop() if idle else await _connect(place, timeout.get("connect"))
        try:
            status, headers, content = await connection.exchange(message, timeout.get("read"))
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            idle.append(connection)
        else:
            connection.close()
        return http.Response(status, headers=headers, content=content)

    async def aclose(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()


async def _connect(place: tuple[str, int], timeout: float | None) -> "_Connection":
    loop = asyncio.get_running_loop()
    try:
        _, connection = await asyncio.wait_for(loop.create_connection(_Connection, *place), timeout)
    except asyncio.TimeoutError as error:
        raise http.ConnectTimeout(f"no connection to {place[0]}:{place[1]} in {timeout} s") from error
    except OSError as error:
        raise http.ConnectError(f"{place[0]}:{place[1]}: {error.strerror or error}") from error
    return connection


class _Connection(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    def __init__(self) -> None:
        self.closed = False
        self.reusable = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future | None = None
        self._buffer = bytearray()

    async def exchange(self, message: bytes, timeout: float | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request and return status, headers and body of its answer."""
        loop = asyncio.get_running_loop()
        self._buffer.clear()
        self.reusable = False
        self._answer = loop.create_future()
        timer = loop.call_later(timeout, self._fail, http.ReadTimeout(f"no answer in {timeout} s")) if timeout else None
        try:
            if self.closed or self._transport is None:
                raise http.ReadError("the server closed the connection")
            self._transport.write(message)
            return await self._answer
        finally:
            self._answer = None
            if timer:
                timer.cancel()

    def close(self) -> None:
        self.closed = True
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._deliver(ended=False)

    def eof_received(self) -> None:
        self._deliver(ended=True)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._deliver(ended=True)
        self._fail(http.ReadError(f"the server broke off the connection ({error or 'before its answer was complete'})"))

    def _deliver(self, ended: bool) -> None:
        if self._answer is None or self._answer.done():
            return
        try:
            answer = self._parse(ended)
        except (ValueError, IndexError) as error:
            self._fail(http.RemoteProtocolError(f"the answer is not HTTP ({error})"))
            return
        if answer is not None:
            self._answer.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _parse(self, ended: bool) -> tuple[int, list[tuple[str, str]], bytes] | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._buffer[:end])
        status = _STATUS.match(head)
        if status is None:
            raise ValueError("no status line")
        pairs = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
        headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
        fields = dict(headers)
        keep = fields.get("connection", "").lower() != "close"
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = _unchunk(self._buffer, end + 4)
        elif "content-length" in fields:
            length = int(fields["content-length"])
            body = bytes(self._buffer[end + 4 : end + 4 + length]) if len(self._buffer) - end - 4 >= length else None
        else:
            body, keep = (bytes(self._buffer[end + 4 :]) if ended else None), False
        if body is None:
            return None
        self.reusable = keep and not ended
        headers = [pair for pair in headers if pair[0] not in ("transfer-encoding", "content-length")]
        return int(status.group(1)), headers, body


def _unchunk(buffer: bytearray, start: int) -> bytes | None:
    """Return the body of a chunked answer, or None while chunks are missing."""
    parts = []
    while True:
        end = buffer.find(b"\r\n", start)
        if end < 0:
            return None
        size = int(bytes(buffer[start:end]).partition(b";")[0], 16)
        start = end + 2
        if len(buffer) < start + size + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(bytes(buffer[start : start + size]))
        start += size + 2
