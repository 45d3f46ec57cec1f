"""The language model backend: many reports at once through the openai client, to any OpenAI-compatible server."""

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import openai

from brgsa.errors import BrgSAError, SetupError, UsageError, first_line
from brgsa_training.summarize.budget import Budget, Price
from brgsa_training.summarize.ledger import Answer, Job, Ledger
from brgsa_training.summarize.plain_http import PlainHTTPTransport, http
from brgsa_training.summarize.privacy import is_loopback
from brgsa_training.summarize.prompt import RESPONSE_FORMATS, AnswerError, Prompt, ask_again, parse_answer
from brgsa_training.summarize.reports import Report
from brgsa_training.summarize.sentences import split_sentences

KEY_VARIABLE = "OPENAI_API_KEY"
_FORMATS = tuple(RESPONSE_FORMATS)  # from the strictest to none


class Settings(NamedTuple):
    """How to reach and use a server.

    `attempts` tries per request, waiting `backoff_s` doubled each time (with jitter, at most `longest_wait_s`), or as
    long as the server's Retry-After says. Longer reports than `longest_report` characters are not sent.
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

    def job(self, prompt: Prompt) -> Job:
        """The key of the ledger for answers with these settings."""
        return Job(prompt.version, self.model, json.dumps(self.parameters, sort_keys=True))


class Tally(NamedTuple):
    """The outcome of a run: answers that are good, that failed for good, and reports that a rerun will ask again."""

    ok: int = 0
    failed: int = 0
    unanswered: int = 0
    reason: str = ""


class _ReportError(Exception):
    """The server will never answer this report; the message says why."""


class _NoAnswerError(Exception):
    """All attempts failed for a passing reason."""


class OpenAIBackend:
    """Asks a model about reports and keeps the answers in a ledger."""

    def __init__(self, settings: Settings, prompt: Prompt, ledger: Ledger, budget: Budget, price: Price | None = None):
        self._settings = settings
        self._prompt = prompt
        self._ledger = ledger
        self._job = settings.job(prompt)
        self._budget = budget
        self._price = price or Price(0.0, 0.0)
        self._format = 0
        self._pause_until = 0.0
        self._url = f"{settings.base_url}/chat/completions"  # a whole address, which the client need not put together
        self._asked: set[str] = set()
        self._first = asyncio.Event()
        self._ok = self._failed = self._unanswered = 0
        self._reason = ""
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not self._key:
            if not is_loopback(settings.base_url):
                raise SetupError(f"no API key: set the environment variable {KEY_VARIABLE}.")
            self._key = "none"

    def run(self, reports: Iterable[Report], done: Callable[[float], object] = lambda spent: None) -> Tally:
        """Ask about the reports, calling `done` with the money spent after each.

        Raises:
            SetupError: the key is refused or the model does not exist.
            BrgSAError: the server cannot be reached at all, or the ledger cannot be written.
        """
        # At debug level the client and the libraries beneath it write whole requests, with the reports, to the log.
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return asyncio.run(self._run(iter(reports), done))

    async def _run(self, reports: Iterator[Report], done: Callable[[float], object]) -> Tally:
        settings = self._settings
        options: dict[str, Any] = {"follow_redirects": False}  # the text goes to the named host and to no other
        if settings.base_url.startswith("http://"):
            options |= {"transport": PlainHTTPTransport(), "trust_env": False}
        async with openai.AsyncOpenAI(
            api_key=self._key,
            base_url=settings.base_url,
            max_retries=0,  # the waiting is ours, because all requests must wait together
            timeout=settings.timeout_s,
            http_client=openai.DefaultAsyncHttpxClient(**options),
        ) as client:
            # One request goes first: a wrong key, or a format that the server does not know, shows once.
            workers = [
                asyncio.create_task(self._work(client, reports, done, first=number == 0))
                for number in range(settings.concurrency)
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return Tally(self._ok, self._failed, self._unanswered, self._reason)

    async def _work(self, client: Any, reports: Iterator[Report], done: Callable[[float], object], first: bool) -> None:
        if not first:
            await self._first.wait()
        for report in reports:
            key = report.hash
            if key in self._asked:
                continue
            self._asked.add(key)  # only while in flight: later copies of a text find the answer in the ledger
            try:
                goes_on = await self._one(client, report, key)
            finally:
                self._asked.discard(key)
            self._first.set()
            if not goes_on:
                return
            done(self._budget.spent)
        self._first.set()

    async def _one(self, client: Any, report: Report, key: str) -> bool:
        """Ask about one report and keep the outcome; return whether the run goes on."""
        settings = self._settings
        if len(report.text) > settings.longest_report:
            reason = f"the report has {len(report.text)} characters, more than {settings.longest_report}"
            self._keep(key, Answer("failed", "", reason))
            return True
        sentences = split_sentences(report.text)
        most = 2 * self._price.of(self._prompt.tokens(report.text) * 4 // 3 + settings.max_tokens, settings.max_tokens)
        if not await self._budget.reserve(most):
            return False
        started = time.monotonic()
        usage = [0, 0]
        try:
            answer = await self._answer(client, sentences, usage)
            self._keep(
                key, answer._replace(tokens_in=usage[0], tokens_out=usage[1], seconds=time.monotonic() - started)
            )
        except _NoAnswerError as error:
            self._unanswered += 1
            self._reason = str(error)
            if self._ok + self._failed == 0 and self._unanswered >= min(settings.concurrency, 4):
                raise BrgSAError(f"{self._reason}. Nothing was answered; start again when the server does.") from error
        finally:
            await self._budget.pay(most, self._price.of(*usage))
        return True

    def _keep(self, key: str, answer: Answer) -> None:
        self._ledger.put(key, self._job, answer)
        if answer.status == "ok":
            self._ok += 1
        else:
            self._failed += 1

    async def _answer(self, client: Any, sentences: list[str], usage: list[int]) -> Answer:
        """Ask, check, and ask once more with the reason if the answer breaks the schema."""
        messages = self._prompt.messages(sentences)
        try:
            text = await self._request(client, messages, usage)
            try:
                parse_answer(text, sentences)
            except AnswerError as error:
                text = await self._request(client, ask_again(messages, text, error), usage)
                parse_answer(text, sentences)
        except AnswerError as error:
            return Answer("failed", text, f"two answers could not be used, the second because {error}")
        except _ReportError as error:
            return Answer("failed", "", str(error))
        return Answer("ok", text)

    async def _request(self, client: Any, messages: list[dict[str, str]], usage: list[int]) -> str:
        """Send one request, with all its attempts, and return the content of the answer."""
        reason = ""
        attempt = 0
        while attempt < self._settings.attempts:
            await self._wait_for_pause()
            format_used = self._format
            body = {"model": self._settings.model, "messages": messages, **self._settings.parameters}
            if RESPONSE_FORMATS[_FORMATS[format_used]]:
                body["response_format"] = RESPONSE_FORMATS[_FORMATS[format_used]]
            wait = None
            try:
                response = await client.post(self._url, cast_to=http.Response, body=body)
                return _content(response.content, usage)
            except openai.APIStatusError as error:
                reason = self._scrub(f"the server answered {error.status_code}: {_message(error)}")
                if self._lower_format(error, format_used):
                    continue
                self._refuse(error, reason)
                wait = _retry_after(error.response.headers)
            except openai.APITimeoutError:
                reason = f"no answer from {self._settings.base_url} within {self._settings.timeout_s:g} s"
            except openai.APIConnectionError as error:
                reason = self._scrub(
                    f"no connection to {self._settings.base_url} ({first_line(error.__cause__ or error)})"
                )
            except ValueError as error:
                reason = f"the server's answer is no chat completion ({first_line(error)})"
            attempt += 1
            if attempt < self._settings.attempts:
                await self._back_off(attempt, wait)
        raise _NoAnswerError(f"{reason} ({attempt} attempts)")

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

    def _lower_format(self, error: openai.APIStatusError, used: int) -> bool:
        """Ask for a looser response format if the server does not know this one; return whether to try again."""
        if error.status_code not in (400, 422) or used == len(_FORMATS) - 1:
            return False
        text = error.response.text.lower()
        if not any(word in text for word in ("response_format", "json_schema", "json_object", "guided", "structured")):
            return False
        self._format = max(self._format, used + 1)
        return True

    def _refuse(self, error: openai.APIStatusError, reason: str) -> None:
        """Raise what ends the run or the report; return if another attempt may help."""
        code = error.status_code
        if code in (401, 403):
            raise SetupError(f"{reason}. Check the key in {KEY_VARIABLE}.") from error
        if code == 404:
            raise UsageError(f"{reason}. Check --model {self._settings.model} and --base-url.") from error
        if 300 <= code < 400:
            raise UsageError(
                f"{self._settings.base_url} sends requests on to another address, which is not followed."
            ) from error
        if code == 402 or (code == 429 and "insufficient_quota" in error.response.text):
            raise SetupError(f"{reason}. Add credit, then start again; answers so far are kept.") from error
        if code < 500 and code not in (408, 409, 425, 429):
            raise _ReportError(reason)

    def _scrub(self, text: str) -> str:
        """Take the key, and what looks like one, out of a message."""
        text = text.replace(self._key, "***") if len(self._key) > 4 else text
        return re.sub(r"\bsk-[\w*-]+", "***", text)


def _content(body: bytes, usage: list[int]) -> str:
    """Return the content of a chat completion and add its tokens to `usage` (in, out)."""
    try:
        completion = json.loads(body)
        message = completion["choices"][0]["message"]
        tokens = completion.get("usage") or {}
        usage[0] += int(tokens.get("prompt_tokens") or 0)
        usage[1] += int(tokens.get("completion_tokens") or 0)
        return str(message.get("content") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _message(error: openai.APIStatusError) -> str:
    """The server's own words, at most 200 characters, without longer quotations, which may be of the report."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
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
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None
