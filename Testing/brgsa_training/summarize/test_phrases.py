"""The challenge set: sentences of our own, of which one half was worked with and the other was not."""

import importlib.util
from pathlib import Path

import pytest


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
