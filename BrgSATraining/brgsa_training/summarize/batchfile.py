"""Files of the OpenAI Batch API: requests to upload, and its output back into the ledger.

A request carries the hash of the report as `custom_id`, so the output may come back in any order and in several files.
"""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from brgsa.errors import InputError
from brgsa.files import atomic_open
from brgsa.files.output_folder import require_new_file
from brgsa_training.summarize.ledger import Answer, Ledger
from brgsa_training.summarize.openai_client import Settings, read_completion
from brgsa_training.summarize.prompt import RESPONSE_FORMATS, AnswerError, Prompt, parse_answer
from brgsa_training.summarize.reports import Report
from brgsa_training.summarize.sentences import split_sentences

# Limits of one file: https://platform.openai.com/docs/guides/batch
MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
FORMAT = "json_schema"


def batch_request(report: Report, prompt: Prompt, settings: Settings) -> dict[str, Any]:
    """Return the request for one report."""
    body = {
        "model": settings.model,
        "messages": prompt.messages(split_sentences(report.text)),
        "response_format": RESPONSE_FORMATS[FORMAT],
        **settings.parameters,
    }
    return {"custom_id": report.hash, "method": "POST", "url": "/v1/chat/completions", "body": body}


def export_batch(
    path: str | Path, reports: Iterable[Report], prompt: Prompt, settings: Settings, most_bytes: int = MOST_BYTES
) -> list[Path]:
    """Write the requests, in `path` or, where a file would grow too large, in PATH-2, PATH-3 and so on."""
    path = Path(path)
    written: list[Path] = []
    asked: set[str] = set()
    with contextlib.ExitStack() as stack:
        file, size, count = None, 0, 0
        for report in reports:
            if report.hash in asked:
                continue
            asked.add(report.hash)
            line = json.dumps(batch_request(report, prompt, settings), ensure_ascii=False) + "\n"
            length = len(line.encode())
            if file is None or size + length > most_bytes or count == MOST_REQUESTS:
                name = path if not written else path.with_stem(f"{path.stem}-{len(written) + 1}")
                require_new_file(name)
                file, size, count = stack.enter_context(atomic_open(name)), 0, 0
                written.append(name)
            file.write(line)
            size += length
            count += 1
    return written


class Imported(NamedTuple):
    """How many answers of a batch were good, failed, or belong to no report of this run."""

    ok: int
    failed: int
    unknown: int


def import_batch(
    path: str | Path, reports: Iterable[Report], prompt: Prompt, settings: Settings, ledger: Ledger
) -> Imported:
    """Check the answers of a batch output (or error) file and put them into the ledger.

    Raises:
        InputError: the file cannot be read or a line is not of the Batch API.
    """
    path = Path(path)
    offsets = _offsets(path)
    job = settings.job(prompt)
    ok = failed = 0
    with path.open("rb") as file:
        for report in reports:
            offset = offsets.pop(report.hash, None)
            if offset is None:
                continue
            file.seek(offset)
            answer = _answer(json.loads(file.readline()), report)
            ledger.put(report.hash, job, answer)
            ok += answer.status == "ok"
            failed += answer.status == "failed"
    return Imported(ok, failed, len(offsets))


def _offsets(path: Path) -> dict[str, int]:
    """Where the line of each report begins, so that the answers need not fit into memory."""
    offsets: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        offsets[json.loads(line)["custom_id"]] = offset
                    except (ValueError, KeyError, TypeError, RecursionError) as error:
                        raise InputError(f"{path}, line {number}: not a line of a Batch API output file.") from error
                offset += len(line)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    return offsets


def _answer(record: dict[str, Any], report: Report) -> Answer:
    try:
        response = record.get("response") or {}
        if record.get("error") or response.get("status_code") != 200:
            reason = record.get("error") or (response.get("body") or {}).get("error") or response.get("status_code")
            return Answer("failed", "", f"the batch has no answer: {json.dumps(reason)[:200]}")
        text, *tokens, _ = read_completion(response["body"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return Answer("failed", "", f"the batch answer is not a chat completion ({type(error).__name__}: {error})")
    answer = Answer("ok", text, "", *tokens, format=FORMAT)
    try:
        parse_answer(text, split_sentences(report.text))
    except AnswerError as error:
        return answer._replace(status="failed", error=f"the answer could not be used: {error}")
    return answer
