"""Requests to an OpenAI-compatible server: limits on every answer, trying again, and what the server can.

The server is not trusted: an answer may be endless, may come a byte at a time, or may be no chat completion.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
import httpx2
import openai

from brgsa.errors import BrgSAError, SetupError, UsageError, first_line
from brgsa_training.summarize.ledger import Job
from brgsa_training.summarize.privacy import is_loopback
from brgsa_training.summarize.prompt import RESPONSE_FORMATS, TRIAL, Prompt, keeps_to

KEY_VARIABLE = "OPENAI_API_KEY"
_MOST_TOKENS = 2**31
_TRIAL_TOKENS = 200
_TEMPORARY = (408, 409, 425, 429)


class Settings(NamedTuple):
    """How to reach and use a server.

    `timeout_s` is for a whole answer, to its last byte. `attempts` tries per request, waiting `backoff_s` doubled each
    time (with jitter, at most `longest_wait_s`), or as long as the server's Retry-After says. Longer reports than
    `longest_report` characters are not sent.
    """

    base_url: str
    model: str
    concurrency: int = 16
    timeout_s: float = 120.0
    max_tokens: int = 4000
    attempts: int = 6
    backoff_s: float = 0.5
    longest_wait_s: float = 60.0
    longest_report: int = 30_000

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a request that can change its answer."""
        return {"temperature": 0, "max_tokens": self.max_tokens}

    @property
    def longest_answer(self) -> int:
        """Bytes of an answer: far more than its tokens take, even when each letter is written as an escape."""
        return 1_000_000 + 100 * self.max_tokens

    def job(self, prompt: Prompt) -> Job:
        """The key of the ledger for answers with these settings."""
        return Job(prompt.version, self.model, json.dumps(self.parameters, sort_keys=True))


class RefusedError(Exception):
    """The server will never answer this request; the message says why."""


class NoAnswerError(Exception):
    """All attempts failed for a passing reason."""


class _AnswerTooLongError(Exception):
    """The answer has more bytes than `Settings.longest_answer`."""


class Completion(NamedTuple):
    """What counts of a chat completion; `cut` says that the answer ended at its token limit."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool


def read_completion(completion: Any) -> Completion:
    """Return the content of a chat completion; what UTF-8 has no bytes for is "?" in it.

    Raises:
        ValueError: it is laid out otherwise, or counts tokens that are not sensible whole numbers.
    """
    try:
        choice = completion["choices"][0]
        text = choice["message"].get("content") or ""
        usage = completion.get("usage") or {}
        tokens = [usage.get(key) or 0 for key in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(text, str):
        raise ValueError("its content is not text")
    if not all(isinstance(count, int) and 0 <= count < _MOST_TOKENS for count in tokens):
        raise ValueError("its counts of tokens are not whole numbers")
    return Completion(text.encode("utf-8", "replace").decode(), *tokens, choice.get("finish_reason") == "length")


class Client:
    """Sends chat requests to one server; use it as an asynchronous context manager.

    Raises:
        SetupError: another machine's server needs a key, and there is none.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._format = next(iter(RESPONSE_FORMATS))
        self._pause_until = 0.0
        self._url = f"{settings.base_url}/chat/completions"  # a whole address, which the client need not put together
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not self._key:
            if not is_loopback(settings.base_url):
                raise SetupError(f"no API key: set the environment variable {KEY_VARIABLE}.")
            self._key = "none"
        # At debug level the client and the libraries beneath it write whole requests, with the reports, to the log.
        for name in ("openai", "httpx2", "httpcore2", "aiohttp"):
            logging.getLogger(name).setLevel(logging.WARNING)

    async def __aenter__(self) -> "Client":
        settings = self._settings
        self._client = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=settings.base_url,
            max_retries=0,  # the waiting is ours, because all requests must wait together
            timeout=None,  # so is the deadline, which is for the answer as a whole and not for each of its bytes
            http_client=openai.DefaultAioHttpClient(
                follow_redirects=False,  # the text goes to the named host and to no other
                trust_env=not settings.base_url.startswith("http://"),
                headers={"accept-encoding": "identity"},  # a small compressed answer can be a long one
                event_hooks={"response": [self._limit]},
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def response_format(self) -> str:
        """The name of the format that answers are asked for in, of `prompt.RESPONSE_FORMATS`."""
        return self._format

    async def find_format(self, usage: list[int]) -> None:
        """Use the strictest format that the server keeps to, tried with a small question that is not a report.

        A server that does not know a format answers with an error (500 with some) or as if it was not asked for it.

        Raises:
            SetupError, UsageError, BrgSAError: the server takes no request at all.
        """
        reason = ""
        for name in RESPONSE_FORMATS:
            self._format = name
            try:
                answer = await self._send(TRIAL, usage, trial=True)
            except RefusedError as error:
                reason = str(error)
                continue
            except NoAnswerError as error:
                raise BrgSAError(f"{error}. Nothing was answered; start again when the server does.") from error
            if keeps_to(name, answer.text, answer.cut):
                return
        raise BrgSAError(f"{self._settings.base_url} refuses a small test request in every format: {reason}.")

    async def ask(self, messages: list[dict[str, str]], usage: list[int]) -> str:
        """Send one request, with all its attempts; return the content of the answer, adding its tokens to `usage`.

        Raises:
            RefusedError, NoAnswerError: no answer to this request.
            SetupError, UsageError: the key is refused, the model does not exist, or the like: no answer to any.
        """
        return (await self._send(messages, usage)).text

    async def _send(self, messages: list[dict[str, str]], usage: list[int], trial: bool = False) -> Completion:
        settings = self._settings
        body = {"model": settings.model, "messages": messages, **settings.parameters}
        if trial:
            body["max_tokens"] = min(settings.max_tokens, _TRIAL_TOKENS)
        if RESPONSE_FORMATS[self._format]:
            body["response_format"] = RESPONSE_FORMATS[self._format]
        reason = ""
        for attempt in range(1, settings.attempts + 1):
            await self._wait_for_pause()
            wait = None
            try:
                response = await asyncio.wait_for(
                    self._client.post(self._url, cast_to=httpx2.Response, body=body), settings.timeout_s
                )
                completion = read_completion(json.loads(response.content))
                usage[0] += completion.tokens_in
                usage[1] += completion.tokens_out
                return completion
            except asyncio.TimeoutError:
                reason = f"no whole answer from {settings.base_url} within {settings.timeout_s:g} s"
            except openai.APIStatusError as error:
                reason = self._scrub(f"the server answered {error.status_code}: {_message(error)}")
                self._refuse(error, reason)
                if trial and error.status_code in (500, 501) and attempt > 1:
                    raise RefusedError(reason) from error
                wait = _retry_after(error.response.headers)
            except (ValueError, RecursionError) as error:
                reason = f"the server's answer is not a chat completion ({first_line(error)})"
            except _AnswerTooLongError as error:
                reason = str(error)
                if not trial or attempt > 1:
                    raise RefusedError(reason) from error
            except (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
                reason = self._scrub(f"no connection to {settings.base_url} ({first_line(_root(error))})")
            if attempt < settings.attempts:
                await self._back_off(attempt, wait)
        raise NoAnswerError(f"{reason} ({settings.attempts} attempts)")

    async def _limit(self, response: httpx2.Response) -> None:
        """Refuse a compressed answer, and let no answer pass its limit."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise httpx2.DecodingError("the answer is compressed, which was not asked for")
        response.stream = _LimitedStream(response.stream, self._settings.longest_answer)

    async def _wait_for_pause(self) -> None:
        while (left := self._pause_until - time.monotonic()) > 0:
            await asyncio.sleep(left * random.uniform(1.0, 1.1))  # noqa: S311

    async def _back_off(self, attempt: int, wait: float | None) -> None:
        """Wait before the next attempt; a Retry-After makes all requests wait."""
        if wait is not None:
            self._pause_until = max(self._pause_until, time.monotonic() + min(wait, self._settings.longest_wait_s))
            return
        longest = min(self._settings.backoff_s * 2 ** (attempt - 1), self._settings.longest_wait_s)
        await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311

    def _refuse(self, error: openai.APIStatusError, reason: str) -> None:
        """Raise what ends the run or the request; return if another attempt may help."""
        code = error.status_code
        if code in (401, 403):
            raise SetupError(f"{reason}. Check the key in {KEY_VARIABLE}.") from error
        if code == 404:
            raise UsageError(f"{reason}. Check --model {self._settings.model} and --base-url.") from error
        if 300 <= code < 400:
            raise UsageError(
                f"{self._settings.base_url} sends requests on to another address, which is not followed."
            ) from error
        if code == 402 or (code == 429 and b"insufficient_quota" in error.response.content):
            raise SetupError(f"{reason}. Add credit, then start again; answers so far are kept.") from error
        if code < 500 and code not in _TEMPORARY:
            raise RefusedError(reason)

    def _scrub(self, text: str) -> str:
        """Take the key, and what looks like one, out of a message."""
        text = text.replace(self._key, "***") if len(self._key) > 4 else text
        return re.sub(r"\bsk-[\w*-]+", "***", text)


class _LimitedStream(httpx2.AsyncByteStream):
    """The bytes of another stream, up to a limit."""

    def __init__(self, stream: Any, most: int):
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for part in self._stream:
            left -= len(part)
            if left < 0:
                raise _AnswerTooLongError(f"the server's answer is longer than {self._most} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _root(error: BaseException) -> BaseException:
    """Return the error at the beginning of a chain, which says what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _message(error: openai.APIStatusError) -> str:
    """The server's own words, at most 200 characters, without longer quotations, which may be of the report."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = " ".join(str(json.loads(error.response.content)["error"]["message"]).split())
        return re.sub(r"(?<!\w)(['\"`]).{40,}?(?:\1(?!\w)|$)", "'...'", message)[:200]
    return f"error {error.status_code}"


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait by the Retry-After header (seconds or a date), or None."""
    value = headers.get("retry-after-ms")
    with contextlib.suppress(ValueError, TypeError):
        if value is not None:
            return max(0.0, float(value) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None
