import json

import pytest

from brgsa.errors import InputError, UsageError
from brgsa_training.summarize.privacy import find_identifier, is_loopback, require_allowed_host, require_no_identifier


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Date of birth: 03.02.1950. Normal.", "a date of birth"),
        ("DOB 12/03/1961", "a date of birth"),
        ("Reported by Dr. Smith.", "a name after a title"),
        ("Mrs Jones was examined.", "a name after a title"),
        ("Patient name: Jane", "a name"),
        ("MRN: 123456", "a record number"),
        ("Protocol No: 20191234", "a record number"),
        ("Identity 12345678901 was seen.", "a record number"),
        ("Tel: 0532 123 45 67", "a phone number"),
        ("Call +90 532 123 45 67 for results", "a phone number"),
        ("Write to a.b@hospital.org", "an e-mail address"),
    ],
)
def test_obvious_identifiers_are_found(text, kind):
    assert find_identifier(text)[0] == kind


@pytest.mark.parametrize(
    "text",
    [
        "Compared with the CT examination dated 03.02.2020.",
        "A nodule of 12 x 345 mm, series 2 image 224 (IMA 109), 1234567 HU.",
        "Telescopic appearance; patient in the prone position. Profile is normal.",
    ],
)
def test_dates_and_measures_are_no_identifiers(text):
    assert find_identifier(text) is None


def test_real_reports_hold_none(real_reports):
    for path in real_reports.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            assert find_identifier(record.get("report_text") or record["findings"] + " " + record["impression"]) is None


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
