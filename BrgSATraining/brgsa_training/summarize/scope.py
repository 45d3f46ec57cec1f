"""What a sentence says about a thing that it names: that it is present, absent or uncertain, or nothing about today.

`cues` holds the words; here is how far they reach.
"""

import re
from enum import Enum
from typing import NamedTuple

from brgsa_training.summarize import cues


class Status(str, Enum):
    """What the report says about an abnormality."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


_OWN_VERB = re.compile(r"\b(?:is|are|was|were|has|have)\b")
_PREDICATE = re.compile(r"\b(?:is|are|was|were)\s(?:\w+ly\s)?$")
_SIDE = re.compile(r"\b(?:left|right)\b")
_INSIDE = re.compile(r"\b(?:not|no longer)\b(?!\s(?:only|optimal))")
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
        self.cues = [Cue(match.lastgroup or "", *match.span()) for match in cues.CUE.finditer(sentence)]
        self._may_be_past, self._may_be_denied, self._may_be_doubted, self._may_be_gone = (
            any(piece in sentence for piece in pieces)
            for pieces in (cues.ANOTHER_TIME, cues.DENIAL, cues.DOUBT, cues.GONE)
        )

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

    def status(self, start: int, end: int) -> Status | None:
        """Return what the sentence says about the mention at [start, end); None if it only recalls, foresees or asks.

        What it says of another time or person (history, family, "if a pneumothorax develops") is not said of this scan.
        """
        head = max(self.text.rfind(" ", start, end) + 1, start)  # cues may stand inside a mention of several words
        before, after = self.text[:head], self.text[end:]
        if self._may_be_past and self._of_another_time(before, after, start):
            return None
        if (
            (self._may_be_denied and self._denied(before, after))
            or self._negated(start, end)
            or self._gone(before, after)
        ):
            return Status.ABSENT
        if not self._may_be_doubted:
            return Status.PRESENT
        if cues.QUESTION.search(before) or cues.DOUBT_BEFORE.search(before):
            return Status.UNCERTAIN
        if cues.DOUBT_AFTER.search(after) and not cues.DONE_ABOUT.search(before):
            return Status.UNCERTAIN
        return Status.PRESENT

    def _of_another_time(self, before: str, after: str, start: int) -> bool:
        if cues.CONDITION.search(before) or cues.CONDITION_AFTER.search(after) or cues.CONCERN_AFTER.search(after):
            return True
        if cues.RELATIVE.search(self.text) or cues.HISTORY_AFTER.search(after) or cues.OPERATED_FOR.search(before):
            return True
        history = cues.HISTORY.search(before)
        if history:
            # "History of heart failure, bilateral effusions": after the comma it speaks of this scan, but not in a list
            # under a heading ("Clinical history: emphysema, smoker").
            heading = ":" in history["reach"]
            there = any(cue.kind == "there" and history.start() <= cue.start < start for cue in self.cues)
            return not (there or ("," in history["reach"] and not heading))
        treated = cues.STATUS_POST.search(before)
        if treated and " with " not in treated["reach"]:
            here = cues.STAYS.search(self.text, treated.start()) or cues.TAKEN_OUT.search(treated["reach"])
            return not here or bool(cues.REASON.search(treated["reach"]))
        return False

    def _denied(self, before: str, after: str) -> bool:
        if cues.FORM_NEGATIVE.search(after) or cues.UNLIKELY_AFTER.search(after):
            return True
        if cues.APPARENT.search(before) and re.search(r"\b(?:is|are|was|were)\b", after):
            return True
        return bool(cues.UNLIKELY_BEFORE.search(before))

    def _negated(self, start: int, end: int) -> bool:
        inside = {cue.kind for cue in self.cues if start <= cue.start and cue.end < end}
        if inside & {"neg_before", "without", "neg_after"}:
            return True  # the mention holds a negation: "the pericardial sac is free of fluid"
        if _INSIDE.search(self.text, start, end):
            return "pseudo" not in inside
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
                if cues.NEW_CLAUSE.search(self.text, cue.end, start):
                    break  # "The left lung is free of consolidation, the right lower lobe is consolidated"
                if comma and self._other_side(cue.end, start):
                    break  # "No nodule on the left, a nodule on the right"
                if not verb:
                    # "No lymph node is seen, heart size is increased": the mention is a clause of its own.
                    return not (comma and _OWN_VERB.search(self.text, start, end))
                if not comma_after_verb and not (after_verb and after_verb.kind == "affirm"):
                    return True
                break
        if after_verb is None or after_verb.kind != "neg_after":
            return False
        if cues.CLAUSE_ENDS.search(self.text[start : after_verb.start]):
            return False  # "The leads are in the expected position and pneumothorax is not seen"
        if self._other_side(start, after_verb.start):
            return False  # "Consolidation in the left lung, not seen on the right"
        comma_between = any(cue.kind == "comma" for cue in after if cue.start < after_verb.start)
        # "The ribs are fractured, a pneumothorax is not seen": the mention has its verb before it.
        return not (comma_between and (affirmed or _PREDICATE.search(self.text, 0, start)))

    def _other_side(self, begin: int, start: int) -> bool:
        """Whether a comma parts what speaks of one side from the part of the mention, which speaks of the other."""
        comma = self.text.rfind(",", begin, start)
        if comma < 0:
            return False
        ends = [place for mark in ",;" if (place := self.text.find(mark, start)) >= 0]
        end = min(ends, default=len(self.text))
        one, other = (set(_SIDE.findall(self.text, *span)) for span in ((begin, comma), (comma, end)))
        return len(one) == len(other) == 1 and one != other

    def _gone(self, before: str, after: str) -> bool:
        if not self._may_be_gone:
            return False
        gone = cues.GONE_BEFORE.search(before) or cues.GONE_AFTER.search(after)
        return bool(gone) and not cues.REMAINS.search(re.split(r"\b(?:no|without)\b|;", after)[0])
