"""What a sentence adds to a finding: how severe it is and how large."""

import re

_SEVERITY = {
    "minimal": "minimal",
    "trace": "minimal",
    "mild": "mild",
    "mildly": "mild",
    "slight": "mild",
    "slightly": "mild",
    "small": "mild",
    "moderate": "moderate",
    "moderately": "moderate",
    "severe": "severe",
    "severely": "severe",
    "marked": "severe",
    "markedly": "severe",
    "massive": "severe",
    "advanced": "severe",
    "extensive": "severe",
    "large": "severe",
}
_NEAR = 4  # words between a severity and what it describes
_WORD = re.compile(r"\w+")
_NUMBER = r"\d+(?:[.,]\d+)?"
_SIZE = re.compile(rf"\b({_NUMBER}(?:\s?(?:x|by)\s?{_NUMBER}){{0,2}})\s?(mm|cm)\b")


def severity(text: str, left: int, right: int, start: int, end: int) -> str:
    """Return minimal, mild, moderate or severe, as the clause [left, right) says of the mention [start, end), or ""."""
    before = _WORD.findall(text, left, start)[-_NEAR:][::-1]
    inside, after = _WORD.findall(text, start, end), _WORD.findall(text, end, right)[:_NEAR]
    return next((_SEVERITY[word] for word in (*before, *inside, *after) if word in _SEVERITY), "")


def size(text: str, left: int, right: int, start: int) -> str:
    """Return the size in the clause that is nearest to the mention, in whole mm ("24 x 14 mm"), or ""."""
    found = min(_SIZE.finditer(text, left, right), key=lambda match: abs(match.start() - start), default=None)
    if found is None:
        return ""
    factor = 10 if found[2] == "cm" else 1
    numbers = (float(number.replace(",", ".")) * factor for number in re.findall(_NUMBER, found[1]))
    return " x ".join(f"{round(number)}" for number in numbers) + " mm"
