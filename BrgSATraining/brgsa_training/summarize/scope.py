"""What a sentence says about a thing that it names: that it is present, absent or uncertain.

The cues follow the idea of ConText (Harkema et al. 2009): words before or after the mention that negate it or put it in
doubt, and words that end their reach. Those for "was not observed" after the noun, and for comparisons with an earlier
examination, come from the word order of Turkish reports translated to English.
"""

import re
from enum import Enum
from typing import NamedTuple


class Status(str, Enum):
    """What the report says about an abnormality."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


_SEEN = (
    "observed|detected|seen|noted|noticed|found|identified|visuali[sz]ed|encountered|selected|present|available|evident|"
    "monitored|determined|demonstrated|revealed|recorded|reported|remarkable|noteworthy|striking|considered|watched|viewed|visible|followed|traced"
)
_EARLIER = r"(?:\w+\s){0,4}(?:in|on|at|according to)\s(?:\w+\s){0,3}(?:previous|prior|old|earlier|former|past)\b"

# One pass over a sentence finds all cues; the first alternative that fits at a place names the cue.
_CUE = re.compile(
    rf"""
    (?P<pseudo>
        \bno\s(?:\w+\s){{0,3}}?(?:differences?|changes?|progression|regression|contrast|doubt|longer\sthan)\b
      | \bno\s(?:\w+\s){{0,3}}?(?:increase|decrease|reduction|enlargement|growth)\s(?:\w+\s){{0,4}}?
        in\s(?:the\s|their\s|its\s)?(?:sizes?|numbers?|dimensions?|amounts?|diameters?|extent)\b
      | \b(?:without|lack\sof|absence\sof)\s(?:\w+\s){{0,2}}?contrast\b
      | \bnot\s(?:only|optimally|specific|clear|exclude)\b
    )
  | (?P<neg_after>
        (?:\bnot|n't|\bcannot|\bno\slonger)\s(?:(?:be|been|\w+ly|yet|any)\s)*(?:{_SEEN})\b(?!\s{_EARLIER})
      | \b(?:{_SEEN})\s(?:as\s)?(?:negative|absent)\b
      | \b(?:is|are|was|were|been)\s(?:\w+ly\s)?(?:absent|excluded|ruled\sout|negative|resolved)\b
      | \b(?:disappear(?:ed|ance)|resorbed|vanished)\b
      | \b(?:has|have|had)\s(?:\w+\s)?resolved\b
      | \b(?:complete|total|full)(?:ly)?\s(?:regress\w*|resol\w*|resorb\w*|recover\w*|disappear\w*)
    )
  | (?P<neg_before>
        \bno\b(?!\s*\.)(?!\s\d)
      | \b(?:free\sof|free\sfrom|absence\sof|lack\sof|neither|nor|negative\sfor)\b
      | \bnot\s(?:\w+ly\s)?(?:consistent|compatible|typical|suggestive|in\sfavou?r)\b
      | \bnot\s(?:any|have|show|contain|reveal|include|see|observe|detect)\b
    )
  | (?P<without> \bwithout\b )
  | (?P<there> \bthere\s(?:is|are|was|were|has\sbeen|have\sbeen)\b(?!\s(?:no|not)\b) )
  | (?P<affirm>
        \b(?:is|are|was|were|been|be)\s(?:(?!no\b|not\b)\w+\s){{0,2}}?(?:{_SEEN})\b(?!\s{_EARLIER})
      | \b(?:has|have)\s(?:newly\s|also\s|just\s)?(?:increased|appeared|developed|emerged|decreased|occurred)\b
      | \b(?:draws?\sattention|attracts?\sattention|is\snoteworthy|are\snoteworthy|continues?|persists?)\b
    )
  | (?P<stop>
        ;
      | \b(?:but|however)\b(?!,?\s(?:it|they|this|these)\b)
      | \b(?:although|though|whereas|while|except|excluding|apart\sfrom|other\sthan|besides|in\saddition)\b
      | \b(?:nevertheless|still|yet)\b
    )
  | (?P<comma> , | : )
    """,
    re.VERBOSE,
)

_DOUBT_BEFORE = re.compile(
    r"""(?:\b(?:may|might|could|(?<!as\sfar\sas\s)can)\s(?:\w+\s){0,2}?
          (?:be|belong|represent|reflect|indicate|suggest|include|cause|have)\b
          (?!\s(?:observed|seen|evaluated|visuali[sz]ed|distinguished)\b)
      | \b(?:possible|possibly|probable|probably|suspected|suspicious|suspicion|suspect|questionable|doubtful)\b
      | \b(?:differential|separate)\sdiagnos\w+
      | \b(?:in\sterms\sof|to\sexclude|to\srule\sout|exclusion\sof|excluding|rule\sout|whether|onset\sof)\b
      | \binvestigat\w+\sfor\b
      | \brecommended\s(?:\w+\s){0,4}?for\b
      )[^;:?,(]{0,60}$""",
    re.VERBOSE,
)
_DOUBT_AFTER = re.compile(
    r"""^(?:[^;,(.?]{0,60}?\?
      | [^;,(.?]{0,50}?\b(?:cannot|can\snot|could\snot|can't)\s(?:\w+\s){0,2}?
        (?:excluded|ruled\sout|differentiated|discriminated)\b
      | [^;,(.?]{0,50}?\b(?:can|should|may|might|could)\s(?:\w+\s)?be\s
        (?:considered|thought|present|included|suspected)\b
      | [^;,(.?]{0,50}?\b(?:differential|separate)\sdiagnos
      | [^;,(.?]{0,40}?\bis\s(?:possible|suspected|questionable)\b
      )""",
    re.VERBOSE,
)
_GONE_AFTER = re.compile(
    r"""\b(?:previous|prior|old|earlier|former|past)\b.*?
        \b(?:significantly|markedly|largely|nearly|almost|mostly|considerably|substantially|greatly)\s(?:\w+\s)?
        (?:regressed|resolved|resorbed|disappeared|recovered)\b
      | ^[^;,.]*\b(?:nearly|almost)\s(?:(?:completely|totally|entirely)\s)?
        (?:regressed|resolved|resorbed|disappeared)\b""",
    re.VERBOSE,
)
_GONE_BEFORE = re.compile(
    r"\b(?:nearly|almost|completely|totally|fully)\s(?:regressed|resolved|resorbed)\s(?:\w+\s){0,4}$"
)
_OWN_VERB = re.compile(r"\b(?:is|are|was|were|has|have)\b")
_REMAINS = re.compile(r"\b(?:continu|persist|remain|still|residual|but|however)")
_PLAIN = str.maketrans({"-": " ", "–": " ", "—": " ", "_": " ", "/": " ", "’": "'", "‘": "'", "\t": " ", "\n": " "})


class Cue(NamedTuple):
    """A word or phrase that decides about mentions near it; positions count characters of the plain sentence."""

    kind: str
    start: int
    end: int


def plain(sentence: str) -> str:
    """Return the sentence in lower case with hyphens and slashes as blanks, every character at its old place."""
    lower = sentence.lower()
    if len(lower) != len(sentence):  # a few letters, such as the Turkish dotted I, grow when lowered
        lower = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in sentence)
    return lower.translate(_PLAIN)


class Scope:
    """The cues of one sentence, found once and asked about every mention in it."""

    def __init__(self, sentence: str):
        self.text = sentence
        self.cues = [Cue(match.lastgroup or "", *match.span()) for match in _CUE.finditer(sentence)]

    def clause(self, start: int, end: int) -> tuple[int, int]:
        """Return the part of the sentence around a mention in which its organ or its qualifiers are looked for.

        A clause ends at a stop word, and at the comma or "and" after a verb; in a sentence without a verb, at a comma.
        """
        verbless = not any(cue.kind in ("affirm", "neg_after", "there") for cue in self.cues)
        left, right, after_verb = 0, len(self.text), False
        for cue in self.cues:
            if cue.kind in ("affirm", "neg_after"):
                after_verb = True
                if cue.end <= start and self.text.startswith(" and ", cue.end):
                    left, after_verb = cue.end, False
                elif cue.start >= end and self.text.startswith(" and ", cue.end):
                    right = cue.end
                    break
            elif cue.kind == "stop" or (cue.kind == "comma" and (after_verb or verbless)):
                if cue.end <= start:
                    left, after_verb = cue.end, False
                elif cue.start >= end:
                    right = cue.start
                    break
        return left, right

    def status(self, start: int, end: int) -> Status:
        """Return what the sentence says about the mention at [start, end)."""
        if self._negated(start, end) or self._gone(start, end):
            return Status.ABSENT
        if _DOUBT_AFTER.search(self.text[end:]) or _DOUBT_BEFORE.search(self.text[:start]):
            return Status.UNCERTAIN
        return Status.PRESENT

    def _negated(self, start: int, end: int) -> bool:
        if any(cue.kind in ("neg_before", "without") and start < cue.start and cue.end < end for cue in self.cues):
            return True  # the mention holds a negation: "the pericardial sac is free of fluid"
        before = [cue for cue in self.cues if cue.end <= start]
        after = [cue for cue in self.cues if cue.start >= end]
        for place, cue in enumerate(reversed(before)):
            if cue.kind == "stop":
                before = before[len(before) - place :]
                break
        after_verb = next((cue for cue in after if cue.kind in ("affirm", "neg_after", "there", "stop")), None)
        follows_no = bool(after) and after[0].kind == "neg_before" and after[0].start - end <= 3
        if follows_no and any(cue.kind == "affirm" for cue in after[1:]):
            return True  # "Pericardial effusion - no thickening was detected"
        affirmed = False
        comma_after_verb, verb, comma = False, False, False
        for cue in reversed(before):
            if cue.kind == "comma":
                comma = True
            elif cue.kind == "there":
                affirmed = True
                break
            elif cue.kind in ("affirm", "neg_after"):
                comma_after_verb = comma_after_verb or comma
                verb = True
            elif cue.kind == "without":
                listed = comma and " or " in self.text[cue.end :] and not (after_verb and after_verb.kind == "affirm")
                if not verb and (listed or not comma):
                    return True
            elif cue.kind == "neg_before":
                if not verb:
                    # "No lymph node is seen, heart size is increased": the mention is a clause of its own.
                    return not (comma and _OWN_VERB.search(self.text, start, end))
                if not comma_after_verb and not (after_verb and after_verb.kind == "affirm"):
                    return True
                break
        if after_verb is None or after_verb.kind != "neg_after":
            return False
        comma_between = any(cue.kind == "comma" for cue in after if cue.start < after_verb.start)
        return not (affirmed and comma_between)

    def _gone(self, start: int, end: int) -> bool:
        text = self.text
        if "regress" not in text and "resol" not in text and "resor" not in text and "disappear" not in text:
            return False
        gone = _GONE_BEFORE.search(text[:start]) or _GONE_AFTER.search(text[end:])
        return bool(gone) and not _REMAINS.search(text[end:])
