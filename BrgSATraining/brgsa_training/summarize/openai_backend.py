"""The language model backend: many reports at once, answers kept in a ledger, within a budget."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from brgsa.errors import BrgSAError
from brgsa_training.summarize.budget import Budget, Price
from brgsa_training.summarize.ledger import Answer, Ledger
from brgsa_training.summarize.openai_client import Client, NoAnswerError, RefusedError, Settings
from brgsa_training.summarize.prompt import AnswerError, Prompt, ask_again, parse_answer
from brgsa_training.summarize.reports import Report
from brgsa_training.summarize.sentences import split_sentences

_MOST_IN_A_ROW = 20  # reports without an answer, beside those in flight, after which a server counts as dead


class Outcome(NamedTuple):
    """The outcome of a run: answers that are good, that failed for good, and reports that a rerun will ask again."""

    ok: int = 0
    failed: int = 0
    unanswered: int = 0
    reason: str = ""


class OpenAIBackend:
    """Asks a model about reports and keeps the answers in a ledger."""

    def __init__(self, settings: Settings, prompt: Prompt, ledger: Ledger, budget: Budget, price: Price | None = None):
        self._settings = settings
        self._prompt = prompt
        self._ledger = ledger
        self._job = settings.job(prompt)
        self._budget = budget
        self._price = price or Price(0.0, 0.0)
        self._asked: set[str] = set()
        self._ok = self._failed = self._unanswered = self._in_a_row = 0
        self._reason = ""

    def run(self, reports: Iterable[Report], done: Callable[[float], object] = lambda spent: None) -> Outcome:
        """Ask about the reports, calling `done` with the money spent after each.

        Raises:
            SetupError: there is no key, the key is refused or the model does not exist.
            BrgSAError: the server does not answer, or not any more, or the ledger cannot be written.
        """
        return asyncio.run(self._run(iter(reports), done))

    async def _run(self, reports: Iterator[Report], done: Callable[[float], object]) -> Outcome:
        async with Client(self._settings) as client:
            first = next(reports, None)
            if first is None or not await self._paid(self._most(""), client.find_format):
                return Outcome()
            reports = itertools.chain([first], reports)
            workers = [
                asyncio.create_task(self._work(client, reports, done)) for _ in range(self._settings.concurrency)
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return Outcome(self._ok, self._failed, self._unanswered, self._reason)

    def _most(self, text: str) -> float:
        """Return the most that the requests about one report can cost, in dollars."""
        tokens = self._prompt.tokens(text) * 4 // 3 + self._settings.max_tokens
        return 2 * self._price.of(tokens, self._settings.max_tokens)

    async def _paid(self, most: float, ask: Callable[[list[int]], Awaitable[None]]) -> bool:
        """Make requests that count their tokens and pay for them; return False, asking nothing, without the money."""
        if not await self._budget.reserve(most):
            return False
        usage = [0, 0]
        try:
            await ask(usage)
        finally:
            await self._budget.pay(most, self._price.of(*usage))
        return True

    async def _work(self, client: Client, reports: Iterator[Report], done: Callable[[float], object]) -> None:
        for report in reports:
            key = report.hash
            if key in self._asked:
                continue
            self._asked.add(key)  # only while in flight: later copies of a text find the answer in the ledger
            try:
                if not await self._one(client, report, key):
                    return
            finally:
                self._asked.discard(key)
            done(self._budget.spent)

    async def _one(self, client: Client, report: Report, key: str) -> bool:
        """Ask about one report and keep the outcome; return whether the run goes on."""
        settings = self._settings
        if len(report.text) > settings.longest_report:
            reason = f"the report has {len(report.text)} characters, more than {settings.longest_report}"
            self._keep(key, Answer("failed", "", reason))
            return True

        async def ask(usage: list[int]) -> None:
            started = time.monotonic()
            answer = await self._answer(client, split_sentences(report.text), usage)
            seconds = time.monotonic() - started
            self._keep(
                key,
                answer._replace(
                    tokens_in=usage[0], tokens_out=usage[1], seconds=seconds, format=client.response_format
                ),
            )

        try:
            return await self._paid(self._most(report.text), ask)
        except NoAnswerError as error:
            self._unanswered += 1
            self._reason = str(error)
            self._in_a_row += 1
            if self._in_a_row >= settings.concurrency + _MOST_IN_A_ROW:
                raise BrgSAError(
                    f"{self._reason}. {self._in_a_row} reports in a row were not answered; answers so far are kept. "
                    "Start again when the server does."
                ) from error
        return True

    def _keep(self, key: str, answer: Answer) -> None:
        self._ledger.put(key, self._job, answer)
        self._in_a_row = 0
        if answer.status == "ok":
            self._ok += 1
        else:
            self._failed += 1

    async def _answer(self, client: Client, sentences: list[str], usage: list[int]) -> Answer:
        """Ask, check, and ask once more with the reason if the answer breaks the schema."""
        messages = self._prompt.messages(sentences, client.response_format)
        text = ""
        try:
            text = await client.ask(messages, usage)
            try:
                parse_answer(text, sentences)
            except AnswerError as error:
                text = await client.ask(ask_again(messages, text, error), usage)
                parse_answer(text, sentences)
        except AnswerError as error:
            return Answer("failed", text, f"two answers could not be used, the second because {error}")
        except RefusedError as error:
            return Answer("failed", "", str(error))
        return Answer("ok", text)
