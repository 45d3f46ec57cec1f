"""The challenge set: sentences of our own, of which one half was worked with and the other was not."""

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


def test_the_set_is_large_and_its_halves_share_no_sentence(bench):
    halves = [bench.read_phrases(blind) for blind in (False, True)]
    sentences = [{phrase.sentence for phrase in half} for half in halves]
    assert len(sentences[0] | sentences[1]) >= 1500 and not sentences[0] & sentences[1]
    for half in halves:
        assert len({phrase.phenomenon for phrase in half}) >= 40 and len({phrase.label for phrase in half}) == 33
        assert {phrase.expected for phrase in half} == {"present", "absent", "uncertain", "not mentioned"}


@pytest.mark.parametrize(
    ("blind", "macro_f1", "wrong_polarity", "right"), [(False, 0.99, 0.01, 0.98), (True, 0.97, 0.015, 0.97)]
)
def test_the_rules_read_what_the_sentences_say(bench, blind, macro_f1, wrong_polarity, right):
    phrases, read = bench.read_phrases(blind), bench.rules_reader()
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
