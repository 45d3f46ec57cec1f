"""Cutting a report into its sentences, without cutting decimals, dates or abbreviations."""

import re

# Words that end in a dot in the middle of a sentence.
_ABBREVIATION = re.compile(r"(?:\b(?:dr|prof|mr|mrs|ms|st|approx|ca|cf|vs|fig|max|min|e\.g|i\.e|etc)|\b[A-Z])\.$", re.I)

# A cut is: a line break, a bullet or a quotation mark (CT-RATE impressions list their items between them); two blanks;
# or the blank after a mark that ends a sentence, when a capital, a digit or a bracket follows. "4.5" and "03.02.2020"
# have no blank; "21. 02. 2020" has a digit on both sides of the dot. One class of characters comes first, because the
# search then skips all others.
_CUT = re.compile(
    r"""[ .!?;\r\n•▪●“”"]
      (?: (?<=[\r\n•▪●“”"])
        | (?<=\ )\s+
        | (?<=[.!?;])\ (?=[A-ZÇĞİÖŞÜ(\[])
        | (?<=[!?;])\ (?=\d)
        | (?<=[^\d.]\.)\ (?=\d)
      )""",
    re.VERBOSE,
)
_LETTER = re.compile(r"[^\W\d_]")

# A "sentence" without an end in so many letters is cut at a comma or blank, so that no pattern runs over it for long.
LONGEST = 2000


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a report in order, each a stripped piece of `text`; pieces without letters go."""
    sentences: list[str] = []
    start = 0
    for cut in _CUT.finditer(text):
        end = cut.start()
        if text[end] in ".!?;":
            end += 1
            if text[end - 1] == "." and _ABBREVIATION.search(text, max(start, end - 8), end):
                continue
        _keep(text[start:end], sentences)
        start = cut.end()
    _keep(text[start:], sentences)
    return sentences


def has_sentence(text: str) -> bool:
    """Return whether `split_sentences` would find anything."""
    return bool(_LETTER.search(text))


def _keep(piece: str, sentences: list[str]) -> None:
    piece = piece.strip()
    while len(piece) > LONGEST:
        cut = max(piece.rfind(", ", 0, LONGEST) + 1, piece.rfind(" ", LONGEST // 2, LONGEST)) or LONGEST
        _keep(piece[:cut], sentences)
        piece = piece[cut:].strip()
    if _LETTER.search(piece):
        sentences.append(piece)
