"""Text as the released model reads it, and as messages show it.

The cleaning is that of the released model (docs/method.md, section d), because its text encoder was trained on it:
lower case, letters and digits only, no sentence marks. Three of its habits surprise users: it erases a sentence of one
word, it cuts the whole part off a decimal number, and it drops every letter outside ASCII.
"""

import re


def clean_sentences(text: str) -> list[str]:
    """Return the cleaned sentences of `text`, without those of one word.

    Reference: released code, `process_text`; docs/method.md d.
    """
    sentences = []
    text = text.replace("\n", " ")
    for chunk in (chunk for piece in re.split(r"[0-9]+\.", text) for chunk in piece.split(".")):
        found = words(chunk.replace("\ufffd\ufffd", " "))
        if len(found) > 1:
            ascii_words = (word.encode("ascii", "ignore").decode() for word in found)
            sentences.append(" ".join(word for word in ascii_words if word))
    return sentences


def clean(text: str) -> str:
    """Return `text` as the released model reads it: the cleaned sentences joined by spaces."""
    return " ".join(clean_sentences(text))


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case: runs of letters, digits and underscores."""
    return re.findall(r"\w+", text.lower())


def shorten(text: str, length: int = 80) -> str:
    """Return `text` on one line of at most `length` characters, for messages."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
