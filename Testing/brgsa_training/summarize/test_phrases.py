"""The challenge set: sentences of our own, of which two parts were worked with and one was not."""

import importlib.util
from pathlib import Path

import pytest

from brgsa_training.summarize.scope import Scope, plain


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_report_phrases.py"
    spec = importlib.util.spec_from_file_location("bench_report_phrases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PARTS = "", "-blind", "-second"


def test_the_set_is_large_and_its_parts_share_no_sentence(bench):
    parts = [bench.read_phrases(part) for part in PARTS]
    sentences = [{phrase.sentence for phrase in part} for part in parts]
    assert sum(map(len, sentences)) == len(set.union(*sentences)) >= 2500
    for part in parts:
        assert len({phrase.phenomenon for phrase in part}) >= 40 and len({phrase.label for phrase in part}) == 33
        assert {phrase.expected for phrase in part} == {"present", "absent", "uncertain", "not mentioned"}


@pytest.mark.parametrize(
    ("part", "macro_f1", "wrong_polarity", "right"),
    [("", 0.99, 0.01, 0.98), ("-blind", 0.97, 0.015, 0.97), ("-second", 0.98, 0.01, 0.98)],
)
def test_the_rules_read_what_the_sentences_say(bench, part, macro_f1, wrong_polarity, right):
    phrases, read = bench.read_phrases(part), bench.rules_reader()
    said = [read(phrase) for phrase in phrases]
    by_label = [
        bench.score(*zip(*((p, w) for p, w in zip(phrases, said, strict=True) if p.label == label), strict=True))
        for label in {phrase.label for phrase in phrases}
    ]
    total = bench.score(phrases, said)
    assert sum(result.f1 for result in by_label) / len(by_label) >= macro_f1
    assert total.wrong_polarity / total.absent < wrong_polarity
    assert total.right >= right


def test_the_cheap_tests_before_the_patterns_hide_nothing(bench, vocabulary):
    """A sentence is read the same when every pattern is tried, whatever its words are."""
    rules = [rule for abnormality in vocabulary.abnormalities for rule in abnormality.rules]
    for sentence in {phrase.sentence for phrase in bench.read_phrases()}:
        text = plain(sentence)
        scope, thorough = Scope(text), Scope(text)
        thorough._may_be_past = thorough._may_be_denied = thorough._may_be_doubted = thorough._may_be_gone = True
        for rule in rules:
            if any(hint in text for hint in rule.hints):
                for mention in rule.find.finditer(text):
                    assert scope.status(*mention.span()) == thorough.status(*mention.span()), sentence
