"""Benchmark definitions."""

import json

import jsonschema
import numpy as np
import pytest

from brgsa.errors import InputError, UsageError
from brgsa_training.evaluate.benchmark import FOLDER, Benchmark
from brgsa_training.evaluate.metrics import RankedScores
from brgsa_training.evaluate.tables import read_labels, read_scores

SIZES = {"ct-rate-18": 18, "ct-rate-lt-15": 15, "rad-chestct-16": 16, "rad-chestct-56": 56, "inspect-pe": 1}
SIZES |= {"rexgroundingct-18": 18}
MINIMAL = {
    "version": 1,
    "name": "mine",
    "title": "My scans",
    "abnormalities": [{"name": "Cyst", "prompts": ["There is a cyst"]}],
    "labels": ["Cyst"],
    "source": "my ward",
    "licence": "none",
    "get": "ask me",
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_definition_follows_the_schema_and_measures_only_what_is_scored(path):
    schema = json.loads((FOLDER.parent / "benchmark.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema)
    benchmark = Benchmark.load(path.stem)
    assert benchmark.name == path.stem
    scored = set(benchmark.abnormalities.names)
    for name in benchmark.measured:
        assert set(benchmark.scores.get(name, (name,))) <= scored
        assert set(benchmark.scores.get(name, (name,))) <= set(benchmark.released_columns)
    excluded = {name for name, _ in benchmark.exclusions}
    merged = {column for columns in benchmark.scores.values() for column in columns}
    assert set(benchmark.released_columns) == (set(benchmark.measured) - set(benchmark.scores)) | excluded | merged


def test_the_published_benchmarks_are_complete():
    for name, size in SIZES.items():
        assert len(Benchmark.load(name).measured) == size


def test_the_prompt_of_inspect_says_lung_embolism():
    assert Benchmark.load("inspect-pe").abnormalities[0].prompts == ("There is lung embolism",)


def test_labels_and_scores_of_rad_chestct_are_merged_as_released(parity, tmp_path):
    arrays = np.load(parity / "radchestct_merge.npz", allow_pickle=False)
    benchmark = Benchmark.load("rad-chestct-16")
    lines = [",".join(["NoteAcc_DEID", *arrays["columns"]])]
    lines += [",".join([case, *map(str, row)]) for case, row in zip(arrays["ids"], arrays["table"], strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    np.save(tmp_path / "scores.npy", arrays["pred18"])
    labels = read_labels(tmp_path / "labels.csv", {n: benchmark.label_columns(n) for n in benchmark.measured})
    scores = read_scores(
        tmp_path / "scores.npy",
        {n: benchmark.score_columns(n) for n in benchmark.measured},
        row_order=tuple(arrays["kept_ids"]),
        released_columns=benchmark.released_columns,
    )
    assert benchmark.measured == tuple(arrays["names16"])
    rows = [labels.cases.index(case) for case in scores.cases]
    np.testing.assert_array_equal(labels.values[rows], arrays["label16"])
    np.testing.assert_array_equal(scores.values, arrays["pred16"])
    ones = np.ones((len(rows), 1))
    auroc = [RankedScores(scores.values[:, c], labels.values[rows, c]).areas(ones)[0][0] for c in range(16)]
    np.testing.assert_allclose(auroc, arrays["auroc16"], rtol=0, atol=1e-9)


def test_one_file_adds_a_benchmark(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(MINIMAL), encoding="utf-8")
    benchmark = Benchmark.load(path)
    assert benchmark.measured == ("Cyst",)
    assert benchmark.abnormalities[0].prompts == ("There is a cyst",)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"version": 7}, "version"),
        ({"title": ""}, "title"),
        ({"labels": []}, "labels"),
        ({"label": ["Cyst"]}, "'label' is unknown"),
        ({"abnormalities": "ct-rate-19"}, "ct-rate-19"),
        ({"abnormalities": [{"prompt": "x"}]}, "abnormalities"),
        ({"case_pattern": "("}, "case_pattern"),
        ({"case_pattern": "x"}, "patient"),
        ({"labels": {"Cyst": "cyst"}}, "labels of Cyst"),
        ({"exclusions": ["x"]}, "exclusion"),
        ({"scores": []}, "scores"),
    ],
)
def test_a_broken_definition_is_refused_in_one_line(change, part):
    with pytest.raises(InputError, match=part) as caught:
        Benchmark.from_dict(MINIMAL | change, "mine.json")
    assert "mine.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="ct-rate-18"):
        Benchmark.load("ctrate-18")
