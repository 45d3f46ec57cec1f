"""Fixtures of the summarization tests."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from brgsa_training import cli
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.vocabulary import Vocabulary, load_vocabulary


@pytest.fixture(scope="session")
def llm() -> ModuleType:
    """The stand-in for an OpenAI-compatible server."""
    path = Path(__file__).resolve().parents[2] / "standins" / "llm_server.py"
    spec = importlib.util.spec_from_file_location("llm_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["llm_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary()


@pytest.fixture(scope="session")
def rules(vocabulary) -> RulesBackend:
    return RulesBackend(vocabulary)


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a brgsa-training command in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def write_reports(tmp_path) -> Callable[..., Path]:
    """Write texts as a JSONL reports file."""

    def write(*texts: str, name: str = "reports.jsonl") -> Path:
        path = tmp_path / name
        lines = [
            json.dumps({"id": f"train_{number}_a", "text": text, "images": [f"train_{number}_a_1.nii.gz"]})
            for number, text in enumerate(texts, 1)
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
