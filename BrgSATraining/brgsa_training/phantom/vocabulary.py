"""A small WordPiece vocabulary, built from sentences: their words whole, any other word letter by letter."""

import string
from collections.abc import Iterable

from brgsa.text import clean_sentences

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def word_pieces(sentences: Iterable[str]) -> list[str]:
    """The lines of vocab.txt: special tokens, letters and digits alone and as continuations, then words by alphabet.

    Numbers are left to their digits, so that sizes in millimetres do not fill the vocabulary.
    """
    characters = string.ascii_lowercase + string.digits
    words = {word for text in sentences for sentence in clean_sentences(text) for word in sentence.split()}
    return [
        *SPECIAL,
        *characters,
        *(f"##{character}" for character in characters),
        *sorted(word for word in words if len(word) > 1 and not word.isdigit()),
    ]
