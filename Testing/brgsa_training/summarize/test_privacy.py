import json
from pathlib import Path

import pytest

from brgsa.errors import InputError, UsageError
from brgsa.files import csv_dicts
from brgsa_training.summarize.privacy import find_identifier, is_loopback, require_allowed_host, require_no_identifier

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "identifiers.csv"
with FIXTURE.open(encoding="utf-8", newline="") as file:
    PHRASES = [(row["text"], row["kind"]) for row in csv_dicts(file)]


@pytest.mark.parametrize(("text", "kind"), [phrase for phrase in PHRASES if phrase[1]])
def test_identifiers_as_they_are_usually_written_are_found(text, kind):
    assert find_identifier(text)[0] == kind
    assert find_identifier(f"The heart is of normal size. {text}")[0] == kind


@pytest.mark.parametrize("text", [text for text, kind in PHRASES if not kind])
def test_what_radiologists_write_is_no_identifier(text):
    assert find_identifier(text) is None
    assert find_identifier(f"The heart is of normal size.\n{text}\nNo pleural effusion.") is None


@pytest.mark.parametrize(
    ("piece", "end"),
    [
        ("A. ", " md"),
        ("a.", "@"),
        ("A", " md"),
        ("1", " mm"),
        ("1-", ""),
        ("name" + " " * 9, "x"),
        ("+1 22 ", ""),
        (" ", "^"),
    ],
)
def test_no_text_keeps_the_search_for_hours(piece, end):
    """A search that goes back again and again would not come to the end of these."""
    for words in ("mrn ", "born ", "tel ", "signed by ", "Dr. "):
        found = find_identifier(words + piece * 40_000 + end)
        assert found is None or found[1] < 20


def test_the_sentences_of_the_challenge_set_hold_none():
    with FIXTURE.with_name("report-phrases.csv").open(encoding="utf-8", newline="") as file:
        found = [row["sentence"] for row in csv_dicts(file) if find_identifier(row["sentence"])]
    assert found == []


def test_real_reports_hold_none(real_reports):
    for path in real_reports.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            assert (
                find_identifier(record.get("report_text") or record["findings"] + " " + record["impression"]) is None
            ), path


def test_the_place_is_named_but_the_text_is_not_shown():
    message = r"row 3 \(case_1\) seems to hold a record number, at character 15 of its text\."
    with pytest.raises(InputError, match=message) as caught:
        require_no_identifier("case_1", "row 3", "Normal chest.\nMRN: 123456 of Jane.\nNo nodule.")
    assert not any(text in str(caught.value) for text in ("123456", "Jane", "Normal"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("https://api.openai.com/v1", False),
        ("http://192.168.1.5/v1", False),
    ],
)
def test_only_this_machine_is_loopback(url, expected):
    assert is_loopback(url) is expected


def test_text_goes_only_to_a_named_and_allowed_host():
    assert require_allowed_host("http://localhost:1/v1/", False) == "http://localhost:1/v1"
    assert require_allowed_host("https://example.org/v1", True) == "https://example.org/v1"
    for url, message in (
        (None, "needs --base-url"),
        ("https://example.org/v1", "sent to example.org, another machine"),
        ("ftp://localhost/v1", "is not an address"),
        ("https://me:secret@example.org/v1", "must not hold a user name or password"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            require_allowed_host(url, False)
        assert "secret" not in str(caught.value)
