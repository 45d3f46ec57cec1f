"""Keeping report text on this machine, and finding what should have been taken out of it before."""

import ipaddress
import re
from urllib.parse import urlsplit

from brgsa.errors import InputError, UsageError

# Pieces of text of which every pattern below needs one: most reports are done after these searches.
_HINTS = (
    *(
        "birth",
        "born",
        "dob",
        "d.o.b",
        "name",
        "mrn",
        "record",
        "protocol",
        "patient id",
        "patient n",
        "patient:",
        "accession",
        "file",
        "passport",
    ),
    *("social", "identi", "national id", "phone", " tel", "tel:", "mobile", "gsm", "fax", "@"),
)
_TITLE = re.compile(r"\b(?:Dr|Prof|Mr|Mrs|Ms|Miss|Sayın)\b")
_LONG_NUMBER = re.compile(r"\d{7}|\d{3}\)?[ -]\d{3}")
_DATE = r"\d{1,2}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{2,4}|\d{4}-\d{2}-\d{2}|\d{1,2}\s\w{3,9}\s\d{4}"
_IDENTIFIERS = {
    "a date of birth": re.compile(rf"(?:birth\w*|\bborn|\bd\.?o\.?b)\b[^.\n]{{0,20}}?(?:{_DATE})", re.IGNORECASE),
    "a name after a title": re.compile(r"\b(?:Dr|Prof|Mr|Mrs|Ms|Miss|Sayın)\b\.?\s+(?:Dr\.?\s+)?[A-ZÇĞİÖŞÜ][\w'-]+"),
    "a name": re.compile(
        r"\b(?:patient(?:'s)?\s+)?(?:sur|last\s|first\s|full\s)?name\s*[:=]\s*[A-ZÇĞİÖŞÜ]\w+", re.IGNORECASE
    ),
    "a record number": re.compile(
        r"\b(?:mrn|(?:medical\s|patient\s|case\s|file\s)?record|protocol|patient\s*id|patient|accession|file|passport|"
        r"social\ssecurity|identity|identification|national\sid)\s*(?:no|nr|num(?:ber)?|id|#)?\.?\s*[:=#]?\s*\d{4,}"
        r"|(?<![\d.,])[1-9]\d{10}(?![\d.,]|\s?(?:mm|cm|hu))",
        re.IGNORECASE,
    ),
    "a phone number": re.compile(
        r"(?:phone|\btel|mobile|gsm|fax)\w*\s*[:.=]?\s*\+?[\d(][\d ()/-]{5,}\d"
        r"|(?<![\d.,/-])(?:\+\d{1,3}[ -]?)?\(?0?\d{3}\)?[ -]\d{3}[ -]?\d{2}[ -]?\d{2}(?![\d.,])",
        re.IGNORECASE,
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
}


def find_identifier(text: str) -> tuple[str, int] | None:
    """Return the kind of an obvious identifier in a text and the place (from 0) where it begins, or None.

    The patterns find what is written in a usual way; they are a safety net, not a de-identification.
    """
    lower = text.lower()
    hinted = any(hint in lower for hint in _HINTS)
    if not hinted and not _TITLE.search(text) and not _LONG_NUMBER.search(text):
        return None
    for kind, pattern in _IDENTIFIERS.items():
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
