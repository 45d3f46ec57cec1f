"""Reading one report: its text, and what it says about abnormalities, by the rules or by a language model."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from brgsa.errors import BrgSAError, InputError
from brgsa_training.summarize.findings import Finding
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.reports import Report
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.sentences import has_sentence, split_sentences
from brgsa_training.summarize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from brgsa_training.summarize.openai_client import Settings

STANDARD_INPUT = "-"


def read_report_text(path: str | os.PathLike) -> str:
    """Read a report from a UTF-8 text file, or from standard input where `path` is "-".

    Raises:
        InputError: it cannot be read, is not UTF-8 text, or holds no sentence.
    """
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    try:
        content = sys.stdin.buffer.read() if str(path) == STANDARD_INPUT else Path(path).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"cannot read the report {name}: {error.strerror}. Give a text file, or - for input."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"the report {name} is not UTF-8 text. Save it as plain text, UTF-8.") from error
    if "\0" in text or not has_sentence(text):
        raise InputError(f"the report {name} holds no text. Give the report as plain text.")
    return text


def findings_by_rules(text: str, vocabulary: Vocabulary) -> list[Finding]:
    """What the rules of the vocabulary find; nothing leaves this machine."""
    return RulesBackend(vocabulary).findings(text)


def findings_by_model(text: str, vocabulary: Vocabulary, settings: "Settings") -> list[Finding]:
    """What a language model finds, with the prompt and the checks of `brgsa-training summarize`; no answer is kept.

    The caller has asked `require_allowed_host` whether the text may go to the server.

    Raises:
        SetupError: the key is refused or missing.
        UsageError: the server does not know the model.
        BrgSAError: there is no answer, or none that can be used.
    """
    from brgsa_training.summarize.budget import Budget
    from brgsa_training.summarize.ledger import Ledger
    from brgsa_training.summarize.openai_backend import OpenAIBackend
    from brgsa_training.summarize.prompt import Prompt
    from brgsa_training.summarize.verification import model_findings

    prompt, report = Prompt(vocabulary.names), Report("report", text)
    with Ledger(":memory:") as ledger:
        OpenAIBackend(settings, prompt, ledger, Budget(None)).run([report])
        answer = ledger.get(report.hash, settings.job(prompt))
    if answer is None or answer.status != "ok":
        raise BrgSAError(f"{settings.model} gave no usable answer: {answer.error if answer else 'none at all'}.")
    return model_findings(answer.answer, split_sentences(text), Normaliser(vocabulary))
