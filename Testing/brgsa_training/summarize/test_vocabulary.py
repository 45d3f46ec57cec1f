import json

import pytest
from jsonschema import validate

from brgsa.errors import InputError, UsageError
from brgsa_training.evaluate.benchmark import Benchmark
from brgsa_training.summarize.findings import decide
from brgsa_training.summarize.normaliser import Normaliser
from brgsa_training.summarize.rules import RulesBackend
from brgsa_training.summarize.scope import Status
from brgsa_training.summarize.vocabulary import DEFAULT_PATH, SHIPPED, load_vocabulary, vocabulary_with


def _content() -> dict:
    return json.loads(DEFAULT_PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_vocabularies_follow_their_schema(name):
    schema = json.loads((DEFAULT_PATH.parent / "vocabulary.schema.json").read_text(encoding="utf-8"))
    validate(json.loads(SHIPPED[name].read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize("name", ["ct-rate-18", "ct-rate-lt-15", "rad-chestct-16", "rad-chestct-56"])
def test_every_label_of_a_benchmark_is_looked_for_and_found_by_its_name(name):
    vocabulary = vocabulary_with(name)
    names = vocabulary.label_set(name)
    assert set(names) == set(Benchmark.load(name).measured)
    backend = RulesBackend(vocabulary)
    for label in names:
        said = decide(backend.findings(f"There is {label.lower()} in the lung."), vocabulary)
        denied = decide(backend.findings(f"No {label.lower()} in the lung."), vocabulary)
        assert (said.get(label), denied.get(label)) == (Status.PRESENT, Status.ABSENT), label


def test_a_small_file_extends_a_vocabulary_of_this_package(tmp_path, run, write_reports):
    entry = {"name": "Zebra sign", "synonyms": [], "rules": [{"hints": ["zebra"], "find": ["\\bzebra signs?\\b"]}]}
    mine = {"name": "mine", "version": 1, "extends": "brgsa-chest-ct", "abnormalities": [entry]}
    mine["label_sets"] = {"mine": ["Zebra sign", "Lung nodule"]}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(mine), encoding="utf-8")
    reports = write_reports("A zebra sign is seen.", "No zebra sign. A nodule is seen in the lung.", "Clear lungs.")
    code, out, err = run("summarize", reports, "--out", tmp_path / "out", "--vocabulary", path, "--labels", "mine")
    assert code == 0, err
    rows = (tmp_path / "out" / "labels.csv").read_text("utf-8").splitlines()
    assert rows == ["report,Zebra sign,Lung nodule", "train_1_a,1,", "train_2_a,0,1", "train_3_a,,"]
    check = ("vocabulary", "check", path, "--labels", "mine", "--reports", reports, "--out", tmp_path / "c.csv")
    code, out, err = run(*check)
    assert code == 0 and "zebra sign (2)" in out and "3 reports; mentioned in none: none" in out, err
    assert "Zebra sign,1,1,0,0,zebra sign,A zebra sign is seen." in (tmp_path / "c.csv").read_text("utf-8")
    code, _, err = run(*check)
    assert code == 2 and "c.csv exists. Choose another name" in err

    entry["rules"][0]["hints"] = ["zebras"]
    hidden, broken = tmp_path / "hidden.json", tmp_path / "broken.json"
    hidden.write_text(json.dumps(mine), encoding="utf-8")
    out = run("vocabulary", "check", hidden, "--labels", "mine", "--reports", reports)[1]
    assert "not found as present: 'There is Zebra sign.'" in out and "without hint: Zebra sign (2)" in out
    broken.write_text(json.dumps(mine | {"extends": "nothing"}), encoding="utf-8")
    code, _, err = run("vocabulary", "check", broken)
    assert code == 3 and "extends 'nothing'; it can extend brgsa-chest-ct, rad-chestct" in err


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
