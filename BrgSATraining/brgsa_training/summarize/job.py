"""One summarization from reports to the result folder, with either backend."""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from brgsa.errors import BrgSAError, CasesFailedError, InputError, UsageError, resumable
from brgsa.files.output_folder import output_folder
from brgsa_training.evaluate.table_files import read_row_order
from brgsa_training.summarize.captions import Variant
from brgsa_training.summarize.findings import Finding, Summary, read_summaries
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.outputs import FINDINGS, SUMMARIES, ModelRecord, fingerprint, is_complete, write_outputs
from brgsa_training.summarize.privacy import require_allowed_host, require_no_identifier
from brgsa_training.summarize.reports import Columns, Report, read_reports
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.sentences import has_sentence, split_sentences
from brgsa_training.summarize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from brgsa_training.summarize.ledger import Ledger
    from brgsa_training.summarize.openai_client import Settings
    from brgsa_training.summarize.prompt import Prompt

# Every English report of some length has these words; one without them is in another language.
_ENGLISH = re.compile(r"\b(?:the|of|in|and|is|are|was|were|no|with)\b", re.IGNORECASE)
TOKENS_PER_SENTENCE = 25  # of an answer; about what the worked examples take
UNKNOWN_COST = "unknown (give --price IN OUT, in dollars per million tokens)"


class _Survey(NamedTuple):
    reports: int
    empty: int
    foreign: int


def summarize(arguments: argparse.Namespace, vocabulary: Vocabulary, names: Sequence[str], variant: Variant) -> int:
    """Run `brgsa-training summarize` and return its exit code.

    Raises:
        BrgSAError: of the kinds that `brgsa.errors` lists, each with one line.
    """
    _check(arguments)
    columns = Columns(
        arguments.id_column, tuple(arguments.text_columns), arguments.image_column, arguments.split_column
    )
    job = _Job(arguments, columns, vocabulary, names, variant)
    with output_folder(arguments.out, SUMMARIES) if arguments.out and not arguments.dry_run else nullcontext():
        return job.with_model() if arguments.backend == "openai" else job.with_rules()


class _Job:
    def __init__(
        self,
        arguments: argparse.Namespace,
        columns: Columns,
        vocabulary: Vocabulary,
        names: Sequence[str],
        variant: Variant,
    ):
        self.arguments = arguments
        self.columns = columns
        self.vocabulary = vocabulary
        self.names = names
        self.variant = variant
        self.ids = frozenset(read_row_order(arguments.ids)) if arguments.ids else None

    def reports(self, checked: bool = True) -> Iterator[Report]:
        return read_reports(self.arguments.reports, self.columns, checked, self.ids)

    def with_rules(self) -> int:
        about = self._about({"backend": "rules"})
        if self._finished(about):
            return 0
        survey = self._survey()
        self._require_nothing_dropped()
        backend = RulesBackend(self.vocabulary)
        summaries = (_summary(report, tuple(backend.findings(report.text))) for report in self.reports())
        self._write(_progress(summaries, survey.reports, "summarizing"), about)
        return 0

    def with_model(self) -> int:
        from brgsa_training.summarize.prompt import Prompt

        arguments = self.arguments
        local_files = arguments.batch_export or arguments.batch_import
        if not arguments.dry_run and not arguments.batch_import:
            if arguments.batch_export and not arguments.base_url:
                arguments.base_url = "https://api.openai.com/v1"  # where the file is meant to go
            arguments.base_url = require_allowed_host(arguments.base_url, arguments.i_have_deidentified_these_reports)
        prompt = Prompt(self.vocabulary.names)
        about = self._about({"backend": "openai", "model": arguments.model, "prompt": prompt.version})
        if not (local_files or arguments.dry_run or arguments.redo) and self._finished(about):
            return 0
        survey = self._survey()

        from brgsa_training.summarize.openai_client import Settings

        settings = Settings(
            arguments.base_url or "", arguments.model, arguments.concurrency, arguments.timeout, arguments.max_tokens
        )
        if arguments.batch_export:
            return self._export(prompt, settings)
        from brgsa_training.summarize.ledger import Ledger

        path = arguments.ledger or (arguments.out / "ledger.sqlite" if arguments.out else None)
        if arguments.dry_run and (path is None or not path.exists()):
            return self._estimate(self._readable(), prompt, settings)
        with Ledger(path) as ledger:
            if arguments.dry_run:
                return self._estimate(self._open_reports(ledger, prompt, settings), prompt, settings)
            self._require_nothing_dropped()
            if arguments.batch_import:
                self._import(ledger, prompt, settings)
                reason = "no answer in the batch files"
            else:
                reason = self._ask(ledger, prompt, settings, survey)
            record = ModelRecord(Normaliser(self.vocabulary))
            summaries = self._from_ledger(ledger, prompt, settings, record, reason)
            counts = self._write(_progress(summaries, survey.reports, "writing"), about, record)
        if counts["failed"]:
            raise CasesFailedError(
                f"{counts['failed']} of {counts['reports']} reports have no usable answer; see "
                f"{arguments.out / 'failures.csv'}. Run the command again; add --redo failed to ask again about "
                "answers that could not be used."
            )
        return 0

    def _about(self, backend: dict[str, Any]) -> dict[str, Any]:
        options = {
            **backend,
            "vocabulary": self.vocabulary.name,
            "labels": self.arguments.labels,
            "caption_variant": self.variant._asdict(),
        }
        key = fingerprint(
            self.arguments.reports,
            {**options, "columns": self.columns, "ids": sorted(self.ids or ()), "file": self.vocabulary.digest},
        )
        return {**options, "fingerprint": key}

    def _finished(self, about: dict[str, Any]) -> bool:
        count = is_complete(self.arguments.out, about["fingerprint"])
        if count is not None:
            print(f"{count} reports are already summarized in {self.arguments.out}; nothing to do")
        return count is not None

    def _require_nothing_dropped(self) -> None:
        """Refuse to write over summaries of reports that are not among those given.

        Raises:
            UsageError: the folder holds such summaries.
        """
        there: set[str] = set()
        with suppress(InputError):  # none yet, or not all of a table that is damaged
            there.update(summary.id for summary in read_summaries(self.arguments.out / FINDINGS))
        if dropped := there.difference(report.id for report in self.reports(checked=False)):
            raise UsageError(
                f"{self.arguments.out} holds summaries of {len(dropped)} reports that are not among those given. "
                "Give these as well, or choose another --out."
            )

    def _survey(self) -> _Survey:
        """Read all reports once, before any work or money: broken rows, identifiers, other languages."""
        count = empty = foreign = 0
        for report in self.reports(checked=False):
            if not self.arguments.allow_identifiers:
                require_no_identifier(report.id, f"{report.file}, {report.place}", report.text)
            count += 1
            empty += not has_sentence(report.text)
            foreign += len(report.text) > 200 and len(_ENGLISH.findall(report.text[:2000])) < 3
        if self.ids is not None and len(self.ids) > count:
            print(f"note: --ids names {len(self.ids)}, of which {count} reports were found", file=sys.stderr)
        if empty:
            print(f"note: {empty} of {count} reports are empty", file=sys.stderr)
        if foreign:
            print(
                f"note: {foreign} of {count} reports do not look like English, which the rules need",
                file=sys.stderr,
            )
        return _Survey(count, empty, foreign)

    def _readable(self) -> Iterator[Report]:
        return (report for report in self.reports() if has_sentence(report.text))

    def _open_reports(self, ledger: "Ledger", prompt: "Prompt", settings: "Settings") -> Iterator[Report]:
        """The reports that need a request."""
        job = settings.job(prompt)
        for report in self._readable():
            known = ledger.get(report.hash, job)
            if known is None or self.arguments.redo == "all" or (self.arguments.redo and known.status == "failed"):
                yield report

    def _estimate(self, reports: Iterable[Report], prompt: "Prompt", settings: "Settings") -> int:
        from brgsa_training.summarize.budget import price_of

        count = tokens_in = tokens_out = 0
        for report in reports:
            count += 1
            tokens_in += prompt.tokens(report.text)
            tokens_out += TOKENS_PER_SENTENCE * len(split_sentences(report.text))
        price = price_of(settings.base_url, self.arguments.price, needed=False)
        cost = f"${price.of(tokens_in, tokens_out):.2f}" if price else UNKNOWN_COST
        print(
            f"requests:       {count:,}\ntokens in:      {tokens_in:,} (about)\ntokens out:     {tokens_out:,} (about)"
        )
        print(f"price:          {cost}")
        return 0

    def _export(self, prompt: "Prompt", settings: "Settings") -> int:
        from brgsa_training.summarize.batchfile import export_batch

        files = export_batch(self.arguments.batch_export, self._readable(), prompt, settings)
        print("requests for the Batch API in " + ", ".join(map(str, files)))
        return 0

    def _import(self, ledger: "Ledger", prompt: "Prompt", settings: "Settings") -> None:
        from brgsa_training.summarize.batchfile import import_batch

        for path in self.arguments.batch_import:
            result = import_batch(path, self.reports(), prompt, settings, ledger)
            print(
                f"{path}: {result.ok} answers, {result.failed} that cannot be used, {result.unknown} of no report here"
            )

    def _ask(self, ledger: "Ledger", prompt: "Prompt", settings: "Settings", survey: _Survey) -> str:
        """Ask about what the ledger lacks; return why reports stayed without an answer."""
        from brgsa_training.summarize.budget import Budget, price_of
        from brgsa_training.summarize.openai_backend import OpenAIBackend

        cap = self.arguments.max_cost
        budget = Budget(cap)
        price = price_of(settings.base_url, self.arguments.price, needed=cap is not None)
        backend = OpenAIBackend(settings, prompt, ledger, budget, price)
        total = sum(1 for _ in self._open_reports(ledger, prompt, settings))
        asked = 0
        with (
            resumable(lambda: (asked, total)),
            tqdm(total=total, unit="report", desc="asking", disable=total == 0 or None) as bar,
        ):

            def done(spent: float) -> None:
                nonlocal asked
                asked += 1
                bar.update()
                if spent:
                    bar.set_postfix_str(f"${spent:.2f}", refresh=False)

            result = backend.run(self._open_reports(ledger, prompt, settings), done)
        outcome = f"{result.ok} answers, {result.failed} that cannot be used, {result.unanswered} not answered"
        print(f"{outcome}; price: {f'${budget.spent:.2f}' if price else UNKNOWN_COST}")
        if budget.exhausted:
            left = sum(1 for _ in self._open_reports(ledger, prompt, settings))
            raise BrgSAError(
                f"stopped at --max-cost {cap:g} with {left} reports to go; answers so far are kept. "
                "Run the command again to go on."
            )
        return f"not answered: {result.reason}" if result.reason else "not answered"

    def _from_ledger(
        self, ledger: "Ledger", prompt: "Prompt", settings: "Settings", record: ModelRecord, reason: str
    ) -> Iterator[Summary]:
        from brgsa_training.summarize.prompt import AnswerError
        from brgsa_training.summarize.verification import Verifier, model_findings

        job, verifier = settings.job(prompt), Verifier(self.vocabulary)
        for report in self.reports():
            sentences = split_sentences(report.text)
            if not sentences:
                yield _summary(report, ())
                continue
            answer = ledger.get(report.hash, job)
            if answer and answer.format:
                record.formats[answer.format] += 1
            if answer is None or answer.status != "ok":
                yield _summary(report, (), answer.error if answer else reason)
                continue
            try:
                findings = model_findings(answer.answer, sentences, record.normaliser)
            except AnswerError as error:
                yield _summary(report, (), f"the answer in the ledger cannot be used: {error}")
                continue
            findings, denied = verifier.verified(report.text, findings)
            record.contradicted += [(report.id, *contradiction) for contradiction in denied]
            yield _summary(report, tuple(findings))

    def _write(
        self, summaries: Iterable[Summary], about: dict[str, Any], record: ModelRecord | None = None
    ) -> dict[str, int]:
        counts = write_outputs(self.arguments.out, summaries, self.names, self.vocabulary, self.variant, about, record)
        print(f"{counts['reports']} reports, {counts['captions']} captions in {self.arguments.out}")
        if record and record.normaliser.unmapped:
            print(f"{len(record.normaliser.unmapped)} names are not in the vocabulary; see names-unmapped.csv")
        if record and record.contradicted:
            print(f"{len(record.contradicted)} findings dropped that the report denies; see contradicted.csv")
        return counts


def _check(arguments: argparse.Namespace) -> None:
    if arguments.backend == "openai" and not arguments.model:
        raise UsageError("--backend openai needs --model.")
    if arguments.out is None and not (arguments.dry_run or arguments.batch_export):
        raise UsageError("give a folder for the results with --out.")
    if arguments.backend == "rules" and (arguments.dry_run or arguments.batch_export or arguments.batch_import):
        raise UsageError("--dry-run, --batch-export and --batch-import need --backend openai.")
    if arguments.concurrency < 1 or arguments.timeout <= 0 or arguments.max_tokens < 1:
        raise UsageError("--concurrency, --timeout and --max-tokens must be positive.")
    if arguments.max_cost is not None and arguments.max_cost <= 0:
        raise UsageError("--max-cost must be more than 0 dollars.")


def _summary(report: Report, findings: tuple[Finding, ...], problem: str = "") -> Summary:
    return Summary(report.id, report.split, report.images, report.text, findings, problem)


def _progress(summaries: Iterable[Summary], total: int, what: str) -> Iterable[Summary]:
    return tqdm(summaries, total=total, unit="report", desc=what, disable=None)
