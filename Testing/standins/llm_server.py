"""A stand-in for an OpenAI-compatible server: real HTTP on a real port, with a latency and faults on demand.

`Server(behaviour)` runs in a thread; `python llm_server.py PORT [LATENCY]` runs one in its own process.
"""

import asyncio
import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from waiting import LONGEST_WAIT

REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden"}
REASONS |= {404: "Not Found", 422: "Unprocessable Content"}
REASONS |= {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}


class Reply(NamedTuple):
    """What the server does with one request.

    `cut` closes the connection after that many bytes of the body (or before the status line, for -1). `raw` are bytes
    that are sent instead of an HTTP answer, and `again` bytes that follow every `delay` seconds until the client hangs
    up (None: the server hangs up at once); `sent` gets the length of each.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    delay: float = 0.0
    cut: int | None = None
    raw: bytes = b""
    again: bytes | None = b""
    sent: list | None = None


class Request(NamedTuple):
    """One request, with the number of requests of the same report before it; without a report it is a trial."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]
    report: str
    earlier: int


def completion(content: str, tokens_in: int = 900, tokens_out: int = 60, finish: str = "stop") -> Reply:
    """Return a chat completion with this content."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "stand-in",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out},
    }
    return Reply(body=json.dumps(body).encode())


def problem(status: int, message: str, **headers: str) -> Reply:
    """Return an error as OpenAI words it."""
    return Reply(status, json.dumps({"error": {"message": message, "type": "error"}}).encode(), headers)


def sensible(request: Request) -> Reply:
    """Answer like a model that finds a nodule wherever the last message has the word, in the sentence that has it."""
    findings = [
        {
            "name": "Lung nodule",
            "status": "absent" if " no " in f" {text.lower()}" else "present",
            "sentence": int(number),
        }
        | {"location": ""}
        for number, text in re.findall(r"^\[(\d+)\] (.*)$", request.report, re.M)
        if "nodule" in text.lower()
    ]
    return completion(json.dumps({"abnormalities": findings}))


class Server:
    """The server in a thread of this process; use it as a context manager."""

    def __init__(self, behaviour: Callable[[Request], Reply] = sensible, latency: float = 0.0):
        self.behaviour = behaviour
        self.latency = latency
        self.requests: list[Request] = []
        self.seen: dict[str, int] = {}
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[Request]:
        """The requests about reports."""
        return [request for request in self.requests if request.report]

    def __enter__(self) -> "Server":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(LONGEST_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._listener.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONGEST_WAIT)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen(0))
        self._ready.set()
        self._loop.run_forever()

    async def _listen(self, port: int) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        started = time.monotonic()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        reply = self.behaviour(self._request(json.loads(body or b"{}"), headers))
        await asyncio.sleep(max(0.0, self.latency + reply.delay - (time.monotonic() - started)))
        self._at_once -= 1
        if reply.raw:
            writer.write(reply.raw)
            while reply.again is not None and not reader.at_eof():
                writer.write(reply.again)
                await writer.drain()
                if reply.sent is not None:
                    reply.sent.append(len(reply.again))
                await asyncio.sleep(reply.delay)
            return False
        if reply.cut == -1:
            writer.transport.abort()
            return False
        lines = [f"HTTP/1.1 {reply.status} {REASONS[reply.status]}", "content-type: application/json"]
        lines += [f"content-length: {len(reply.body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body[: reply.cut])
        await writer.drain()
        return reply.cut is None

    def _request(self, body: dict[str, Any], headers: dict[str, str]) -> Request:
        users = [message["content"] for message in body.get("messages", []) if message["role"] == "user"]
        report = next((text for text in reversed(users) if "[1]" in text), "")
        earlier = self.seen.get(report, 0)
        self.seen[report] = earlier + 1
        request = Request(len(self.requests), body, headers, report, earlier)
        self.requests.append(request)
        return request


class _CountingServer(Server):
    """A server that keeps no request, for measurements."""

    def _request(self, body: dict[str, Any], headers: dict[str, str]) -> Request:
        return Request(0, body, headers, "", 0)


async def _forever(port: int, latency: float) -> None:
    server = _CountingServer(lambda request: ANSWER, latency)
    await server._listen(port)
    print(server.port, flush=True)
    await asyncio.Event().wait()


ANSWER = completion('{"abnormalities": [{"name": "Lung nodule", "status": "present", "sentence": 1, "location": ""}]}')

if __name__ == "__main__":
    asyncio.run(_forever(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
