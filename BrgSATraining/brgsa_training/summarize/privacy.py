"""Keeping report text on this machine, and finding what should have been taken out of it before."""

import ipaddress
import re
from urllib.parse import urlsplit

from brgsa.errors import InputError, UsageError

# Repetitions that could meet have limits, so that no text, however odd, takes long.
# What a name looks like: "Jane Doe", "SMITH, John", "J. Smith". Case counts here, and (?i:...) says where it does not.
_CAPITAL = f"[A-Z{''.join(letter for letter in map(chr, range(0xC0, 0x530)) if letter.isupper())}]"
_WORD = rf"{_CAPITAL}[\w'’-]{{1,40}}"
# ... and what else comes after "Dr.": the next sentence, or this one's next word.
_BEGINS = (
    r"(?!(?i:the|there|no|in|it|an?|on|both|this|he|she|findings|impression|comparison|lungs?|heart|if|for|to|and|or|"
    r"who|when|was|were|is|has|had|will|should|please|at|with|about|by|from|as|recommended|informed|before|after)\b)"
)
_NAME = rf"\b(?:{_WORD},?\s{{1,3}}(?:{_CAPITAL}\.?\s{{1,3}})?{_WORD}|(?:{_CAPITAL}\.\s{{0,3}}){{1,3}}{_WORD})"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    rf"(?:\d{{1,4}}\s?[./-]\s?\d{{1,2}}\s?[./-]\s?\d{{2,4}}|\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH},?\s\d{{2,4}}"
    rf"|{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{2,4}}|(?:19|20)\d\d)"
)
_NUMBER_WORD = r"(?:no|nr|num(?:ber)?|id|\#)"
# A number as hospitals write them: at least four digits, with letters, hyphens or blanks ("0012345", "CT-2019-004711").
_NUMBER = r"[:=\#-]?\s{0,3}(?:(?-i:[A-Z]{1,4})-?)?\d(?:[ -]?[a-z]?\d){3,}(?![\d-]|\s?(?:mm|cm|hu|kvp?|mas?)\b)"
_LONG_NUMBER = re.compile(r"\d{4}|\d[\d ()/.-]{4,}\d")
_SIGNED = ("signed by", "dictated by", "reported by", "reviewed by", "verified by", "approved by", "interpreted by")
_SIGNED += ("transcribed by", "referred by", "read by")
_DEGREES = ("md", "m.d", "phd", "ph.d", "frcr", "mbbs")
_PERSON = ("physician", "radiologist", "doctor", "attending", "resident", "surgeon", "technologist")
# Each kind with words of which a text needs one, in lower case, or a pattern that it needs: most are done after these.
_IDENTIFIERS: dict[str, tuple[tuple[str, ...] | re.Pattern, re.Pattern]] = {
    "a date of birth": (
        ("birth", "born", "dob", "d.o.b"),
        re.compile(rf"\b(?:birth\w*|born|d\.?o\.?b\b\.?)[^.\n]{{0,20}}?{_DATE}", re.IGNORECASE),
    ),
    "a name after a title": (
        ("dr", "doctor", "prof", "mr", "ms", "miss", "doç", "uzm", "sayın", *_DEGREES),
        re.compile(
            rf"\b(?:Dr|Doctor|Prof|Professor|Mr|Mrs|Ms|Miss|Doç|Uzm|Sayın)\b\.?[ \t]{{0,3}}(?:Dr\.?[ \t]{{0,3}})?"
            rf"(?:{_CAPITAL}\.\s{{0,3}}){{0,3}}{_BEGINS}{_WORD}"
            rf"|\b(?:DR|PROF|MRS)\.[ \t]{{0,3}}(?:DR\.[ \t]{{0,3}})?"
            rf"(?:{_CAPITAL}\.\s{{0,3}}){{0,3}}{_BEGINS}{_CAPITAL}{{3,}}\b"
            rf"|\b(?i:dr|prof|mrs)\.[ \t]{{0,3}}{_BEGINS}[a-z]{{3,}}"
            rf"|{_NAME},?\s{{1,3}}(?i:{'|'.join(map(re.escape, _DEGREES))})(?!\w)"
        ),
    ),
    "a name": (
        ("name", "patient:", "patient :", "patient=", "pt:", "^", *_SIGNED, *_PERSON),
        re.compile(
            rf"\b(?i:(?:sur|fore)?names?)\s{{0,3}}(?:[:=-]\s{{0,3}}\w|(?i:is\s)?\s{{0,3}}{_WORD})"
            rf"|\b(?i:patient|pt)\s{{0,3}}[:=]\s{{0,3}}(?:[A-Z][a-z]+,?\s{{1,3}}[A-Z][a-z]+|{_WORD},\s{{0,3}}{_WORD})"
            rf"|\b(?i:{'|'.join(_SIGNED)})\s{{0,3}}:?\s{{0,3}}{_NAME}"
            rf"|\b(?i:{'|'.join(_PERSON)})\s{{0,3}}[:=]\s{{0,3}}{_NAME}"
            rf"|\b{_WORD}\^{_CAPITAL}"
        ),
    ),
    "a social security number": (
        _LONG_NUMBER,
        re.compile(
            r"(?<![\d.,/-])\d{3}-\d{2}-\d{4}(?![\d-])"
            r"|\b(?:ssn|social\ssecurity)\b[^.\d\n]{0,20}\d{3}[ -]?\d{2}[ -]?\d{4}",
            re.IGNORECASE,
        ),
    ),
    "a record number": (
        _LONG_NUMBER,
        re.compile(
            rf"\b(?:m\.?r\.?n|(?:medical|patient|case|file|hospital)\srecord|accession|acc(?=\.?\s?(?:[#:]|no\b|num|\d{{5}}))"
            rf"|mr(?=\s?(?:#|no\b|num))|nhs|passport|identity|identification|national\sid|kimlik)\b\.?\s{{0,3}}{_NUMBER_WORD}?\.?\s{{0,3}}{_NUMBER}"
            rf"|\b(?:protocol|file|record|chart|account)\s{{0,3}}[:\#]\s{{0,3}}{_NUMBER}"
            rf"|\b(?:protocol|patient|file|record|chart|hospital|unit|serial|visit|encounter|episode|admission|account|policy|"
            rf"insurance|study|exam|order)\s{{0,3}}{_NUMBER_WORD}\.?\s{{0,3}}{_NUMBER}"
            r"|(?<![\d.,])[1-9]\d{10}(?![\d.,]|\s?(?:mm|cm|hu)\b)"
            r"|\bid\s{0,3}[:=#]?\s{0,3}\d{5,}"
            r"|\b1\.[23]\.\d+(?:\.\d+){4,}",
            re.IGNORECASE,
        ),
    ),
    "a phone number": (
        _LONG_NUMBER,
        re.compile(
            r"\b(?:(?:tele|mobile\s)?phone|tel|mobile|cell|gsm|fax|pager|call(?:ed)?|contact)\b\s{0,3}(?:no|number|us|at|on)?\s{0,3}[:.=]?"
            r"\s{0,3}\+?[\d(][\d ()/-]{5,}\d"
            r"|(?<![\d.,/-])(?:\+\d{1,3}[ -]?)?\(?0?\d{3}\)?[ .-]\d{3}[ .-]?\d{2}[ -]?\d{2}"
            r"(?!\d|[.,]\d|\s?(?:mm|cm|hu)\b)"
            r"|(?<![\w.,/-])\+\d{1,3}[ -]?\(?\d{2,4}\)?(?:[ -]?\d{2,4}){2,4}",
            re.IGNORECASE,
        ),
    ),
    "an e-mail address": (("@",), re.compile(r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[a-z]{2,}", re.IGNORECASE)),
}


def find_identifier(text: str) -> tuple[str, int] | None:
    """Return the kind of an obvious identifier in a text and the place (from 0) where it begins, or None.

    The patterns find what is written in a usual way; they are a safety net, not a de-identification.
    """
    lower = text.lower()
    for kind, (needed, pattern) in _IDENTIFIERS.items():
        if not (any(word in lower for word in needed) if isinstance(needed, tuple) else needed.search(text)):
            continue
        match = pattern.search(text)
        if match:
            return kind, match.start()
    return None


def require_no_identifier(report_id: str, place: str, text: str) -> None:
    """Stop at a report that holds an obvious identifier.

    Raises:
        InputError: names the row and the place in its text, not the text, because errors end up in logs.
    """
    found = find_identifier(text)
    if found:
        kind, start = found
        raise InputError(
            f"{place} ({report_id}) seems to hold {kind}, at character {start + 1} of its text. "
            "De-identify the reports, or add --allow-identifiers if this is none."
        )


def is_loopback(base_url: str) -> bool:
    """Return whether a server address is this machine."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_allowed_host(base_url: str | None, deidentified: bool) -> str:
    """Return the server address if report text may be sent there.

    Raises:
        UsageError: no server was named, its address is not a plain http(s) address, or it is another machine and the
            user has not said that the reports are de-identified.
    """
    if not base_url:
        raise UsageError(
            "--backend openai needs --base-url, the server that may see the reports "
            "(for example http://localhost:8000/v1 for vLLM, https://api.openai.com/v1 for OpenAI)."
        )
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError(f"--base-url {base_url!r} is not an address such as http://localhost:8000/v1.")
    if address.username or address.password:
        raise UsageError("--base-url must not hold a user name or password; put the key into OPENAI_API_KEY.")
    if not is_loopback(base_url) and not deidentified:
        raise UsageError(
            f"the reports would be sent to {address.hostname}, another machine. If they are de-identified, add "
            "--i-have-deidentified-these-reports; otherwise use a server on this machine, or --backend rules."
        )
    return base_url.rstrip("/")
