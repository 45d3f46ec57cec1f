import json

import pytest
from jsonschema import validate

from brgsa.errors import InputError, UsageError
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.vocabulary import DEFAULT_PATH, load_vocabulary


def _content() -> dict:
    return json.loads(DEFAULT_PATH.read_text(encoding="utf-8"))


def test_the_vocabulary_follows_its_schema():
    schema = json.loads((DEFAULT_PATH.parent / "vocabulary.schema.json").read_text(encoding="utf-8"))
    validate(_content(), schema)


def test_the_label_sets_are_those_of_the_benchmarks(vocabulary):
    assert {name: len(labels) for name, labels in vocabulary.label_sets.items()} == {
        "ct-rate-18": 18,
        "ct-rate-lt-15": 15,
        "gpt4o-88": 88,
    }
    assert vocabulary.label_set("ct-rate-18")[0] == "Medical material"
    assert vocabulary.label_set("ct-rate-lt-15")[0] == "Pneumonia"
    assert set(vocabulary.label_set("all")) >= set().union(*vocabulary.label_sets.values())
    with pytest.raises(UsageError, match="unknown label set 'x'"):
        vocabulary.label_set("x")


def test_every_synonym_leads_to_its_own_abnormality(vocabulary):
    normaliser = Normaliser(vocabulary)
    for abnormality in vocabulary.abnormalities:
        for name in (abnormality.name, *abnormality.synonyms):
            assert normaliser.name(name) == abnormality.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, this program reads version 1"),
        ({"terms": None}, "not laid out"),
        ({"label_sets": {"mine": ["Nothing"]}}, "'Nothing' is used in a label set"),
        (
            {"abnormalities": [{"name": "A", "synonyms": [], "rules": [{"hints": ["a"], "find": ["("]}]}]},
            "pattern of 'A'",
        ),
    ],
)
def test_a_broken_vocabulary_is_named_in_one_line(tmp_path, change, message):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(_content() | change), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_vocabulary(path)
    assert "\n" not in str(caught.value)


def test_a_missing_vocabulary_is_named():
    with pytest.raises(InputError, match="cannot read the vocabulary"):
        load_vocabulary("nowhere.json")
